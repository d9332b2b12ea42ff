// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import Testing

@Suite struct HTTPParserTests {
    private static let limits = HTTPLimits(headBytes: 512, headerCount: 8, bodyBytes: 64)

    /// All messages in `text`, fed in pieces of `step` bytes.
    private func parse(
        _ text: String, step: Int = .max, role: HTTPParser.Role = .requests
    ) throws(HTTPFailure) -> [HTTPMessage] {
        var parser = HTTPParser(role: role, limits: Self.limits)
        var messages: [HTTPMessage] = []
        var rest = Array(text.utf8)[...]
        repeat {
            parser.append(rest.prefix(step))
            rest = rest.dropFirst(step)
            while let message = try parser.next() { messages.append(message) }
        } while !rest.isEmpty
        return messages
    }

    private func status(of text: String) -> Int? {
        do throws(HTTPFailure) {
            _ = try parse(text)
            return nil
        } catch {
            return error.status
        }
    }

    private static let pipelined =
        "\r\nPOST /v1/vdis HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n"
        + "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + "3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
        + "GET /end HTTP/1.0\r\n\r\n"

    @Test(
        "messages come out the same however the bytes are cut", arguments: [1, 2, 3, 7, 64, 4096])
    func cuts(step: Int) throws {
        let messages = try parse(Self.pipelined, step: step)
        #expect(messages.map(\.body) == ["body", "", "abc0123456789", ""].map { Array($0.utf8) })
        #expect(messages.first?.startLine == .request(method: "POST", target: "/v1/vdis"))
        #expect(messages.map(\.keepsAlive) == [true, true, true, false])
    }

    @Test("what a message serialises to parses back")
    func roundTrip() throws {
        let request = HTTPMessage(
            startLine: .request(method: "PATCH", target: "/x"), headers: ["host": "h"],
            body: Array("{}".utf8), keepsAlive: false)
        let parsed = try parse(String(decoding: request.serialized(), as: UTF8.self))
        #expect(parsed.first?.body == request.body)
        #expect(parsed.first?.keepsAlive == false)
        let empty = HTTPMessage(startLine: .response(status: 204))
        let answer = try parse(
            String(decoding: empty.serialized(), as: UTF8.self), role: .responses)
        #expect(answer.first?.startLine == .response(status: 204))
    }

    @Test(
        "malformed requests get the status they deserve",
        arguments: [
            ("GET /\r\n\r\n", 400), ("GET  / HTTP/1.1\r\n\r\n", 400), ("\u{1}\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505), ("GET / SPDY/1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nnocolon\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nbad name: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\na: \u{0}\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 65\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
            ("G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n", 413),
            ("G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
            ("G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 400),
            ("G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
            ("G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400),
        ])
    func malformed(text: String, expected: Int) {
        #expect(status(of: text) == expected)
    }

    @Test("bytes that are not UTF-8 in the head are refused")
    func notText() {
        var parser = HTTPParser(role: .requests, limits: Self.limits)
        parser.append(Array("GET /".utf8) + [0xFF] + Array(" HTTP/1.1\r\n\r\n".utf8))
        #expect(throws: HTTPFailure.self) { try parser.next() }
    }

    @Test("a head without end, or with too many fields, is cut off")
    func longHead() {
        #expect(status(of: "GET /" + String(repeating: "a", count: 600)) == 431)
        let fields = (0..<9).map { "h\($0): x\r\n" }.joined()
        #expect(status(of: "GET / HTTP/1.1\r\n\(fields)\r\n") == 431)
    }

    @Test("chunks that add up to more than the limit are cut off")
    func longChunkedBody() {
        let chunks = String(repeating: "20\r\n\(String(repeating: "x", count: 32))\r\n", count: 3)
        #expect(status(of: "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\(chunks)") == 413)
    }

    @Test("random bytes, and damaged requests, never trap")
    func noise() {
        var random = SystemRandomNumberGenerator()
        let seed = Array(Self.pipelined.utf8)
        for _ in 0..<3000 {
            var bytes = seed
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: place)
                default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
                }
            }
            var parser = HTTPParser(role: .requests, limits: Self.limits)
            while !bytes.isEmpty {
                let count = min(bytes.count, Int.random(in: 1...50, using: &random))
                parser.append(bytes.prefix(count))
                bytes.removeFirst(count)
                do { while try parser.next() != nil {} } catch { break }
            }
        }
    }
}
