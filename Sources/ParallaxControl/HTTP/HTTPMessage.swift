// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One HTTP/1.1 request or response, complete with its body.
package struct HTTPMessage: Equatable, Sendable {
    package enum StartLine: Equatable, Sendable {
        case request(method: String, target: String)
        case response(status: Int)
    }

    package var startLine: StartLine
    /// Names in lower case. Of a repeated field only the first is kept; fields that frame the
    /// message are refused when repeated.
    package var headers: [String: String]
    package var body: [UInt8]
    /// Another message may follow on the same connection.
    package var keepsAlive: Bool

    package init(
        startLine: StartLine, headers: [String: String] = [:], body: [UInt8] = [],
        keepsAlive: Bool = true
    ) {
        self.startLine = startLine
        self.headers = headers
        self.body = body
        self.keepsAlive = keepsAlive
    }

    /// The bytes to send. `omittingBody` is for the answer to a HEAD request, whose length is told
    /// but not sent.
    package func serialized(omittingBody: Bool = false) -> [UInt8] {
        var head = ""
        switch startLine {
        case .request(let method, let target): head = "\(method) \(target) HTTP/1.1\r\n"
        case .response(let status): head = "HTTP/1.1 \(status) \(Self.reason(status))\r\n"
        }
        for (name, value) in headers.sorted(by: { $0.key < $1.key }) {
            head += "\(name): \(value)\r\n"
        }
        if startLine != .response(status: 204) { head += "content-length: \(body.count)\r\n" }
        if !keepsAlive { head += "connection: close\r\n" }
        head += "\r\n"
        return Array(head.utf8) + (omittingBody ? [] : body)
    }

    private static func reason(_ status: Int) -> String { reasons[status] ?? "Unknown" }

    private static let reasons = [
        200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 404: "Not Found",
        405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict",
        413: "Content Too Large", 431: "Request Header Fields Too Large",
        500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
        505: "HTTP Version Not Supported", 507: "Insufficient Storage",
    ]
}

/// Bytes that are no HTTP message we accept; `status` is the answer they deserve.
package struct HTTPFailure: Error, Equatable, Sendable {
    package var status: Int
    package var reason: String

    package init(_ status: Int, _ reason: String) {
        self.status = status
        self.reason = reason
    }
}

/// Bounds on what a peer may make us hold.
package struct HTTPLimits: Sendable {
    package var headBytes: Int
    package var headerCount: Int
    package var bodyBytes: Int

    package init(headBytes: Int, headerCount: Int, bodyBytes: Int) {
        self.headBytes = headBytes
        self.headerCount = headerCount
        self.bodyBytes = bodyBytes
    }

    /// No request of the control API is longer than a few hundred bytes.
    package static let request = HTTPLimits(
        headBytes: 16 << 10, headerCount: 64, bodyBytes: 64 << 10)
    /// A list of a hundred thousand VDIs fits.
    package static let response = HTTPLimits(
        headBytes: 16 << 10, headerCount: 64, bodyBytes: 64 << 20)
}
