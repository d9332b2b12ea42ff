// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxBlockd
import ParallaxControl
import Testing

@Suite struct ControlAPITests {
    private func exchange(
        _ daemon: TestDaemon, _ method: String, _ target: String, _ body: String = ""
    ) async throws -> (status: Int, body: String, message: HTTPMessage) {
        let message = try await daemon.client.exchange(method, target, Array(body.utf8))
        guard case .response(let status) = message.startLine else { return (0, "", message) }
        return (status, String(decoding: message.body, as: UTF8.self), message)
    }

    /// Sends raw bytes, half-closes, and returns all that comes back.
    private func raw(_ daemon: TestDaemon, _ bytes: [UInt8]) async throws -> String {
        let address = try UnixAddress(path: daemon.configuration.controlSocketPath)
        return try await offPool {
            guard case .connected(let stream) = StreamSocket.connect(to: address) else { return "" }
            stream.setTimeouts(seconds: 30)
            // The server may refuse and close before it has read everything.
            _ = stream.send(bytes)
            shutdown(stream.fileDescriptor, Int32(SHUT_WR))
            var answer: [UInt8] = []
            while let part = stream.receive(limit: 4096), !part.isEmpty { answer += part }
            return String(decoding: answer, as: UTF8.self)
        }
    }

    @Test("wrong requests get the right status, a kind and a sentence")
    func wrongRequests() async throws {
        let daemon = try await TestDaemon()
        let cases: [(String, String, String, Int, String)] = [
            ("GET", "/", "", 404, "not_found"),
            ("GET", "/v2/status", "", 404, "not_found"),
            ("GET", "/v1/vdis/", "", 404, "not_found"),
            ("GET", "/v1/vdis/none", "", 404, "no VDI called"),
            ("GET", "/v1/vdis/%zz", "", 400, "properly encoded"),
            ("GET", "/v1/status?x=1", "", 400, "query"),
            ("PUT", "/v1/vdis", "{}", 405, "GET, HEAD, POST"),
            ("BREW", "/v1/status", "", 405, "method_not_allowed"),
            ("GET", "/v1/vdis/x/attachments", "", 405, "POST, DELETE"),
            ("POST", "/v1/vdis", "", 400, "no body"),
            ("POST", "/v1/vdis", "{", 400, "not valid JSON"),
            ("POST", "/v1/vdis", "[]", 400, "JSON object"),
            ("POST", "/v1/vdis", "{}", 400, "\\\"name\\\" is missing"),
            ("POST", "/v1/vdis", #"{"name":"x"}"#, 400, "size_bytes"),
            ("POST", "/v1/vdis", #"{"name":1,"size_bytes":1}"#, 400, "must be text"),
            ("POST", "/v1/vdis", #"{"name":"x","size_bytes":"1G"}"#, 400, "whole number"),
            ("POST", "/v1/vdis", #"{"name":"x","size_bytes":-1}"#, 400, "out of range"),
            ("POST", "/v1/vdis", #"{"name":"x","size_bytes":1e30}"#, 400, "out of range"),
            ("POST", "/v1/vdis", #"{"name":"x","size":1048576}"#, 400, "not known"),
            ("POST", "/v1/vdis", #"{"name":"x","size_bytes":1048576,"z":0}"#, 400, "not known"),
            ("PATCH", "/v1/vdis/x", "{}", 400, "either"),
            ("PATCH", "/v1/vdis/x", #"{"name":"y","size_bytes":1048576}"#, 400, "either"),
            ("PATCH", "/v1/vdis/x", #"{"shrink":true}"#, 400, "either"),
            ("POST", "/v1/vdis/x/attachments", #"{"kind":"host"}"#, 400, "no kind of attachment"),
            ("POST", "/v1/vdis/x/attachments", #"{"kind":"vhost-user"}"#, 400, "needs the path"),
            ("DELETE", "/v1/vdis/x", "", 404, "no VDI called"),
            ("GET", "/v1/store/grow", "", 405, "POST"),
            ("POST", "/v1/store/shrink", "{}", 404, "not_found"),
            ("POST", "/v1/store/grow", "", 400, "no body"),
            ("GET", "/v1/store/clean", "", 405, "POST"),
            ("POST", "/v1/store/clean", #"{"until":20}"#, 400, "not known"),
            ("POST", "/v1/store/clean", #"{"until_percent":0}"#, 400, "cannot be free"),
            ("POST", "/v1/store/clean", #"{"until_percent":101}"#, 400, "cannot be free"),
            ("POST", "/v1/store/grow", #"{"size":1}"#, 400, "not known"),
            ("POST", "/v1/store/grow", #"{"size_bytes":4096}"#, 400, "cannot shrink"),
        ]
        for (method, target, body, status, part) in cases {
            let answer = try await exchange(daemon, method, target, body)
            #expect(answer.status == status, "\(method) \(target) \(body)")
            #expect(answer.body.contains(part), "\(answer.body)")
            let envelope = try ControlJSON.decode(ErrorBody.self, from: answer.message.body)
            #expect(!envelope.error.message.isEmpty)
        }
        await daemon.stop()
    }

    @Test("a body that is too large is refused before it is read")
    func largeBody() async throws {
        let daemon = try await TestDaemon()
        let head = "POST /v1/vdis HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n"
        #expect(try await raw(daemon, Array(head.utf8)).hasPrefix("HTTP/1.1 413 "))
        let body = String(repeating: "x", count: 70 << 10)
        #expect(try await exchange(daemon, "POST", "/v1/vdis", body).status == 413)
        await daemon.stop()
    }

    @Test("garbage and endless heads are answered and do not hurt the next client")
    func garbage() async throws {
        let daemon = try await TestDaemon()
        #expect(try await raw(daemon, Array("\u{1}\u{2}\r\n\r\n".utf8)).hasPrefix("HTTP/1.1 400 "))
        #expect(
            try await raw(daemon, Array(repeating: UInt8(ascii: "a"), count: 40 << 10))
                .hasPrefix("HTTP/1.1 431 "))
        #expect(
            try await raw(daemon, [0x16, 0x03, 0x01, 0xFF, 0x0D, 0x0A, 0x0D, 0x0A]).contains(
                " 400 "))
        #expect(try await raw(daemon, []).isEmpty)
        #expect(try await raw(daemon, Array("GET /v1/ready HTTP/1.1\r\nHo".utf8)).isEmpty)
        let deep = String(repeating: "[", count: 60_000)
        #expect(try await exchange(daemon, "POST", "/v1/vdis", deep).status == 400)
        try await daemon.client.ready()
        await daemon.stop()
    }

    @Test("requests on one connection are answered in order, HEAD without a body")
    func pipelining() async throws {
        let daemon = try await TestDaemon()
        let answer = try await raw(
            daemon,
            Array(
                ("HEAD /v1/ready HTTP/1.1\r\n\r\n" + "GET /v1/ready HTTP/1.1\r\n\r\n"
                    + "GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n").utf8))
        let statuses = answer.split(separator: "\r\n").filter { $0.hasPrefix("HTTP/1.1 ") }
        #expect(statuses.count == 2)
        #expect(answer.contains("{\"state\":\"ready\"}\nHTTP/1.1 404 "))
        #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
        await daemon.stop()
    }

    @Test("a client that asks for leave to send its body gets it")
    func expectContinue() async throws {
        let daemon = try await TestDaemon()
        let address = try UnixAddress(path: daemon.configuration.controlSocketPath)
        let body = #"{"name":"x","size_bytes":1048576}"#
        let head =
            "POST /v1/vdis HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
        let answers = try await offPool { () -> [String] in
            guard case .connected(let stream) = StreamSocket.connect(to: address) else { return [] }
            stream.setTimeouts(seconds: 30)
            return [head, body].map { part in
                _ = stream.send(Array(part.utf8))
                return String(decoding: stream.receive(limit: 4096) ?? [], as: UTF8.self)
            }
        }
        #expect(answers.first == "HTTP/1.1 100 Continue\r\n\r\n")
        #expect(answers.last?.hasPrefix("HTTP/1.1 201 Created\r\n") == true)
        await daemon.stop()
    }

    @Test("status and metrics tell of the store, the shards and the VDIs")
    func statusAndMetrics() async throws {
        let daemon = try await TestDaemon()
        _ = try await daemon.client.create(name: "a\"b\\", sizeBytes: 1 << 20)
        _ = try await daemon.client.attach("a\"b\\", AttachRequest(kind: .nbd))
        let status = try await daemon.client.status()
        #expect(status.state == .ready)
        #expect(status.store.usedBytes == 6 * 64 << 20)
        #expect(status.store.extentsFree == 10)
        #expect(status.processIdentifier == getpid())
        #expect(status.shards.map(\.index) == [0, 1])
        let metrics = try await exchange(daemon, "GET", "/metrics")
        #expect(
            metrics.message.headers["content-type"]?.hasPrefix("text/plain; version=0.0.4") == true)
        for line in [
            "parallax_ready 1", #"parallax_vdi_size_bytes{vdi="a\"b\\"} 1048576"#,
            #"parallax_vdi_attached{vdi="a\"b\\"} 1"#, #"parallax_reads_total{shard="1"} 7"#,
            "# TYPE parallax_reads_total counter",
        ] {
            #expect(metrics.body.contains(line + "\n"), "\(line)")
        }
        await daemon.stop()
    }

    @Test("the client says clearly that nobody is there")
    func unreachable() throws {
        let directory = try TemporaryDirectory()
        let client = try ControlClient(socketPath: directory.file("none"))
        let nobody = failure { try client.ready() }
        #expect(nobody?.message.contains("no daemon answers") == true)
        try directory.write("", to: "file")
        let file = try ControlClient(socketPath: directory.file("file"))
        let notASocket = failure { try file.ready() }
        #expect(notASocket?.kind == .unreachable)
    }

    @Test("more clients than connections are served, the later ones a little later")
    func manyIdleConnections() async throws {
        let daemon = try await TestDaemon()
        let address = try UnixAddress(path: daemon.configuration.controlSocketPath)
        var idle: [Int32] = []
        for _ in 0..<HTTPServer.connectionLimit {
            let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            #expect(address.withSocketAddress { connect(descriptor, $0, $1) } == 0)
            idle.append(descriptor)
        }
        async let ready: Void = daemon.client.ready()
        for descriptor in idle { close(descriptor) }
        try await ready
        await daemon.stop()
    }
}
