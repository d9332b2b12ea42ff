// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import Logging
import ParallaxBlockd
import ParallaxControl
import Synchronization
import Testing

/// Clients that do not wait for their answer, and answers that do not come.
@Suite struct HangUpTests {
    /// What "/stuck" waits for.
    private final class Gate: Sendable {
        private struct State {
            var isOpen = false
            var begun = 0
            var ended = 0
            var waiting: [CheckedContinuation<Void, Never>] = []
        }

        private let state = Mutex(State())

        var begun: Int { state.withLock { $0.begun } }
        var ended: Int { state.withLock { $0.ended } }

        func open() {
            let waiting = state.withLock { state in
                state.isOpen = true
                defer { state.waiting = [] }
                return state.waiting
            }
            for passer in waiting { passer.resume() }
        }

        func pass() async {
            await withCheckedContinuation { passer in
                let isOpen = state.withLock { state in
                    state.begun += 1
                    if !state.isOpen { state.waiting.append(passer) }
                    return state.isOpen
                }
                if isOpen { passer.resume() }
            }
            state.withLock { $0.ended += 1 }
        }
    }

    private let directory: TemporaryDirectory
    private let gate = Gate()

    init() throws { directory = try TemporaryDirectory() }

    private func startServer() throws -> (server: HTTPServer, address: UnixAddress) {
        let path = directory.file("c.sock")
        let listener = try ListeningSocket(path: path, purpose: "the control socket")
        let gate = gate
        let server = try HTTPServer(
            listener: listener, log: .silent, isAlwaysServed: ControlRoutes.isAnsweredAtOnce
        ) { request in
            if case .request(_, "/stuck") = request.startLine { await gate.pass() }
            return .json(status: 200, [0])
        }
        try server.start()
        return (server, try UnixAddress(path: path))
    }

    /// A client that has asked for `target`.
    private func ask(
        _ address: UnixAddress, _ method: String = "GET", _ target: String = "/stuck"
    ) throws -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        #expect(address.withSocketAddress { connect(descriptor, $0, $1) } == 0)
        let request = Array("\(method) \(target) HTTP/1.1\r\nConnection: close\r\n\r\n".utf8)
        #expect(send(descriptor, request, request.count, Int32(MSG_NOSIGNAL)) == request.count)
        return descriptor
    }

    /// Whether `condition` comes true in a minute.
    private func comes(_ condition: () -> Bool) async throws -> Bool {
        let end = ContinuousClock.now + .seconds(60)
        while !condition() {
            guard .now < end else { return false }
            try await Task.sleep(for: .milliseconds(10))
        }
        return true
    }

    @Test("clients that hang up while they wait leave their connections to others")
    func hangUp() async throws {
        let (server, address) = try startServer()
        let clients = try (0..<HTTPServer.connectionLimit).map { _ in try ask(address) }
        let gate = gate
        #expect(try await comes { gate.begun == clients.count })
        for client in clients { close(client) }
        let next = AsyncClient(
            blocking: try ControlClient(socketPath: address.path, timeoutSeconds: 30))
        #expect(
            try await next.exchange("GET", "/", []).startLine == .response(status: 200))
        // What they asked for goes on, and its answers hurt nobody.
        #expect(gate.ended == 0)
        gate.open()
        #expect(try await comes { gate.ended == clients.count })
        #expect(
            try await next.exchange("GET", "/", []).startLine == .response(status: 200))
        await server.stop()
    }

    @Test("a client that sends nothing more still gets its answer, however late")
    func halfClosed() async throws {
        let (server, address) = try startServer()
        let client = try ask(address)
        shutdown(client, Int32(SHUT_WR))
        let gate = gate
        #expect(try await comes { gate.begun == 1 })
        // Long enough for the server to look after the client more than once.
        try await Task.sleep(for: .milliseconds(1_200))
        gate.open()
        let answer = try await answer(to: client)
        #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"), "\(answer)")
        await server.stop()
    }

    /// What the client gets, which then closes.
    private func answer(to client: Int32) async throws -> String {
        try await offPool {
            let stream = StreamSocket(adopting: client)
            stream.setTimeouts(seconds: 30)
            return String(decoding: stream.receive(limit: 4096) ?? [], as: UTF8.self)
        }
    }

    @Test("clients that ask for what does not come, and hang up, do so only so many times")
    func bounded() async throws {
        let (server, address) = try startServer()
        let gate = gate
        let (limit, atATime) = (HTTPServer.unawaitedLimit, HTTPServer.connectionLimit)
        for begun in stride(from: atATime, through: limit, by: atATime) {
            let clients = try (0..<atATime).map { _ in try ask(address) }
            #expect(try await comes { gate.begun == begun })
            for client in clients { close(client) }
            #expect(try await comes { server.unawaitedCount == begun })
        }
        let next = AsyncClient(
            blocking: try ControlClient(socketPath: address.path, timeoutSeconds: 30))
        let refusal = try await next.exchange("GET", "/stuck", [])
        #expect(refusal.startLine == .response(status: 503))
        let text = String(decoding: refusal.body, as: UTF8.self)
        #expect(text.contains("too many requests whose clients have gone"), "\(text)")
        #expect(gate.begun == limit)
        #expect(
            try await next.exchange("GET", "/v1/ready", []).startLine == .response(status: 200))
        gate.open()
        #expect(try await comes { server.unawaitedCount == 0 })
        #expect(gate.ended == limit)
        #expect(
            try await next.exchange("GET", "/stuck", []).startLine == .response(status: 200))
        await server.stop()
    }

    @Test("a change whose client hangs up while it waits for its VDI is not made")
    func goneBeforeItsTurn() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        try await client.create(name: "a", sizeBytes: 1 << 20)
        for name in ["first", "second", "third"] {
            try await client.call {
                try $0.createSnapshot(of: "a", CreateSnapshotRequest(name: name))
            }
        }
        let gate = gate
        for shard in daemon.shards { await shard.during("resize") { await gate.pass() } }
        async let resized = client.change("a", ChangeVDIRequest(sizeBytes: 2 << 20))
        #expect(try await comes { gate.begun == 1 })
        let address = try UnixAddress(path: daemon.configuration.controlSocketPath)
        close(try ask(address, "DELETE", "/v1/vdis/a/snapshots/latest"))
        // It waits for the VDI, and the daemon knows that nobody waits for it.
        #expect(try await comes { daemon.unawaitedCount == 1 })
        let again = try ask(address, "DELETE", "/v1/vdis/a/snapshots/latest")
        gate.open()
        #expect(try await resized.sizeBytes == 2 << 20)
        let answer = try await answer(to: again)
        #expect(answer.hasPrefix("HTTP/1.1 204 "), "\(answer)")
        #expect(try await comes { daemon.unawaitedCount == 0 })
        let list = try await client.call { try $0.snapshots(of: "a") }
        #expect(list.snapshots.map(\.name) == ["first", "second"])
        await daemon.stop()
    }

    @Test("a change that has begun is made, also when its client hangs up")
    func goneAfterItsTurn() async throws {
        let daemon = try await TestDaemon()
        try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        let gate = gate
        for shard in daemon.shards { await shard.during("delete") { await gate.pass() } }
        let address = try UnixAddress(path: daemon.configuration.controlSocketPath)
        let client = try ask(address, "DELETE", "/v1/vdis/a")
        #expect(try await comes { gate.begun == 1 })
        close(client)
        #expect(try await comes { daemon.unawaitedCount == 1 })
        gate.open()
        #expect(try await comes { daemon.unawaitedCount == 0 })
        #expect(try await daemon.client.vdis().isEmpty)
        await daemon.stop()
    }
}
