// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What the log is still to say of the cleaner's work, so that slots come back without a checkpoint.
///
/// ```
///   cold extent leased      blocks written there     a sync later        victim empty
///        |                        |                       |                  |
///     lease record            (in memory)            moves record        drop record
///                                                                            |
///                                          its chunk durable: the slot is free
/// ```
/// L1 a moves record goes into the log only when what was moved is durable, and behind the lease
///    of the extent where it is now.
/// L2 a drop record goes into the log behind all moves out of the extent, and only if a replay will
///    find the extent empty there (`ExtentTable` I4).
/// L3 a slot is given back when its drop record is durable.
/// What does not get into the log becomes durable with the next checkpoint.
struct MoveLog {
    /// The blocks of one cold chunk.
    struct Batch {
        var to: BlockAddress
        /// The places where they were; 0: not moved.
        var from: [UInt64]
        /// Number of the sync after which they are durable.
        var sync: UInt64
        /// The first checkpoint that knows of them.
        var checkpoint: UInt64
    }

    struct Drop {
        var slot: ExtentSlot
        var lsn: LogSequenceNumber
    }

    struct Look: Equatable {
        var changes: UInt64
        var moves: UInt64
        var checkpoint: UInt64
    }

    /// When none of the empty extents could be given up.
    var fruitlessLook: Look?
    /// Cold extents whose leases are not in the log.
    var leases: [ExtentNumber] = []
    private(set) var batches = Fifo<Batch>()
    /// Batches so far, and those that are in the log or in a durable checkpoint: the oldest ones.
    private(set) var batchCount: UInt64 = 0
    private(set) var loggedCount: UInt64 = 0
    /// Drop records that are not known to be durable, oldest first.
    var drops = Fifo<Drop>()

    /// A checkpoint is durable: the log need not say what it says.
    mutating func finishCheckpoint(sequence: UInt64) {
        while let batch = batches.first, batch.checkpoint <= sequence { popFirst() }
    }

    /// The number of the batch that comes next.
    var nextBatch: UInt64 { batchCount + 1 }

    mutating func append(_ batch: Batch) {
        batches.append(batch)
        batchCount += 1
    }

    mutating func popFirst() {
        _ = batches.popFirst()
        loggedCount += 1
    }

    var droppedSlots: [ExtentSlot] { drops.map(\.slot) }

    /// Whether anything that would give slots back is on its way.
    var isEmpty: Bool { batches.isEmpty && drops.isEmpty }
}
