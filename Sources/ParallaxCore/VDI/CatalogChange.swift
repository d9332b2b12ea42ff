// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What the control plane may change in a stream's catalogue. Names are unique per daemon (VDIs)
/// and per VDI (snapshots), which the control plane sees to; the engine checks the rest.
package enum CatalogChange: Equatable, Sendable {
    case create(name: String, sizeBytes: UInt64, createdAtNanoseconds: UInt64)
    /// A new VDI that begins as the snapshot is. `sizeBytes` is at least the snapshot's.
    case clone(
        of: SnapshotIdentifier, name: String, sizeBytes: UInt64, createdAtNanoseconds: UInt64)
    /// Growing is always possible; shrinking discards what lies behind the new end.
    case resize(VDIIdentifier, sizeBytes: UInt64)
    case rename(VDIIdentifier, name: String)
    /// The VDI and all its snapshots are gone at once; what clones share stays, the rest comes
    /// back in the background. Refused while one of the snapshots is held or open.
    case delete(VDIIdentifier)
    case setAttributes(VDIIdentifier, VDIAttributes)
    /// `group` is 0 for a snapshot that stands alone. A member of a group stays hidden until
    /// `finishGroup`; and from its cut on the stream answers nothing before `releaseGroup` is
    /// called, so that no write can depend on one that another member's cut has missed.
    case snapshot(
        VDIIdentifier, SnapshotDetails, createdAtNanoseconds: UInt64, group: UInt64)
    case setDetails(SnapshotIdentifier, SnapshotDetails)
    /// Refused while it is held or open.
    case deleteSnapshot(SnapshotIdentifier)
    /// The head begins again as the snapshot is, with its size. With `keeping`, what the head was
    /// becomes a snapshot. Refused while requests to the head are under way.
    case rollback(
        VDIIdentifier, to: SnapshotIdentifier, keeping: SnapshotDetails?,
        createdAtNanoseconds: UInt64)
    /// Makes this stream's members of the group visible, or takes them back.
    case finishGroup(UInt64, commit: Bool)
}

/// What the store keeps for a VDI beside its blocks.
package struct VDIAttributes: Equatable, Sendable {
    /// The head refuses writes.
    package var isTemplate: Bool
    /// The retention policy as text; empty for none. At most `Limits.policyBytes`.
    package var policy: String
    /// Bytes of data that may be charged to the VDI (`VDISummary.chargedBytes`); 0: no limit.
    /// Writes that would go beyond are refused as in a full store.
    package var quotaBytes: UInt64

    package init(isTemplate: Bool = false, policy: String = "", quotaBytes: UInt64 = 0) {
        self.isTemplate = isTemplate
        self.policy = policy
        self.quotaBytes = quotaBytes
    }
}

/// Why a change was not made. Nothing was changed, but that a disk which was to be made smaller may have
/// lost blocks behind the new end.
package enum CatalogError: Error, Equatable, Sendable {
    case noSuchVDI
    case noSuchSnapshot
    case invalidSize
    case invalidName
    /// Details or attributes that the format has no room for.
    case invalidDetails
    case tooManyVDIs
    case tooManySnapshots
    /// The lineage has used up its 2^32 epochs.
    case tooManyEpochs
    case held
    /// The snapshot is open, or the head has requests under way.
    case inUse
    case noSuchGroup
    case noSpace
    /// The log cannot be written any more.
    case ioError
}

/// The answer to one change, given when it is durable.
package struct CatalogReply: Sendable {
    package var ticket: UInt64
    package var result: Result<CatalogOutcome, CatalogError>
}

/// What a change has made or changed.
package enum CatalogOutcome: Equatable, Sendable {
    case vdi(VDIIdentifier)
    case snapshot(SnapshotIdentifier)
    /// A rollback, and the snapshot of what the head was before.
    case rollback(VDIIdentifier, kept: SnapshotIdentifier?)
    case group(UInt64)
}

/// One VDI as lists show it.
package struct VDISummary: Equatable, Sendable {
    package var identifier: VDIIdentifier
    package var name: String
    package var sizeBytes: UInt64
    package var allocatedBytes: UInt64
    package var createdAtNanoseconds: UInt64
    package var isDeleting: Bool
    package var attributes = VDIAttributes()
    /// The snapshot that the head continues: its own newest, or the one that it was cloned from
    /// or rolled back to. nil: none, or one that has been deleted.
    package var parent: SnapshotIdentifier?
    package var snapshotCount = 0
    /// Bytes of data that were written through this VDI and are still stored, for its head or for
    /// any of its snapshots. Every block of the store is charged to one VDI; what a clone shares
    /// with its origin, to the origin.
    package var chargedBytes: UInt64 = 0
    /// Bytes of data that only the head has.
    package var exclusiveBytes: UInt64 = 0
}

/// One snapshot as lists show it.
package struct SnapshotSummary: Equatable, Sendable {
    package var identifier: SnapshotIdentifier
    package var vdi: VDIIdentifier
    /// The nearest ancestor that is not deleted.
    package var parent: SnapshotIdentifier?
    package var createdAtNanoseconds: UInt64
    package var sizeBytes: UInt64
    /// Bytes of data that it refers to.
    package var allocatedBytes: UInt64
    /// Bytes of data that deleting it, and nothing else, would free; nil while they are counted.
    package var exclusiveBytes: UInt64?
    /// Bytes of data that were written between the snapshot before and this one, and are in it.
    package var bornBytes: UInt64 = 0
    /// Versions that continue it directly: snapshots, heads, and so clones.
    package var childCount: Int
    package var details: SnapshotDetails
    /// Not 0: a member of a group that is not finished. Hidden from lists.
    package var pendingGroup: UInt64
    /// Whether it is open for reading (attached).
    package var isOpen: Bool
}

/// Summaries of what is asked for by name, and how far they have come; see `Engine.describe`.
package struct DescriptionList<Identifier: Sendable, Summary: Sendable>: Sendable {
    private let identifiers: [Identifier]
    private var done = 0
    /// Of those that are there, in that order.
    package private(set) var summaries: [Summary] = []

    package init(_ identifiers: [Identifier]) { self.identifiers = identifiers }

    package var isComplete: Bool { done == identifiers.count }

    var next: Identifier? { isComplete ? nil : identifiers[done] }

    mutating func answer(_ summary: Summary?) {
        if let summary { summaries.append(summary) }
        done += 1
    }
}

/// Which snapshots to list: the rows of one stream from `cursor` on, in the order of the table.
package struct SnapshotPage: Sendable {
    package var snapshots: [SnapshotSummary]
    /// To be passed as the next `cursor`; nil: that was all.
    package var next: Int?
}
