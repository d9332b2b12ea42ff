// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxNBD
import Testing

@Suite("NBD connection")
struct NBDConnectionTests {
    @Test("what is written is read back, simple and structured", arguments: [false, true])
    func writeThenRead(structured: Bool) throws {
        let server = NBDTestServer(byteCount: 4 << 20)
        let (_, client) = try server.connect(structured: structured)
        var cookie: UInt64 = 100
        for (offset, count) in [(0, 512), (512, 4096), (8192, 16384), (4096, 66_048)] {
            let data = pattern(count, seed: offset)
            cookie += 1
            client.ask(
                .write, cookie: cookie, offset: UInt64(offset), length: UInt32(count), data: data)
            #expect(client.reply() == NBDTestReply(cookie: cookie, isSimple: true))
            client.ask(.read, cookie: cookie, offset: UInt64(offset), length: UInt32(count))
            let reply = try #require(client.reply(dataBytes: count, from: UInt64(offset)))
            expect(isSame(reply.data, data))
            #expect(reply.cookie == cookie)
            #expect(reply.isSimple != structured)
        }
    }

    @Test("a write of 32 MiB at an odd sector arrives whole, in block-aligned pieces")
    func longWrite() throws {
        let server = NBDTestServer(byteCount: 40 << 20)
        let (_, client) = try server.connect()
        let data = pattern(32 << 20)
        client.ask(.write, offset: 512, length: 32 << 20, data: data)
        #expect(client.reply()?.error == 0)
        expect(server.engine.holds(data, at: 512))
        let inner = server.engine.history.dropFirst()
        #expect(inner.allSatisfy { $0.firstSector % 8 == 0 })
        #expect(server.engine.history.allSatisfy { $0.sectorCount <= 512 })
    }

    @Test("a read of 32 MiB comes in chunks, in any order", arguments: [1, 2, 3])
    func longStructuredRead(seed: UInt64) throws {
        let server = NBDTestServer(byteCount: 40 << 20)
        let (_, client) = try server.connect()
        let data = pattern(32 << 20)
        server.engine.fill(at: 1024, data)
        var random = SplitMix(seed: seed)
        server.pick = { count in count > 0 ? Int(random.next() % UInt64(count)) : nil }
        client.ask(.read, cookie: 9, offset: 1024, length: 32 << 20)
        let reply = try #require(client.reply(dataBytes: data.count, from: 1024))
        expect(isSame(reply.data, data))
        #expect(reply.error == 0)
        #expect(reply.dataChunkCount == 129)
    }

    @Test(
        "a long read without structured replies comes in one piece",
        arguments: [262_656, 3 << 20, (3 << 20) + 512, 8 << 20, 32 << 20])
    func longSimpleRead(count: Int) throws {
        let server = NBDTestServer(byteCount: 40 << 20)
        let (_, client) = try server.connect(structured: false)
        let data = pattern(count)
        server.engine.fill(at: 512, data)
        var random = SplitMix(seed: UInt64(count))
        server.pick = { count in count > 0 ? Int(random.next() % UInt64(count)) : nil }
        for _ in 0..<2 {
            client.ask(.read, cookie: 5, offset: 512, length: UInt32(count))
            client.ask(.read, cookie: 6, offset: 0, length: 4096)
        }
        for _ in 0..<2 {
            var replies = [UInt64: NBDTestReply]()
            for _ in 0..<2 {
                // The cookie says which of the two it is, and so how much data follows.
                let header = client.receive(16)
                let cookie = UInt64(header[15])
                let bytes = client.receive(cookie == 5 ? count : 4096)
                replies[cookie] = NBDTestReply(cookie: cookie, data: bytes, isSimple: true)
                #expect(Array(header.prefix(8)) == big(NBDMagic.simpleReply) + [0, 0, 0, 0])
            }
            expect(isSame(replies[5]?.data, data))
            #expect(replies[6]?.data.count == 4096)
        }
    }

    @Test("DF gives one chunk")
    func dontFragment() throws {
        let server = NBDTestServer()
        let (_, client) = try server.connect()
        client.ask(.read, flags: .dontFragment, offset: 512, length: 262_144)
        let reply = try #require(client.reply(dataBytes: 262_144, from: 512))
        #expect(reply.dataChunkCount == 1 && reply.error == 0)
        client.ask(.read, flags: .dontFragment, offset: 0, length: 262_656)
        #expect(client.reply(dataBytes: 262_656)?.error == 75)
    }

