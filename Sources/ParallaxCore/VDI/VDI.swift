// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// An open disk, as the data path needs it: the writable head of a VDI, or a snapshot that is open
/// for reading.
///
/// Owned by the shard thread. What a head shares with its parent (the snapshot that it continues)
/// is told by births alone:
///
/// ```
///   birth   0 ........ parentFloor ........ snapshotEpoch ........ epoch
///             in the            in the parent,           in the head only:
///             grandparent too   not in the grandparent   dead when replaced
/// ```
struct VDI: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable { case closed, head, snapshot }

    var identifier = VDIIdentifier(0)
    var kind = Kind.closed
    var sizeBlocks: UInt64 = 0
    /// Resident while the root node is dirty.
    var root = BlockReference.hole
    /// Height of the tree; 0 with a hole as root. 256^levels blocks can be mapped.
    var levels = 0
    /// Birth of what is written now.
    var epoch: UInt32 = 1
    /// Epoch of the parent: what was born at or before this belongs to it too.
    var snapshotEpoch: UInt32 = 0
    /// Epoch of the parent's parent, if the head is its parent's only child; else `snapshotEpoch`.
    var parentFloor: UInt32 = 0
    /// Dirty nodes with an older stamp belong to a snapshot: copy before a change.
    var mutableStamp: UInt64 = 0
    var allocatedBlocks: UInt64 = 0
    /// Blocks that the head has let go of and that only its parent holds now, as far as the parent
    /// knows what it held before: those below `countedBelow`.
    var lostBlocks: UInt64 = 0
    var countedBelow: UInt64 = 0
    /// Data blocks that were born in this head and are in it.
    var bornBlocks: UInt64 = 0
    /// The same of the versions that are its snapshots, or were.
    var bornInVersions: UInt64 = 0
    /// Blocks of the parent, which is being given back, that the head has let go of behind
    /// the place that the deletion has reached: the parent's count does not know of them yet.
    var freedOfParent: UInt64 = 0
    /// Most blocks that may be charged to the VDI; blocks of writes under way that will be.
    var quotaBlocks = UInt64.max
    var pendingCharge: UInt64 = 0
    /// The parent is deleted, and its nodes below `reclaimLevel`, and at it those before
    /// `reclaimCursor`, have been gone through: what it shared there is the head's own now.
    var reclaimLevel: Int8 = -1
    var reclaimCursor: UInt64 = 0

    /// A row of the table of versions, or -1: the parent of a head, the snapshot itself.
    var version: Int32 = -1
    var next = VersionLink.none
    var previous = VersionLink.none
    /// The VDI's snapshots in the order in which they were made: rows, or -1.
    var firstSnapshot: Int32 = -1
    var lastSnapshot: Int32 = -1
    var snapshotCount: UInt32 = 0
    var heldSnapshots: UInt32 = 0
    var openSnapshots: UInt32 = 0

    /// Page of its record, and whether the record has changed since it was last written.
    var page: UInt32 = 0
    var recordBytes: UInt16 = 0
    var isRecordDirty = false
    var isDeleting = false
    var isTemplate = false
    /// Requests of front ends; what a deletion frees must not be written to any more.
    var requestsInFlight: UInt32 = 0
    /// While the VDI is being made smaller: requests behind this end are refused already.
    var endWhileShrinking = UInt64.max

    var isOpen: Bool { kind != .closed }
    var isReadOnly: Bool { kind == .snapshot || isTemplate }
    /// Blocks of data that are stored on account of this VDI.
    var chargedBlocks: UInt64 { bornBlocks + bornInVersions }
    var tree: TreeRoot { TreeRoot(root: root, levels: levels) }

    /// Blocks that a tree of this height can map.
    static func span(levels: Int) -> UInt64 {
        levels == 0 ? 0 : 1 << UInt64(radixBits * levels)
    }

    /// Whether the deletion of the parent has gone through the node, or the blocks, of this level.
    func isReclaimed(level: Int, firstBlock: UInt64) -> Bool {
        Int(reclaimLevel) > level || (Int(reclaimLevel) == level && firstBlock < reclaimCursor)
    }
}

extension VDI {
    mutating func setQuota(_ bytes: UInt64) {
        quotaBlocks = bytes == 0 ? .max : bytes / UInt64(blockBytes)
    }

    var quotaBytes: UInt64 { quotaBlocks == .max ? 0 : quotaBlocks * UInt64(blockBytes) }
}

/// A child of a version, or a neighbour among its children: a snapshot's row, a head's handle, or
/// nothing.
struct VersionLink: BitwiseCopyable, Equatable {
    /// Rows are 0 and up, handles -2 and down.
    private let code: Int32

    private init(code: Int32) { self.code = code }

    static var none: VersionLink { VersionLink(code: -1) }
    static func snapshot(_ row: Int) -> VersionLink { VersionLink(code: Int32(row)) }
    static func head(_ handle: Int) -> VersionLink { VersionLink(code: -2 - Int32(handle)) }

    var row: Int? { code >= 0 ? Int(code) : nil }
    var handle: Int? { code <= -2 ? Int(-2 - code) : nil }
    var isNone: Bool { code == -1 }
}
