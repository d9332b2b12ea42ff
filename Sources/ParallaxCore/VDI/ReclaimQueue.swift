// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Work in the background on one version or deleted head: giving back what only it has, or
/// counting that.
///
/// ```
///   level 0: leaves and data blocks     level 1       level 2 ...
///   |=========cursor------------------| |-----------| |------|
///    done                                 nodes
/// ```
/// From the leaves up, so that a node is given back when nothing below it is needed any more. Where
/// it stands is part of every checkpoint, taken at the same moment as the live counts.
struct ReclaimJob: BitwiseCopyable {
    enum Purpose: UInt8, BitwiseCopyable { case free, count }

    var purpose: Purpose
    var target: RecordOwner
    var level = 0
    var cursor: UInt64 = 0
    var counted: UInt64 = 0
    /// The node whose load it waits for.
    var awaited: AwaitedNode?
    /// That node cannot be read; and how often that was so.
    var isBroken = false
    var attempts = 0
}

/// What is deleted and not yet given back, and what is to be counted.
///
/// Nothing of this is logged: who is deleted follows from the records, and the job's place from
/// the checkpoint; so a crash only repeats what was done since.
struct ReclaimQueue {
    var job: ReclaimJob?
    /// Deleted versions with one child or none, and deleted VDIs whose snapshots are gone.
    var deletions = Fifo<RecordOwner>()
    /// Rows of versions whose exclusive blocks are not known.
    var counts = Fifo<UInt32>()
    /// Handles of deleted VDIs that still have snapshots.
    var vdis = Fifo<UInt32>()
    /// Turns for which the job has found no frame to load a node into.
    var starvedTurns = 0
    /// It would go on at once, had the turn not ended.
    var hasMore = false

    var hasWork: Bool {
        job != nil || !deletions.isEmpty || !counts.isEmpty || !vdis.isEmpty
    }
}
