// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The body of `POST /v1/vdis/{name}/snapshots`, and with `vdis` that of `POST /v1/snapshots`.
package struct CreateSnapshotRequest: Codable, Sendable {
    /// Only for a group: its members.
    package var vdis: [String]?
    /// Without one it is the time, in UTC.
    package var name: String?
    package var comment: String?
    package var labels: [String: String]?
    /// Made by the schedule, so that retention policies apply to it.
    package var scheduled: Bool?

    package init(
        vdis: [String]? = nil, name: String? = nil, comment: String? = nil,
        labels: [String: String]? = nil, scheduled: Bool? = nil
    ) {
        self.vdis = vdis
        self.name = name
        self.comment = comment
        self.labels = labels
        self.scheduled = scheduled
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        vdis = try container.decodeIfPresent([String].self, forKey: .vdis)
        name = try container.decodeIfPresent(String.self, forKey: .name)
        comment = try container.decodeIfPresent(String.self, forKey: .comment)
        labels = try container.decodeIfPresent([String: String].self, forKey: .labels)
        scheduled = try container.decodeIfPresent(Bool.self, forKey: .scheduled)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case vdis
        case name
        case comment
        case labels
        case scheduled
    }
}

/// The body of `PATCH /v1/vdis/{name}/snapshots/{snapshot}`; a label that is null is taken away.
package struct ChangeSnapshotRequest: Codable, Sendable {
    package var comment: String?
    package var labels: [String: String?]?

    package init(comment: String? = nil, labels: [String: String?]? = nil) {
        self.comment = comment
        self.labels = labels
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        comment = try container.decodeIfPresent(String.self, forKey: .comment)
        labels = try container.decodeIfPresent([String: String?].self, forKey: .labels)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case comment
        case labels
    }
}

/// The body of `POST /v1/snapshots/delete`: all of them, or with an error none.
package struct DeleteSnapshotsRequest: Codable, Sendable {
    /// `VDI@SNAPSHOT` each.
    package var snapshots: [String]

    package init(snapshots: [String]) { self.snapshots = snapshots }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        snapshots = try container.decode([String].self, forKey: .snapshots)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case snapshots
    }
}

/// The body of `POST /v1/vdis/{name}/snapshots/{snapshot}/holds`.
package struct HoldRequest: Codable, Sendable {
    package var reason: String

    package init(reason: String) { self.reason = reason }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        reason = try container.decode(String.self, forKey: .reason)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case reason
    }
}

/// The body of `POST /v1/vdis/{name}/rollback`.
package struct RollbackRequest: Codable, Sendable {
    /// A snapshot of the VDI: a name, `latest`, a time or `-2h`.
    package var snapshot: String
    /// Also while it is attached read-only.
    package var force: Bool?
    /// False: what the head is now is lost.
    package var keep: Bool?

    package init(snapshot: String, force: Bool? = nil, keep: Bool? = nil) {
        self.snapshot = snapshot
        self.force = force
        self.keep = keep
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        snapshot = try container.decode(String.self, forKey: .snapshot)
        force = try container.decodeIfPresent(Bool.self, forKey: .force)
        keep = try container.decodeIfPresent(Bool.self, forKey: .keep)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case snapshot
        case force
        case keep
    }
}
