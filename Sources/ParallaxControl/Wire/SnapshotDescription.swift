// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A snapshot as the control API shows it.
package struct SnapshotDescription: Codable, Equatable, Sendable {
    /// Who made it.
    package enum Origin: String, Codable, Sendable {
        case manual
        case scheduled
        /// By a rollback, of what it left behind.
        case automatic
    }

    package struct Hold: Codable, Equatable, Sendable {
        package var reason: String
        package var createdAt: String

        package init(reason: String, createdAt: String) {
            self.reason = reason
            self.createdAt = createdAt
        }

        enum CodingKeys: String, CodingKey {
            case reason
            case createdAt = "created_at"
        }
    }

    package var vdi: String
    package var name: String
    /// Sixteen hexadecimal digits; never given to another snapshot.
    package var identifier: String
    /// ISO 8601, UTC, with milliseconds.
    package var createdAt: String
    package var origin: Origin
    package var comment: String
    package var labels: [String: String]
    package var holds: [Hold]
    /// `VDI@SNAPSHOT` of the nearest ancestor that is not deleted.
    package var parent: String?
    package var sizeBytes: UInt64
    /// Bytes of data that it refers to.
    package var allocatedBytes: UInt64
    /// Bytes that deleting it, and nothing else, would free; nil while they are being counted.
    package var exclusiveBytes: UInt64?
    /// Bytes that were written between the snapshot before and this one, and are in it.
    package var bornBytes: UInt64
    /// Snapshots, heads and clones that continue it directly.
    package var childCount: Int
    package var attachment: AttachmentDescription?

    package init(
        vdi: String, name: String, identifier: String, createdAt: String, origin: Origin,
        comment: String, labels: [String: String], holds: [Hold], parent: String?,
        sizeBytes: UInt64, allocatedBytes: UInt64, exclusiveBytes: UInt64?, bornBytes: UInt64,
        childCount: Int, attachment: AttachmentDescription?
    ) {
        self.vdi = vdi
        self.name = name
        self.identifier = identifier
        self.createdAt = createdAt
        self.origin = origin
        self.comment = comment
        self.labels = labels
        self.holds = holds
        self.parent = parent
        self.sizeBytes = sizeBytes
        self.allocatedBytes = allocatedBytes
        self.exclusiveBytes = exclusiveBytes
        self.bornBytes = bornBytes
        self.childCount = childCount
        self.attachment = attachment
    }

    /// `VDI@SNAPSHOT`.
    package var version: String { "\(vdi)@\(name)" }

    enum CodingKeys: String, CodingKey {
        case vdi
        case name
        case identifier = "id"
        case createdAt = "created_at"
        case origin
        case comment
        case labels
        case holds
        case parent
        case sizeBytes = "size_bytes"
        case allocatedBytes = "allocated_bytes"
        case exclusiveBytes = "exclusive_bytes"
        case bornBytes = "born_bytes"
        case childCount = "child_count"
        case attachment
    }
}

/// The answer of `GET /v1/vdis/{name}/snapshots`: oldest first.
package struct SnapshotList: Codable, Sendable {
    package var snapshots: [SnapshotDescription]
    /// To be passed as `after` for the next page, as it is; nil: that was the last. It marks a
    /// place, and holds when snapshots are deleted meanwhile.
    package var next: String?
    /// How many the VDI has.
    package var total: Int

    package init(snapshots: [SnapshotDescription], next: String?, total: Int) {
        self.snapshots = snapshots
        self.next = next
        self.total = total
    }

    /// Snapshots in one page at most, and by default.
    package static let pageLimit = 1000
}

/// The answer of `POST /v1/snapshots`: in the order of the request's VDIs.
package struct SnapshotGroup: Codable, Sendable {
    package var snapshots: [SnapshotDescription]

    package init(snapshots: [SnapshotDescription]) { self.snapshots = snapshots }
}

/// The answer of `POST /v1/vdis/{name}/rollback`.
package struct RollbackAnswer: Codable, Sendable {
    package var vdi: VDIDescription
    /// `VDI@SNAPSHOT` that the head begins again as.
    package var to: String
    /// `VDI@SNAPSHOT` of what the head was; nil when that was not to be kept.
    package var kept: String?

    package init(vdi: VDIDescription, to: String, kept: String?) {
        self.vdi = vdi
        self.to = to
        self.kept = kept
    }
}

/// One page of the answer of `GET /v1/diff`.
package struct DiffPage: Codable, Equatable, Sendable {
    package enum Kind: String, Codable, Sendable {
        case changed
        case zeroed
        case discarded
    }

    package struct Range: Codable, Equatable, Sendable {
        package var offset: UInt64
        package var length: UInt64
        package var kind: Kind

        package init(offset: UInt64, length: UInt64, kind: Kind) {
            self.offset = offset
            self.length = length
            self.kind = kind
        }
    }

    /// The versions by their own names, so that the next page is of the same two.
    package var from: String
    package var to: String
    /// In order, without overlap; in bytes.
    package var ranges: [Range]
    /// To be passed as `offset` for the next page; nil: that was the last.
    package var next: UInt64?

    package init(from: String, to: String, ranges: [Range], next: UInt64?) {
        self.from = from
        self.to = to
        self.ranges = ranges
        self.next = next
    }

    /// Ranges in one page at most.
    package static let rangeLimit = 10_000
}

extension [DiffPage.Range] {
    /// Appends `range`, or makes the last one longer when the two are one.
    package mutating func appendMerging(_ range: DiffPage.Range) {
        if let last, last.kind == range.kind, last.offset + last.length == range.offset {
            self[count - 1].length += range.length
        } else {
            append(range)
        }
    }
}
