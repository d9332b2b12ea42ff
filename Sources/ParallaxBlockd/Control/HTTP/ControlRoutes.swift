// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl

/// The control API: which method on which path does what.
package struct ControlRoutes: Sendable {
    let plane: ControlPlane

    package init(plane: ControlPlane) { self.plane = plane }

    /// Whether the answer waits for no shard and for no lock.
    package static func isAnsweredAtOnce(_ request: HTTPMessage) -> Bool {
        switch request.startLine {
        case .request("GET", "/v1/ready"), .request("HEAD", "/v1/ready"): true
        default: false
        }
    }

    package func respond(to request: HTTPMessage) async -> HTTPMessage {
        do throws(ControlError) {
            guard case .request(let method, let text) = request.startLine else {
                throw ControlError(.invalid, "this is not a request")
            }
            let target = try RequestTarget(text)
            // A HEAD is a GET whose body the connection keeps back.
            let action = method == "HEAD" ? "GET" : method
            guard target.route.methods.contains(method) else {
                return notAllowed(method, target.route)
            }
            try target.checkQuery(method: action)
            return try await perform(action, target, request.body)
        } catch {
            return .json(status: error.kind.httpStatus, ErrorBody(error))
        }
    }

    private func perform(
        _ method: String, _ target: RequestTarget, _ body: [UInt8]
    ) async throws(ControlError) -> HTTPMessage {
        switch (method, target.route) {
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
            let layout = try target.flag("layout")
            return .json(status: 200, try await plane.show(name, includingLayout: layout))
        case ("PATCH", .vdi(let name)):
            let request: ChangeVDIRequest = try decode(body)
            return .json(status: 200, try await plane.change(name, request))
        case ("DELETE", .vdi(let name)):
            try await plane.delete(name)
            return .noContent
        case ("POST", .attachments(let version)):
            let request: AttachRequest = try decode(body)
            return .json(status: 201, try await plane.attach(version, request))
        case ("DELETE", .attachments(let version)):
            try await plane.detach(version)
            return .noContent
        case ("POST", .storeGrowth):
            let request: GrowStoreRequest = try decode(body)
            return .json(status: 200, try await plane.growStore(request))
        case ("POST", .storeCleaning):
            let request: CleanStoreRequest = try decode(body.isEmpty ? Self.nothing : body)
            try await plane.cleanStore(request)
            return .noContent
        case ("POST", .storeScrub):
            let request: ScrubStoreRequest = try decode(body.isEmpty ? Self.nothing : body)
            try await plane.scrubStore(request)
            return .noContent
        case ("DELETE", .storeScrub):
            try await plane.stopScrub()
            return .noContent
        default:
            return try await performVersions(method, target, body)
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
        let text = Metrics.text(
            status: try await plane.status(), vdis: try await plane.list(),
            counters: await plane.counters)
        return HTTPMessage(
            startLine: .response(status: 200),
            headers: ["content-type": "text/plain; version=0.0.4; charset=utf-8"],
            body: Array(text.utf8))
    }

    func decode<Body: Decodable>(_ bytes: [UInt8]) throws(ControlError) -> Body {
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
