// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// The daemon's control API as blocking calls: what `parallax-ctl` and the tests use.
package struct ControlClient: Sendable {
    package static let defaultSocketPath = "/run/parallax/control.sock"

    /// A detach waits for the I/O of a guest, so this is generous; it only has to end some day.
    private static let timeoutSeconds = 120

    private let address: UnixAddress
    private let timeoutSeconds: Int

    package init(
        socketPath: String, timeoutSeconds: Int = Self.timeoutSeconds
    ) throws(ControlError) {
        address = try UnixAddress(path: socketPath)
        self.timeoutSeconds = timeoutSeconds
    }

    package func status() throws(ControlError) -> DaemonStatus {
        try decoded(call("GET", "/v1/status"))
    }

    /// Returns when every remembered attachment serves, throws `.notReady` when not.
    package func ready() throws(ControlError) {
        _ = try call("GET", "/v1/ready")
    }

    package func vdis() throws(ControlError) -> [VDIDescription] {
        let list: VDIList = try decoded(call("GET", "/v1/vdis"))
        return list.vdis
    }

    package func vdi(
        _ name: String, includingLayout: Bool = false
    ) throws(ControlError) -> VDIDescription {
        try decoded(call("GET", Self.path(name) + (includingLayout ? "?layout=true" : "")))
    }

    package func create(
        name: String, sizeBytes: UInt64, quotaBytes: UInt64? = nil
    ) throws(ControlError) -> VDIDescription {
        let request = CreateVDIRequest(name: name, sizeBytes: sizeBytes, quotaBytes: quotaBytes)
        return try decoded(call("POST", "/v1/vdis", ControlJSON.encode(request)))
    }

    package func change(
        _ name: String, _ change: ChangeVDIRequest
    ) throws(ControlError) -> VDIDescription {
        try decoded(call("PATCH", Self.path(name), ControlJSON.encode(change)))
    }

    package func delete(_ name: String) throws(ControlError) {
        _ = try call("DELETE", Self.path(name))
    }

    package func attach(
        _ name: String, _ request: AttachRequest
    ) throws(ControlError) -> AttachmentDescription {
        try decoded(call("POST", Self.path(name) + "/attachments", ControlJSON.encode(request)))
    }

    package func detach(_ name: String) throws(ControlError) {
        _ = try call("DELETE", Self.path(name) + "/attachments")
    }

    static func path(_ name: String) -> String {
        "/v1/vdis/" + PercentEncoding.encode(name)
    }

    func decoded<Value: Decodable>(_ body: [UInt8]) throws(ControlError) -> Value {
        do throws(ControlError) {
            return try ControlJSON.decode(Value.self, from: body)
        } catch {
            throw ControlError(
                .internalError,
                "the daemon on \(address.path) answered something else than expected "
                    + "(\(error.message)); are parallax-ctl and parallax-blockd of one version?")
        }
    }

    /// Sends one request on a connection of its own and returns the body of a 2xx answer.
    func call(
        _ method: String, _ target: String, _ body: [UInt8] = []
    ) throws(ControlError) -> [UInt8] {
        let answer = try exchange(method, target, body)
        guard case .response(let status) = answer.startLine else { throw unexpected() }
        guard !(200..<300).contains(status) else { return answer.body }
        let envelope: ErrorBody = try decoded(answer.body)
        throw envelope.error
    }

    /// One request and its answer, whatever its status.
    package func exchange(
        _ method: String, _ target: String, _ body: [UInt8] = []
    ) throws(ControlError) -> HTTPMessage {
        var headers = ["host": "localhost"]
        if !body.isEmpty { headers["content-type"] = "application/json" }
        let request = HTTPMessage(
            startLine: .request(method: method, target: target), headers: headers, body: body,
            keepsAlive: false)
        let stream: StreamSocket
        switch StreamSocket.connect(to: address) {
        case .connected(let connected): stream = connected
        case .failed(let number): throw unreachable(number)
        }
        stream.setTimeouts(seconds: timeoutSeconds)
        guard stream.send(request.serialized()) else {
            throw ControlError(.unreachable, "the daemon on \(address.path) closed the connection")
        }
        return try receiveAnswer(stream)
    }

    private func receiveAnswer(_ stream: borrowing StreamSocket) throws(ControlError) -> HTTPMessage
    {
        var parser = HTTPParser(role: .responses, limits: .response)
        while true {
            guard let bytes = stream.receive(limit: 64 << 10) else {
                throw noAnswer(errno)
            }
            guard !bytes.isEmpty else {
                throw ControlError(
                    .unreachable, "the daemon on \(address.path) closed the connection")
            }
            parser.append(bytes)
            do throws(HTTPFailure) {
                if let answer = try parser.next() { return answer }
            } catch {
                throw error.status == 413 ? tooLong() : unexpected()
            }
        }
    }

    /// The daemon answers when it has done what was asked.
    private func tooLong() -> ControlError {
        ControlError(
            .tooLarge,
            "the daemon on \(address.path) has done what was asked, but its answer is longer than "
                + "\(ByteSize.format(UInt64(HTTPLimits.response.bodyBytes))) and is not shown")
    }

    private func noAnswer(_ number: Int32) -> ControlError {
        let reason =
            number == EAGAIN || number == EWOULDBLOCK
            ? "within \(timeoutSeconds) s; it may still be at it, so look before you try again"
            : "(\(errnoText(number)))"
        return ControlError(
            .unreachable, "the daemon on \(address.path) did not answer \(reason)")
    }

    private func unexpected() -> ControlError {
        ControlError(.unreachable, "\(address.path) is not the control socket of parallax-blockd")
    }

    private func unreachable(_ number: Int32) -> ControlError {
        let reason =
            switch number {
            case ENOENT, ECONNREFUSED:
                "no daemon answers on \(address.path); is parallax-blockd running, "
                    + "and is this its control socket?"
            case EACCES, EPERM:
                "permission denied on the control socket \(address.path); "
                    + "use the account that parallax-blockd runs as, or root"
            case ENOTSOCK, EPROTOTYPE:
                "\(address.path) is not the control socket of parallax-blockd"
            default:
                "cannot reach the daemon on \(address.path): \(errnoText(number))"
            }
        return ControlError(.unreachable, reason)
    }
}
