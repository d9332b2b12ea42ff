// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxRetention

/// The part of the API that is about snapshots.
extension ControlRoutes {
    func performVersions(
        _ method: String, _ target: RequestTarget, _ body: [UInt8]
    ) async throws(ControlError) -> HTTPMessage {
        switch (method, target.route) {
        case ("GET", .snapshots(let vdi)):
            return try await list(vdi, target)
        case ("POST", .snapshots(let vdi)):
            // A snapshot needs nothing to be said about it.
            let request: CreateSnapshotRequest = try decode(body.isEmpty ? Self.nothing : body)
            return .json(status: 201, try await plane.createSnapshot(of: vdi, request))
        case ("POST", .groups):
            let request: CreateSnapshotRequest = try decode(body)
            return .json(status: 201, try await plane.createGroup(request))
        case ("POST", .snapshotDeletions):
            let request: DeleteSnapshotsRequest = try decode(body)
            var names: [VersionName] = []
            for text in request.snapshots { names.append(try VersionName(text)) }
            try await plane.delete(snapshots: names)
            return .noContent
        case ("GET", .snapshot(let version)):
            return .json(status: 200, try await plane.snapshot(version))
        case ("PATCH", .snapshot(let version)):
            let request: ChangeSnapshotRequest = try decode(body)
            return .json(status: 200, try await plane.change(version, request))
        case ("DELETE", .snapshot(let version)):
            try await plane.delete(snapshots: [version])
            return .noContent
        case ("POST", .holds(let version)):
            let request: HoldRequest = try decode(body)
            return .json(status: 201, try await plane.hold(version, request))
        case ("DELETE", .holds(let version)):
            let reason = target.text("reason")
            return .json(status: 200, try await plane.release(version, reason: reason))
        case ("POST", .rollback(let vdi)):
            let request: RollbackRequest = try decode(body)
            return .json(status: 200, try await plane.rollback(vdi, request))
        case ("GET", .diff):
            return try await diff(target)
        default:
            return try await performRetention(method, target, body)
        }
    }

    private func performRetention(
        _ method: String, _ target: RequestTarget, _ body: [UInt8]
    ) async throws(ControlError) -> HTTPMessage {
        switch (method, target.route) {
        case ("GET", .retention(let vdi)):
            return .json(status: 200, try await plane.retention(of: vdi))
        case ("PUT", .retention(let vdi)):
            let policy = try Self.policy(body)
            return .json(status: 200, try await plane.setRetention(of: vdi, policy))
        case ("DELETE", .retention(let vdi)):
            _ = try await plane.setRetention(of: vdi, nil)
            return .noContent
        case ("POST", .retentionRun(let vdi)):
            let request: ApplyRetentionRequest = try decode(body.isEmpty ? Self.nothing : body)
            return .json(status: 200, try await plane.applyRetention(to: vdi, request))
        default:
            throw ControlError(.internalError, "\(method) is not served here")
        }
    }

    private static func policy(_ body: [UInt8]) throws(ControlError) -> RetentionPolicy {
        do throws(RetentionError) {
            return try RetentionPolicy.decode(json: String(decoding: body, as: UTF8.self))
        } catch {
            throw ControlError(error)
        }
    }

    static var nothing: [UInt8] { Array("{}".utf8) }

    private func list(_ vdi: String, _ target: RequestTarget) async throws(ControlError)
        -> HTTPMessage
    {
        let limit = try target.number("limit") ?? UInt64(SnapshotList.pageLimit)
        let list = try await plane.snapshots(
            of: vdi, after: target.text("after"), limit: Int(clamping: limit))
        return .json(status: 200, list)
    }

    private func diff(_ target: RequestTarget) async throws(ControlError) -> HTTPMessage {
        let page = try await plane.diff(
            from: target.version("from"), to: target.version("to"),
            offset: target.number("offset") ?? 0)
        return .json(status: 200, page)
    }
}

extension HTTPMessage {
    static var noContent: HTTPMessage { HTTPMessage(startLine: .response(status: 204)) }
}
