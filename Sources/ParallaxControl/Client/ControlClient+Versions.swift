// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Snapshots, clones and what is between them.
extension ControlClient {
    package func createSnapshot(
        of vdi: String, _ request: CreateSnapshotRequest = CreateSnapshotRequest()
    ) throws(ControlError) -> SnapshotDescription {
        try decoded(call("POST", Self.path(vdi) + "/snapshots", ControlJSON.encode(request)))
    }

    /// One atomic cut through `request.vdis`.
    package func createGroup(
        _ request: CreateSnapshotRequest
    ) throws(ControlError) -> [SnapshotDescription] {
        let group: SnapshotGroup = try decoded(
            call("POST", "/v1/snapshots", ControlJSON.encode(request)))
        return group.snapshots
    }

    /// One page, oldest first.
    package func snapshots(
        of vdi: String, after: String? = nil, limit: Int = SnapshotList.pageLimit
    ) throws(ControlError) -> SnapshotList {
        var target = Self.path(vdi) + "/snapshots?limit=\(limit)"
        if let after { target += "&after=" + PercentEncoding.encode(after) }
        return try decoded(call("GET", target))
    }

    package func snapshot(
        _ vdi: String, _ snapshot: String
    ) throws(ControlError) -> SnapshotDescription {
        try decoded(call("GET", Self.path(vdi, snapshot)))
    }

    package func change(
        _ vdi: String, _ snapshot: String, _ change: ChangeSnapshotRequest
    ) throws(ControlError) -> SnapshotDescription {
        try decoded(call("PATCH", Self.path(vdi, snapshot), ControlJSON.encode(change)))
    }

    package func delete(_ vdi: String, _ snapshot: String) throws(ControlError) {
        _ = try call("DELETE", Self.path(vdi, snapshot))
    }

    /// All of them, each `VDI@SNAPSHOT`, or with an error none; as many as one request holds.
    package func delete(snapshots: [String]) throws(ControlError) {
        let request = DeleteSnapshotsRequest(snapshots: snapshots)
        _ = try call("POST", "/v1/snapshots/delete", ControlJSON.encode(request))
    }

    package func hold(
        _ vdi: String, _ snapshot: String, reason: String
    ) throws(ControlError) -> SnapshotDescription {
        let request = HoldRequest(reason: reason)
        return try decoded(
            call("POST", Self.path(vdi, snapshot) + "/holds", ControlJSON.encode(request)))
    }

    /// Without a reason: its only hold.
    package func release(
        _ vdi: String, _ snapshot: String, reason: String?
    ) throws(ControlError) -> SnapshotDescription {
        var target = Self.path(vdi, snapshot) + "/holds"
        if let reason { target += "?reason=" + PercentEncoding.encode(reason) }
        return try decoded(call("DELETE", target))
    }

    package func rollback(
        _ vdi: String, _ request: RollbackRequest
    ) throws(ControlError) -> RollbackAnswer {
        try decoded(call("POST", Self.path(vdi) + "/rollback", ControlJSON.encode(request)))
    }

    /// `from` is `VDI@SNAPSHOT`; without a size the new VDI has that of the snapshot.
    package func clone(
        from: String, to name: String, sizeBytes: UInt64? = nil, quotaBytes: UInt64? = nil
    ) throws(ControlError) -> VDIDescription {
        let request = CreateVDIRequest(
            name: name, sizeBytes: sizeBytes, from: from, quotaBytes: quotaBytes)
        return try decoded(call("POST", "/v1/vdis", ControlJSON.encode(request)))
    }

    /// One page of how `to` differs from `from`, from the byte `offset` on.
    package func diff(
        from: String, to: String, offset: UInt64 = 0
    ) throws(ControlError) -> DiffPage {
        let target =
            "/v1/diff?from=\(PercentEncoding.encode(from))&to=\(PercentEncoding.encode(to))"
            + "&offset=\(offset)"
        return try decoded(call("GET", target))
    }

    package func attach(
        _ version: VersionName, _ request: AttachRequest
    ) throws(ControlError) -> AttachmentDescription {
        try decoded(
            call("POST", Self.path(version) + "/attachments", ControlJSON.encode(request)))
    }

    package func detach(_ version: VersionName) throws(ControlError) {
        _ = try call("DELETE", Self.path(version) + "/attachments")
    }

    private static func path(_ version: VersionName) -> String {
        version.snapshot.map { path(version.vdi, $0) } ?? path(version.vdi)
    }

    static func path(_ vdi: String, _ snapshot: String) -> String {
        path(vdi) + "/snapshots/" + PercentEncoding.encode(snapshot)
    }
}
