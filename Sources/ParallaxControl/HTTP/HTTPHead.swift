// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The start line and the header fields of a message, parsed and checked.
struct HTTPHead {
    var message: HTTPMessage
    var contentLength: Int
    var isChunked: Bool

    static func parse(
        _ text: String, role: HTTPParser.Role, limits: HTTPLimits
    ) throws(HTTPFailure) -> HTTPHead {
        var lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)[...]
        let (startLine, isVersion11) = try parseStartLine(lines.popFirst() ?? "", role: role)
        guard lines.count <= limits.headerCount else {
            throw HTTPFailure(431, "the request has more than \(limits.headerCount) header fields")
        }
        var headers: [String: String] = [:]
        for line in lines {
            let (name, value) = try parseField(line)
            guard headers[name] == nil else {
                // Two lengths are how requests are smuggled; other repeats do no harm.
                guard !framingFields.contains(name) else {
                    throw HTTPFailure(400, "the header field \(name) is repeated")
                }
                continue
            }
            headers[name] = value
        }
        let keepsAlive = keepsAlive(headers["connection"], isVersion11: isVersion11)
        let message = HTTPMessage(startLine: startLine, headers: headers, keepsAlive: keepsAlive)
        return try frame(message, limits: limits)
    }

    private static let framingFields: Set = ["content-length", "transfer-encoding", "host"]

    private static func parseStartLine(
        _ line: Substring, role: HTTPParser.Role
    ) throws(HTTPFailure) -> (HTTPMessage.StartLine, isVersion11: Bool) {
        let words = line.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        switch role {
        case .requests:
            guard words.count == 3, isToken(words[0]), !words[1].isEmpty else {
                throw HTTPFailure(400, "the request line is not METHOD TARGET HTTP/1.1")
            }
            let isVersion11 = try checkVersion(words[2])
            return (.request(method: String(words[0]), target: String(words[1])), isVersion11)
        case .responses:
            guard words.count >= 2, let status = Int(words[1]), (100...599).contains(status) else {
                throw HTTPFailure(400, "the answer is not HTTP")
            }
            return (.response(status: status), try checkVersion(words[0]))
        }
    }

    private static func checkVersion(_ version: Substring) throws(HTTPFailure) -> Bool {
        switch version {
        case "HTTP/1.1": return true
        case "HTTP/1.0": return false
        default:
            guard version.hasPrefix("HTTP/") else {
                throw HTTPFailure(400, "the request line is not METHOD TARGET HTTP/1.1")
            }
            throw HTTPFailure(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        }
    }

    private static func parseField(_ line: Substring) throws(HTTPFailure) -> (String, String) {
        guard let colon = line.utf8.firstIndex(of: UInt8(ascii: ":")) else {
            throw HTTPFailure(400, "a header field has no colon")
        }
        let name = line[..<colon]
        guard isToken(name) else { throw HTTPFailure(400, "a header field has no proper name") }
        let value = line[line.utf8.index(after: colon)...]
        let isBlank = { (character: Character) in character == " " || character == "\t" }
        let trimmed = value.drop(while: isBlank)
        let end = trimmed.lastIndex { !isBlank($0) }
        let text = end.map { trimmed[...$0] } ?? ""
        guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }) else {
            throw HTTPFailure(400, "a header field holds control characters")
        }
        return (name.lowercased(), String(text))
    }

    private static func isToken(_ text: Substring) -> Bool {
        !text.isEmpty
            && text.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "!#$%&'*+-.^_`|~".utf8.contains($0)
                }
            }
    }

    private static func keepsAlive(_ connection: String?, isVersion11: Bool) -> Bool {
        let options = (connection ?? "").lowercased().split { $0 == "," || $0 == " " }
        if options.contains("close") { return false }
        return isVersion11 || options.contains("keep-alive")
    }

    private static func frame(
        _ message: HTTPMessage, limits: HTTPLimits
    ) throws(HTTPFailure) -> HTTPHead {
        let length = message.headers["content-length"]
        if let coding = message.headers["transfer-encoding"] {
            guard coding.lowercased() == "chunked" else {
                throw HTTPFailure(501, "the transfer coding \(quoted(coding)) is not understood")
            }
            guard length == nil else {
                throw HTTPFailure(400, "the message has both a length and a transfer coding")
            }
            return HTTPHead(message: message, contentLength: 0, isChunked: true)
        }
        guard let length else {
            return HTTPHead(message: message, contentLength: 0, isChunked: false)
        }
        guard !length.isEmpty, length.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw HTTPFailure(400, "the content length \(quoted(length)) is not a number")
        }
        guard let count = Int(length), count <= limits.bodyBytes else {
            throw HTTPFailure(413, "the body is longer than \(limits.bodyBytes) bytes")
        }
        return HTTPHead(message: message, contentLength: count, isChunked: false)
    }
}
