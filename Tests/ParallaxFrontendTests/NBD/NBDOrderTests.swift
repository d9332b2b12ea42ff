// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxNBD
import Testing

/// A client that connects again after it has died: what it had asked before must not come after what it
/// asks now.
@Suite("NBD clients one after the other")
struct NBDOrderTests {
    private let old = [UInt8](repeating: 1, count: 512)
    private let new = [UInt8](repeating: 2, count: 512)

    @Test(
        "a request of a client that has gone is carried out before the next client's",
        arguments: [false, true])
    func inFlight(saysGoodbye: Bool) throws {
        let server = NBDTestServer()
        server.pick = { _ in nil }
        let (_, first) = try server.connect()
        first.ask(.write, cookie: 1, length: 512, data: old)
        if saysGoodbye { first.ask(.disconnect, cookie: 2) }
        server.settle()
        if !saysGoodbye { first.hangUp() }
        let (_, second) = try server.connect()
        second.ask(.write, cookie: 3, length: 512, data: new)
        server.settle()
        #expect(server.engine.history.count == 1)
        // The newest first, if there were one.
        server.pick = { $0 > 0 ? $0 - 1 : nil }
        #expect(second.reply()?.cookie == 3)
        #expect(server.engine.history.count == 2 && server.engine.holds(new, at: 0))
        if saysGoodbye { #expect(first.reply()?.cookie == 1) }
    }

    @Test("so are those that are still in the sockets")
    func unread() throws {
        let server = NBDTestServer(queueCapacity: 1)
        server.pick = { _ in nil }
        let (_, first) = try server.connect()
        // More than there is room for.
        for cookie in 0..<UInt64(NBDLimits.commandsInFlight) + 20 {
            first.ask(.write, cookie: cookie, length: 512, data: old)
        }
        server.settle()
        first.hangUp()
        let (_, second) = try server.connect()
        second.ask(.write, cookie: 3, length: 512, data: new)
        server.settle()
        server.pick = { $0 > 0 ? $0 - 1 : nil }
        #expect(second.reply()?.cookie == 3)
        #expect(server.engine.history.count > 100)
        #expect(server.engine.holds(new, at: 0))
    }

    @Test("clients that are there at the same time do not wait for each other")
    func together() throws {
        let server = NBDTestServer()
        let (_, first) = try server.connect()
        server.pick = { _ in nil }
        first.ask(.write, cookie: 1, length: 512, data: old)
        server.settle()
        let (_, second) = try server.connect()
        second.ask(.write, cookie: 3, length: 512, data: new)
        server.settle()
        #expect(server.engine.history.count == 2)
        server.pick = { $0 > 0 ? 0 : nil }
        #expect(first.reply()?.cookie == 1 && second.reply()?.cookie == 3)
    }

    @Test("of those who waited and have gone nothing is carried out, and they leave nothing behind")
    func goneWhileWaiting() throws {
        let server = NBDTestServer()
        server.pick = { _ in nil }
        let (_, first) = try server.connect()
        first.ask(.write, cookie: 1, length: 512, data: old)
        server.settle()
        first.hangUp()
        for _ in 0..<5 {
            let (_, waiting) = try server.connect()
            waiting.ask(.write, cookie: 2, length: 512, data: old)
            server.settle()
            waiting.hangUp()
        }
        let (_, last) = try server.connect()
        server.settle()
        // The first has a request in flight; the last waits.
        #expect(server.connections.count == 2)
        last.ask(.write, cookie: 3, length: 512, data: new)
        server.pick = { $0 > 0 ? 0 : nil }
        #expect(last.reply()?.cookie == 3)
        #expect(server.engine.history.count == 2 && server.engine.holds(new, at: 0))
        #expect(server.connections.count == 1)
    }

    @Test("a daemon that ends answers no request with an error that the next one would carry out")
    func leaving() throws {
        let server = NBDTestServer(byteCount: 40 << 20)
        let (session, client) = try server.connect()
        server.pick = { _ in nil }
        client.ask(.write, cookie: 1, length: 512, data: old)
        client.ask(.read, cookie: 2, length: 32 << 20)
        server.settle()
        server.stopConnection(session, isLeaving: true)
        server.pick = { $0 > 0 ? 0 : nil }
        server.settle()
        #expect(client.reply()?.cookie == 1)
        while let reply = client.reply() { #expect(reply.error == 0) }
        #expect(server.connections.isEmpty)
    }
}
