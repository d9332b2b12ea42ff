// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// An open VDI: what the data path needs of it.
///
/// Owned by the shard thread. Snapshots and clones will add versions; what is here is the
/// writable head.
struct VDI: BitwiseCopyable {
    var identifier = VDIIdentifier(0)
    var sizeBlocks: UInt64 = 0
    /// Resident while the root node is dirty.
    var root = BlockReference.hole
    /// Height of the tree; 0 with a hole as root. 256^levels blocks can be mapped.
    var levels = 0
    /// Birth of what is written now.
    var epoch: UInt32 = 1
    /// What was born at or before this belongs to a snapshot too.
    var snapshotEpoch: UInt32 = 0
    /// Dirty nodes with an older stamp belong to a snapshot: copy before a change.
    var mutableStamp: UInt64 = 0
    var allocatedBlocks: UInt64 = 0
    var isOpen = false
    var isDeleting = false
    /// Requests of front ends; what a deletion frees must not be written to any more.
    var requestsInFlight: UInt32 = 0
    /// While the VDI is being made smaller: requests behind this end are refused already.
    var endWhileShrinking = UInt64.max

    /// Blocks that a tree of this height can map.
    static func span(levels: Int) -> UInt64 {
        levels == 0 ? 0 : 1 << UInt64(radixBits * levels)
    }
}
