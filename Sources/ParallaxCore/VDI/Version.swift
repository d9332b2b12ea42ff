// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One immutable version: a snapshot, or what is left of one that was deleted.
///
/// ```
///   pending ----> visible ----> deleted ----> free
///      |   group          delete      reclaimed
///      +-----------------------^
/// ```
/// A deleted version with two children or more stays, unseen, as the branching point that it is:
/// what its children share has no other owner.
struct Version: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable { case free, pending, visible, deleted }

    var identifier = SnapshotIdentifier(0)
    /// Whose snapshot it is, or was.
    var vdi = VDIIdentifier(0)
    var root = BlockReference.hole
    var sizeBlocks: UInt64 = 0
    var allocatedBlocks: UInt64 = 0
    /// Data blocks that neither the parent nor the only child refers to, if `isCounted`; 0 with two
    /// children or more. A child that is a head has some more in `VDI.lostBlocks`.
    var exclusiveBlocks: UInt64 = 0
    /// Data blocks that were born after the parent and are in this version: every block of the
    /// store is born in one version or head, so these add up to what is stored.
    var bornBlocks: UInt64 = 0
    var createdAtNanoseconds: UInt64 = 0
    /// The group that it is a pending member of; 0 for none.
    var group: UInt64 = 0
    /// Births up to here are in it.
    var epoch: UInt32 = 0
    var parent: Int32 = -1
    /// Of one that is hidden, if known: an ancestor with none between them that people see.
    var shortcut = SnapshotIdentifier(0)
    var childCount: UInt32 = 0
    var firstChild = VersionLink.none
    var next = VersionLink.none
    var previous = VersionLink.none
    /// Neighbours among the snapshots of its VDI: rows, or -1.
    var nextInVDI: Int32 = -1
    var previousInVDI: Int32 = -1
    /// The handle by which it is read, and by how many.
    var handle: Int32 = -1
    var openCount: UInt32 = 0
    var page: UInt32 = 0
    var recordBytes: UInt16 = 0
    var levels: UInt8 = 0
    var state = State.free
    var isHeld = false
    var isCounted = false
    var isRecordDirty = false
    /// It is in the queue of what is to be reclaimed, or counted.
    var isQueued = false

    var tree: TreeRoot { TreeRoot(root: root, levels: Int(levels)) }
}
