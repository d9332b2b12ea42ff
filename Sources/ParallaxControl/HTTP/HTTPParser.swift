// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Turns the bytes of a connection into HTTP/1.1 messages (RFC 9112), without doing any I/O.
///
/// Used by the daemon for requests and by its clients for responses. Invariants: I1 it never holds
/// more than `limits` allow plus one append; I2 after a failure it is not used again, because the
/// place where the next message would start is unknown.
///
///     append(bytes) -> [ head .. \r\n\r\n | body (content-length or chunked) | next head .. ]
///     next()           ^ consumed with the message                         ^ stays for later
package struct HTTPParser: Sendable {
    package enum Role: Sendable {
        case requests
        case responses
    }

    private enum Framing {
        case length(Int)
        case chunked(ChunkedDecoder)
    }

    private let role: Role
    private let limits: HTTPLimits
    private var buffer: [UInt8] = []
    /// Bytes at the front of `buffer` that hold no end of head; saves scanning them again.
    private var scanned = 0
    private var head: HTTPMessage?
    private var framing = Framing.length(0)

    package init(role: Role, limits: HTTPLimits) {
        self.role = role
        self.limits = limits
    }

    /// No message has begun: the peer may close, or be closed, without loss.
    package var isIdle: Bool { head == nil && buffer.isEmpty }

    /// The head has come and its sender waits for leave to send the body (`Expect`).
    package var awaitsContinue: Bool {
        head?.headers["expect"]?.lowercased() == "100-continue" && buffer.isEmpty
    }

    /// The leave has been given; it is not asked for again.
    package mutating func grantContinue() { head?.headers["expect"] = nil }

    package mutating func append(_ bytes: some Sequence<UInt8>) {
        buffer.append(contentsOf: bytes)
    }

    /// The next complete message, or nil when more bytes are needed.
    package mutating func next() throws(HTTPFailure) -> HTTPMessage? {
        if head == nil {
            guard try takeHead() else { return nil }
        }
        guard let body = try takeBody(), var message = head else { return nil }
        head = nil
        message.body = body
        return message
    }

    private mutating func takeHead() throws(HTTPFailure) -> Bool {
        // RFC 9112, 2.2: ignore empty lines before a request.
        while buffer.starts(with: [0x0D, 0x0A]) { buffer.removeFirst(2) }
        guard let end = endOfHead() else {
            guard buffer.count <= limits.headBytes else { throw headTooLong() }
            scanned = max(0, buffer.count - 3)
            return false
        }
        guard end <= limits.headBytes else { throw headTooLong() }
        guard let text = String(validating: buffer[..<end], as: UTF8.self) else {
            throw HTTPFailure(400, "the request head is not text")
        }
        buffer.removeFirst(end + 4)
        scanned = 0
        let parsed = try HTTPHead.parse(text, role: role, limits: limits)
        framing = parsed.isChunked ? .chunked(ChunkedDecoder()) : .length(parsed.contentLength)
        head = parsed.message
        return true
    }

    private func headTooLong() -> HTTPFailure {
        HTTPFailure(431, "the request head is longer than \(limits.headBytes) bytes")
    }

    /// The index of the empty line that ends the head.
    private func endOfHead() -> Int? {
        var index = scanned
        while index + 4 <= buffer.count {
            if buffer[index] == 0x0D, buffer[index + 1] == 0x0A, buffer[index + 2] == 0x0D,
                buffer[index + 3] == 0x0A
            {
                return index
            }
            index += 1
        }
        return nil
    }

    private mutating func takeBody() throws(HTTPFailure) -> [UInt8]? {
        switch framing {
        case .length(let length):
            guard buffer.count >= length else { return nil }
            let body = Array(buffer[..<length])
            buffer.removeFirst(length)
            return body
        case .chunked(var decoder):
            let isComplete = try decoder.consume(&buffer, limitBytes: limits.bodyBytes)
            framing = .chunked(decoder)
            return isComplete ? decoder.body : nil
        }
    }
}

/// The chunked transfer coding (RFC 9112, 7.1), as far as bytes have come.
struct ChunkedDecoder: Sendable {
    private(set) var body: [UInt8] = []
    private var isInTrailer = false
    private var trailerBytes = 0

    /// Takes whole chunks from the front of `buffer`; true when the last one has been taken.
    mutating func consume(_ buffer: inout [UInt8], limitBytes: Int) throws(HTTPFailure) -> Bool {
        var start = 0
        defer { buffer.removeFirst(start) }
        while let line = Self.line(in: buffer, from: start) {
            if isInTrailer {
                trailerBytes += line.count + 2
                guard trailerBytes <= 4096 else {
                    throw HTTPFailure(431, "the trailer is too long")
                }
                start = line.endIndex + 2
                if line.isEmpty { return true }
                continue
            }
            let size = try Self.size(of: line)
            guard size <= limitBytes - body.count else {
                throw HTTPFailure(413, "the body is longer than \(limitBytes) bytes")
            }
            if size == 0 {
                isInTrailer = true
                start = line.endIndex + 2
                continue
            }
            let data = line.endIndex + 2
            guard buffer.count >= data + size + 2 else { return false }
            guard buffer[data + size] == 0x0D, buffer[data + size + 1] == 0x0A else {
                throw HTTPFailure(400, "a chunk of the body does not end where it should")
            }
            body += buffer[data..<data + size]
            start = data + size + 2
        }
        guard buffer.count - start <= 4096 else {
            throw HTTPFailure(400, "a chunk of the body has no size")
        }
        return false
    }

    private static func line(in buffer: [UInt8], from start: Int) -> ArraySlice<UInt8>? {
        var index = start
        while index + 1 < buffer.count, index - start <= 4096 {
            if buffer[index] == 0x0D, buffer[index + 1] == 0x0A { return buffer[start..<index] }
            index += 1
        }
        return nil
    }

    /// `chunk-size [ ; extension ]`; at most eight digits, so that it cannot overflow.
    private static func size(of line: ArraySlice<UInt8>) throws(HTTPFailure) -> Int {
        let digits = line.prefix { $0 != UInt8(ascii: ";") }
        let text = String(decoding: digits, as: UTF8.self)
        guard (1...8).contains(digits.count), text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }),
            let size = Int(text, radix: 16), size >= 0, text.first != "-"
        else { throw HTTPFailure(400, "a chunk of the body has no size") }
        return size
    }
}
