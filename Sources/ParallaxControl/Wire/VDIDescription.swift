// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A VDI as the control API shows it.
package struct VDIDescription: Codable, Equatable, Sendable {
    package var name: String
    /// Sixteen hexadecimal digits; stays the same when the VDI is renamed. Text, because JSON
    /// numbers lose precision above 2^53.
    package var identifier: String
    package var sizeBytes: UInt64
    /// What the VDI's blocks take in the store.
    package var allocatedBytes: UInt64
    /// Of that what no snapshot and no other VDI has. The rest is shared.
    package var exclusiveBytes: UInt64
    /// What was written through the VDI and is still stored, for its head or for its snapshots.
    package var chargedBytes: UInt64
    /// What may be charged to it; nil for no limit.
    package var quotaBytes: UInt64?
    /// ISO 8601, UTC.
    package var createdAt: String
    package var shard: Int
    package var attachment: AttachmentDescription?
    /// Its head refuses writes.
    package var isTemplate: Bool
    /// `VDI@SNAPSHOT` that the head continues; nil: none, or one that has been deleted.
    package var parent: String?
    package var snapshotCount: Int
    /// The retention policy; nil for none.
    package var retention: String?
    /// Only where it was asked for.
    package var layout: LayoutDescription?

    package init(
        name: String, identifier: String, sizeBytes: UInt64, allocatedBytes: UInt64,
        exclusiveBytes: UInt64, chargedBytes: UInt64, quotaBytes: UInt64? = nil, createdAt: String,
        shard: Int, attachment: AttachmentDescription?, isTemplate: Bool = false,
        parent: String? = nil, snapshotCount: Int = 0, retention: String? = nil
    ) {
        self.name = name
        self.identifier = identifier
        self.sizeBytes = sizeBytes
        self.allocatedBytes = allocatedBytes
        self.exclusiveBytes = exclusiveBytes
        self.chargedBytes = chargedBytes
        self.quotaBytes = quotaBytes
        self.createdAt = createdAt
        self.shard = shard
        self.attachment = attachment
        self.isTemplate = isTemplate
        self.parent = parent
        self.snapshotCount = snapshotCount
        self.retention = retention
    }

    enum CodingKeys: String, CodingKey {
        case name
        case identifier = "id"
        case sizeBytes = "size_bytes"
        case allocatedBytes = "allocated_bytes"
        case exclusiveBytes = "exclusive_bytes"
        case chargedBytes = "charged_bytes"
        case quotaBytes = "quota_bytes"
        case createdAt = "created_at"
        case shard
        case attachment
        case isTemplate = "template"
        case parent
        case snapshotCount = "snapshot_count"
        case retention
        case layout
    }
}

/// How the data blocks of a VDI lie in the store. Blocks that follow each other on the disk and in the
/// store are a run: the longer runs are, the faster the disk reads in order.
package struct LayoutDescription: Codable, Equatable, Sendable {
    /// 0 for an empty disk.
    package var meanRunBytes: UInt64
    /// Data that was looked at.
    package var lookedAtBytes: UInt64
    /// That was all of it, and not a sample.
    package var isWhole: Bool

    package init(meanRunBytes: UInt64, lookedAtBytes: UInt64, isWhole: Bool) {
        self.meanRunBytes = meanRunBytes
        self.lookedAtBytes = lookedAtBytes
        self.isWhole = isWhole
    }

    enum CodingKeys: String, CodingKey {
        case meanRunBytes = "mean_run_bytes"
        case lookedAtBytes = "looked_at_bytes"
        case isWhole = "whole"
    }
}

/// The answer of `GET /v1/vdis`, sorted by name.
package struct VDIList: Codable, Sendable {
    package var vdis: [VDIDescription]

    package init(vdis: [VDIDescription]) { self.vdis = vdis }
}

/// The body of `POST /v1/vdis`: an empty disk of `size_bytes`, or a clone of `from`.
package struct CreateVDIRequest: Codable, Sendable {
    package var name: String
    /// Only a clone may do without; it then has its snapshot's size.
    package var sizeBytes: UInt64?
    /// `VDI@SNAPSHOT`.
    package var from: String?
    /// nil or 0: no limit.
    package var quotaBytes: UInt64?

    package init(
        name: String, sizeBytes: UInt64?, from: String? = nil, quotaBytes: UInt64? = nil
    ) {
        self.name = name
        self.sizeBytes = sizeBytes
        self.from = from
        self.quotaBytes = quotaBytes
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decode(String.self, forKey: .name)
        from = try container.decodeIfPresent(String.self, forKey: .from)
        sizeBytes =
            from == nil
            ? try container.decode(UInt64.self, forKey: .sizeBytes)
            : try container.decodeIfPresent(UInt64.self, forKey: .sizeBytes)
        quotaBytes = try container.decodeIfPresent(UInt64.self, forKey: .quotaBytes)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case name
        case sizeBytes = "size_bytes"
        case from
        case quotaBytes = "quota_bytes"
    }
}

/// The body of `PATCH /v1/vdis/{name}`: a new name, a new size, to be a template or not, or a
/// quota; one change a request so that it either happened or did not.
package struct ChangeVDIRequest: Codable, Sendable {
    package var name: String?
    package var sizeBytes: UInt64?
    /// Consent to losing what lies beyond the new end.
    package var shrink: Bool?
    package var template: Bool?
    /// 0: no limit.
    package var quotaBytes: UInt64?

    package init(
        name: String? = nil, sizeBytes: UInt64? = nil, shrink: Bool? = nil, template: Bool? = nil,
        quotaBytes: UInt64? = nil
    ) {
        self.name = name
        self.sizeBytes = sizeBytes
        self.shrink = shrink
        self.template = template
        self.quotaBytes = quotaBytes
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decodeIfPresent(String.self, forKey: .name)
        sizeBytes = try container.decodeIfPresent(UInt64.self, forKey: .sizeBytes)
        shrink = try container.decodeIfPresent(Bool.self, forKey: .shrink)
        template = try container.decodeIfPresent(Bool.self, forKey: .template)
        quotaBytes = try container.decodeIfPresent(UInt64.self, forKey: .quotaBytes)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case name
        case sizeBytes = "size_bytes"
        case shrink
        case template
        case quotaBytes = "quota_bytes"
    }
}
