// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl

/// The control API: which method on which path does what.
package struct ControlRoutes: Sendable {
    private let plane: ControlPlane

    package init(plane: ControlPlane) { self.plane = plane }

    package func respond(to request: HTTPMessage) async -> HTTPMessage {
        do throws(ControlError) {
            guard case .request(let method, let target) = request.startLine else {
                throw ControlError(.invalid, "this is not a request")
            }
            let route = try Route(target: target)
            // A HEAD is a GET whose body the connection keeps back.
            let action = method == "HEAD" ? "GET" : method
            guard let answer = try await perform(action, route, request.body) else {
                return notAllowed(method, route)
            }
            return answer
        } catch {
            return .json(status: error.kind.httpStatus, ErrorBody(error))
        }
    }

    /// Nil when the path exists and the method is none of its own.
    private func perform(
        _ method: String, _ route: Route, _ body: [UInt8]
    ) async throws(ControlError) -> HTTPMessage? {
        switch (method, route) {
        case ("GET", .status):
            return .json(status: 200, try await plane.status())
        case ("GET", .ready):
            return await ready()
        case ("GET", .metrics):
            return try await metrics()
        case ("GET", .vdis):
            return .json(status: 200, VDIList(vdis: try await plane.list()))
        case ("POST", .vdis):
            let request: CreateVDIRequest = try decode(body)
            return .json(status: 201, try await plane.create(request))
        case ("GET", .vdi(let name)):
            return .json(status: 200, try await plane.show(name))
        case ("PATCH", .vdi(let name)):
            let request: ChangeVDIRequest = try decode(body)
            return .json(status: 200, try await plane.change(name, request))
        case ("DELETE", .vdi(let name)):
            try await plane.delete(name)
            return HTTPMessage(startLine: .response(status: 204))
        case ("POST", .attachments(let name)):
            let request: AttachRequest = try decode(body)
            return .json(status: 201, try await plane.attach(name, request))
        case ("DELETE", .attachments(let name)):
            try await plane.detach(name)
            return HTTPMessage(startLine: .response(status: 204))
        default:
            return nil
        }
    }

    private func ready() async -> HTTPMessage {
        switch await plane.readiness() {
        case .success(let body):
            .json(status: 200, body)
        case .failure(let failure):
            .json(
                status: failure.error.kind.httpStatus,
                ErrorBody(failure.error, missing: failure.missing))
        }
    }

    private func metrics() async throws(ControlError) -> HTTPMessage {
        let text = Metrics.text(status: try await plane.status(), vdis: try await plane.list())
        return HTTPMessage(
            startLine: .response(status: 200),
            headers: ["content-type": "text/plain; version=0.0.4; charset=utf-8"],
            body: Array(text.utf8))
    }

    private func decode<Body: Decodable>(_ bytes: [UInt8]) throws(ControlError) -> Body {
        guard !bytes.isEmpty else {
            throw ControlError(.invalid, "the request has no body; a JSON object is needed")
        }
        return try ControlJSON.decode(Body.self, from: bytes)
    }

    private func notAllowed(_ method: String, _ route: Route) -> HTTPMessage {
        let allowed = route.methods.joined(separator: ", ")
        let error = ControlError(
            .methodNotAllowed, "\(quoted(method)) does nothing here; this path takes \(allowed)")
        var answer = HTTPMessage.json(status: 405, ErrorBody(error))
        answer.headers["allow"] = allowed
        return answer
    }
}

/// The paths of the API.
enum Route: Equatable {
    case status
    case ready
    case metrics
    case vdis
    case vdi(String)
    case attachments(String)

    init(target: String) throws(ControlError) {
        guard !target.contains("?"), !target.contains("#") else {
            throw ControlError(.invalid, "this API takes no query in its paths")
        }
        var segments: [String] = []
        for segment in target.split(separator: "/", omittingEmptySubsequences: false).dropFirst() {
            guard let decoded = PercentEncoding.decode(segment) else {
                throw ControlError(.invalid, "the path \(quoted(target)) is not properly encoded")
            }
            segments.append(decoded)
        }
        guard target.hasPrefix("/"), let route = Self.route(segments) else {
            throw ControlError(.notFound, "there is nothing at the path \(quoted(target))")
        }
        self = route
    }

    private static func route(_ segments: [String]) -> Route? {
        switch segments.count {
        case 1 where segments == ["metrics"]: .metrics
        case 2 where segments == ["v1", "status"]: .status
        case 2 where segments == ["v1", "ready"]: .ready
        case 2 where segments == ["v1", "vdis"]: .vdis
        case 3 where segments[..<2] == ["v1", "vdis"] && !segments[2].isEmpty: .vdi(segments[2])
        case 4 where segments[..<2] == ["v1", "vdis"] && segments[3] == "attachments":
            .attachments(segments[2])
        default: nil
        }
    }

    var methods: [String] {
        switch self {
        case .status, .ready, .metrics: ["GET", "HEAD"]
        case .vdis: ["GET", "HEAD", "POST"]
        case .vdi: ["GET", "HEAD", "PATCH", "DELETE"]
        case .attachments: ["POST", "DELETE"]
        }
    }
}
