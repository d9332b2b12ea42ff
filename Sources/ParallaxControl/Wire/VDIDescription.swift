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
    /// ISO 8601, UTC.
    package var createdAt: String
    package var shard: Int
    package var attachment: AttachmentDescription?

    package init(
        name: String, identifier: String, sizeBytes: UInt64, allocatedBytes: UInt64,
        createdAt: String, shard: Int, attachment: AttachmentDescription?
    ) {
        self.name = name
        self.identifier = identifier
        self.sizeBytes = sizeBytes
        self.allocatedBytes = allocatedBytes
        self.createdAt = createdAt
        self.shard = shard
        self.attachment = attachment
    }

    enum CodingKeys: String, CodingKey {
        case name
        case identifier = "id"
        case sizeBytes = "size_bytes"
        case allocatedBytes = "allocated_bytes"
        case createdAt = "created_at"
        case shard
        case attachment
    }
}

/// The answer of `GET /v1/vdis`, sorted by name.
package struct VDIList: Codable, Sendable {
    package var vdis: [VDIDescription]

    package init(vdis: [VDIDescription]) { self.vdis = vdis }
}

/// The body of `POST /v1/vdis`.
package struct CreateVDIRequest: Codable, Sendable {
    package var name: String
    package var sizeBytes: UInt64

    package init(name: String, sizeBytes: UInt64) {
        self.name = name
        self.sizeBytes = sizeBytes
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decode(String.self, forKey: .name)
        sizeBytes = try container.decode(UInt64.self, forKey: .sizeBytes)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case name
        case sizeBytes = "size_bytes"
    }
}

/// The body of `PATCH /v1/vdis/{name}`: a new name or a new size, one change a request so that
/// it either happened or did not.
package struct ChangeVDIRequest: Codable, Sendable {
    package var name: String?
    package var sizeBytes: UInt64?
    /// Consent to losing what lies beyond the new end.
    package var shrink: Bool?

    package init(name: String? = nil, sizeBytes: UInt64? = nil, shrink: Bool? = nil) {
        self.name = name
        self.sizeBytes = sizeBytes
        self.shrink = shrink
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decodeIfPresent(String.self, forKey: .name)
        sizeBytes = try container.decodeIfPresent(UInt64.self, forKey: .sizeBytes)
        shrink = try container.decodeIfPresent(Bool.self, forKey: .shrink)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case name
        case sizeBytes = "size_bytes"
        case shrink
    }
}
