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
        private let state = Mutex((isOpen: false, begun: 0, ended: 0))

        var begun: Int { state.withLock { $0.begun } }
        var ended: Int { state.withLock { $0.ended } }

        func open() { state.withLock { $0.isOpen = true } }

        func pass() async {
            state.withLock { $0.begun += 1 }
            while !state.withLock({ $0.isOpen }) { try? await Task.sleep(for: .milliseconds(10)) }
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
        let server = try HTTPServer(listener: listener, log: .silent) { request in
            if case .request(_, "/stuck") = request.startLine { await gate.pass() }
            return .json(status: 200, [0])
        }
        try server.start()
        return (server, try UnixAddress(path: path))
    }

    /// A client that has asked for "/stuck".
    private func ask(_ address: UnixAddress) throws -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        #expect(address.withSocketAddress { connect(descriptor, $0, $1) } == 0)
        let request = Array("GET /stuck HTTP/1.1\r\nConnection: close\r\n\r\n".utf8)
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
        let answer = try await offPool {
            let stream = StreamSocket(adopting: client)
            stream.setTimeouts(seconds: 30)
            return String(decoding: stream.receive(limit: 4096) ?? [], as: UTF8.self)
        }
        #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"), "\(answer)")
        await server.stop()
    }
}