    @Test("replies carry their request's cookie when the engine answers out of order")
    func outOfOrder() throws {
        let server = NBDTestServer()
        let (_, client) = try server.connect()
        for block in 0..<64 {
            memset(server.engine.bytes + block * 4096, Int32(block), 4096)
        }
        var random = SplitMix(seed: 4)
        server.pick = { $0 > 0 ? Int(random.next() % UInt64($0)) : nil }
        for block in 0..<64 {
            client.ask(.read, cookie: UInt64(block), offset: UInt64(block * 4096), length: 4096)
        }
        var order: [UInt64] = []
        for _ in 0..<64 {
            var header = ByteReader(client.receive(28))
            _ = header.integer(UInt64.self)
            let cookie = header.integer(UInt64.self) ?? .max
            order.append(cookie)
            #expect(client.receive(4096).allSatisfy { $0 == UInt8(truncatingIfNeeded: cookie) })
        }
        #expect(Set(order) == Set(0..<64))
        #expect(order != order.sorted())
    }

    @Test("FUA, flush, trim and write-zeroes reach the engine as what they are")
    func otherCommands() throws {
        let server = NBDTestServer()
        let (_, client) = try server.connect()
        client.ask(
            .write, flags: .forceUnitAccess, offset: 0, length: 4096, data: pattern(4096))
        client.ask(.flush)
        client.ask(.trim, offset: 4096, length: 8192)
        client.ask(.writeZeroes, flags: .forceUnitAccess, offset: 0, length: 1 << 20)
        client.ask(.cache, offset: 0, length: 4096)
        for _ in 0..<5 { #expect(client.reply()?.error == 0) }
        let history = server.engine.history
        #expect(history.map(\.operation) == [.write, .flush, .discard, .writeZeroes])
        #expect(history.map(\.forceUnitAccess) == [true, false, false, true])
        #expect(history.map(\.sectorCount) == [8, 0, 16, 2048])
        #expect(history.allSatisfy { $0.vdi == 7 })
    }

    @Test("NO_HOLE zeroes by writing, in pieces")
    func zeroesWithoutHole() throws {
        let server = NBDTestServer(byteCount: 16 << 20)
        let (_, client) = try server.connect()
        memset(server.engine.bytes, 1, 16 << 20)
        client.ask(.writeZeroes, flags: .noHole, offset: 1024, length: 9 << 20)
        #expect(client.reply()?.error == 0)
        #expect(server.engine.history.allSatisfy { $0.operation == .write })
        expect(server.engine.holds([UInt8](repeating: 0, count: 9 << 20), at: 1024))
        #expect(server.engine.isAllocated[0...2304].allSatisfy { $0 })
        let rest = [UInt8](repeating: 1, count: (7 << 20) - 1024)
        expect(server.engine.holds(rest, at: 1024 + (9 << 20)))
    }

    @Test("BLOCK_STATUS tells holes from data; an engine that cannot tell means data")
    func blockStatus() throws {
        let server = NBDTestServer()
        let (_, client) = try server.connect()
        client.ask(.write, offset: 8192, length: 4096, data: pattern(4096))
        #expect(client.reply()?.error == 0)
        client.ask(.blockStatus, offset: 4096, length: 65_536)
        #expect(client.reply()?.descriptors == [[4096, 3], [4096, 0], [57_344, 3]])
        client.ask(.blockStatus, flags: .requestOne, offset: 4608, length: 65_536)
        #expect(client.reply()?.descriptors == [[3584, 3]])
        server.engine.knowsAllocation = false
        client.ask(.blockStatus, offset: 0, length: 1 << 20)
        #expect(client.reply()?.descriptors == [[1 << 20, 0]])
    }

    @Test("an error is told with its message, and the connection goes on")
    func errors() throws {
        let server = NBDTestServer()
        let (_, client) = try server.connect()
        let table: [(BlockStatus, UInt32)] = [
            (.ioError, 5), (.corrupt, 5), (.noSpace, 28), (.invalid, 22), (.shuttingDown, 108),
            (.readOnly, 1),
        ]
        for (status, error) in table {
            server.engine.failures = [8: status]
            client.ask(.read, cookie: 3, offset: 0, length: 8192)
            let reply = try #require(client.reply(dataBytes: 8192))
            #expect(reply.error == error && reply.cookie == 3 && reply.dataChunkCount == 0)
            #expect(!reply.message.isEmpty)
            client.ask(.write, offset: 4096, length: 512, data: pattern(512))
            #expect(client.reply()?.error == error)
        }
        server.engine.failures = [:]
        client.ask(.read, offset: 0, length: 8192)
        #expect(client.reply(dataBytes: 8192)?.error == 0)
    }

    @Test("refused writes are read to their end, so that the next request is understood")
    func refusedWrites() throws {
        let server = NBDTestServer()
        let (_, client) = try server.connect(readOnly: true)
        for count in [512, 4096, 300_000 / 512 * 512, 8 << 20] {
            client.ask(
                .write, cookie: 8, length: UInt32(count),
                data: [UInt8](repeating: 0x25, count: count))
            let reply = try #require(client.reply())
            #expect(reply.error == 1 && reply.cookie == 8)
        }
        client.ask(.read, offset: 0, length: 512)
        #expect(client.reply(dataBytes: 512)?.error == 0)
        #expect(server.engine.history.count == 1)
    }

    @Test("a long request that fails in the middle is answered once, with the error")
    func lateErrors() throws {
        let server = NBDTestServer(byteCount: 40 << 20)
        let (_, client) = try server.connect()
        server.engine.failures = [10_000: .ioError]
        client.ask(.write, cookie: 1, offset: 0, length: 32 << 20, data: pattern(32 << 20))
        #expect(client.reply()?.error == 5)
        // The rest of the write was not sent to the engine for nothing.
        #expect(server.engine.history.count < 128)
        client.ask(.read, cookie: 2, offset: 0, length: 32 << 20)
        let reply = try #require(client.reply(dataBytes: 32 << 20))
        #expect(reply.error == 5 && reply.cookie == 2)
        client.ask(.writeZeroes, flags: .noHole, cookie: 3, offset: 0, length: 32 << 20)
        #expect(client.reply()?.error == 5)
        client.ask(.flush, cookie: 4)
        #expect(client.reply()?.cookie == 4)
    }

    @Test("a simple read reports an error at its start and hangs up on one behind its header")
    func simpleReadErrors() throws {
        let server = NBDTestServer(byteCount: 40 << 20)
        let (_, client) = try server.connect(structured: false)
        server.engine.failures = [100: .corrupt]
        for count in [4096 * 16, 1 << 20, 32 << 20] {
            client.ask(.read, cookie: 2, length: UInt32(count))
            #expect(
                client.receive(16) == big(NBDMagic.simpleReply) + big(UInt32(5)) + big(UInt64(2)))
        }
        server.engine.failures = [60_000: .corrupt]
        client.ask(.read, cookie: 2, length: 32 << 20)
        #expect(client.receive(16) == big(NBDMagic.simpleReply) + big(UInt32(0)) + big(UInt64(2)))
        #expect(client.receive(32 << 20).count < 32 << 20)
        #expect(client.isHungUpOn)
        #expect(server.connections.isEmpty)
    }

    @Test("DISC: what is in flight is answered, then the connection closes")
    func goodbye() throws {
        let server = NBDTestServer()
        let (_, client) = try server.connect()
        server.pick = { _ in nil }
        client.ask(.write, cookie: 1, length: 4096, data: pattern(4096))
        client.ask(.disconnect, cookie: 2)
        client.ask(.flush, cookie: 3)
        server.settle()
        #expect(server.connections.count == 1)
        server.pick = { $0 > 0 ? 0 : nil }
        #expect(client.reply()?.cookie == 1)
        #expect(client.isHungUpOn)
        #expect(server.engine.history.count == 1)
    }

    @Test("a size that shrank is enforced; the new size counts for new requests")
    func resize() throws {
        let server = NBDTestServer()
        let (session, client) = try server.connect()
        server.connections[session]?.pointee.resize(byteCount: 8192)
        client.ask(.read, offset: 8192, length: 512)
        #expect(client.reply(dataBytes: 512)?.error == 22)
        client.ask(.write, offset: 8192, length: 512, data: pattern(512))
        #expect(client.reply()?.error == 28)
        client.ask(.read, offset: 4096, length: 4096)
        #expect(client.reply(dataBytes: 4096, from: 4096)?.error == 0)
    }
}
