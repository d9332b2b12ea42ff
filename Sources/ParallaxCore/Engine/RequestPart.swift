// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A request while it is being carried out.
struct PendingRequest: BitwiseCopyable {
    var request: BlockRequest
    /// The next sector for which there is no part yet.
    var nextSector: UInt64 = 0
    var endSector: UInt64 = 0
    var partsOutstanding: Int32 = 0
    var isInUse = true
    /// The first error of any part.
    var status = BlockStatus.ok
    /// The guest's memory cannot be handed to the device: it goes through bounce buffers.
    var needsBounce = false
    /// It stands in the queue of requests that wait for parts.
    var isQueued = false
    /// For a flush, or a write with FUA: everything up to here must be durable first.
    var flushLSN = LogSequenceNumber(0)

    var isFullyIssued: Bool { nextSector >= endSector }
}

/// One piece of a request: blocks of one radix leaf, or a piece of one block.
struct RequestPart: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        case read
        /// Sectors of one block, through a bounce buffer.
        case readSectors
        case write
        /// Sectors of one block: read, modify, write.
        case writeSectors
        case hole
        /// Sectors of one block to be zeroed.
        case zeroSectors
        /// Which blocks are holes; `blockCount` counts the extents reported.
        case allocation

        var isModify: Bool { self == .writeSectors || self == .zeroSectors }
        var changesBlocks: Bool {
            self != .read && self != .readSectors && self != .allocation
        }
    }

    enum Phase: UInt8, BitwiseCopyable {
        case starting
        /// Device reads are under way.
        case reading
        /// A block that failed its checksum is read again into private memory.
        case rereading
        /// Waits for a place in a chunk.
        case staging
        /// All of it is in chunks.
        case staged
    }

    var kind = Kind.read
    var phase = Phase.starting
    var request: Int32 = -1
    var vdi: UInt32 = 0
    var firstBlock: UInt64 = 0
    var blockCount: Int32 = 0
    /// Within the block, for the kinds that end in `Sectors`.
    var firstSector: UInt8 = 0
    var sectorCount: UInt8 = 0
    /// Where this part's data begin in the request's.
    var byteOffset = 0
    /// The sector up to which an allocation query has come.
    var cursor: UInt64 = 0
    /// Blocks put into chunks so far.
    var stagedBlocks: Int32 = 0
    /// Pieces in chunks, or device reads, that are not done.
    var outstanding: Int32 = 0
    var bounce: Int32 = -1
    /// Holds the lock on its block.
    var holdsLock = false
    /// When it began to wait for a lock; 0: it never has.
    var lockTicket: UInt32 = 0
    /// It changes several blocks, had to wait for the lock of another, and is not in the log yet.
    var isBehindLock = false
    /// Blocks that it will add to what is charged to a VDI with a quota.
    var charge: UInt16 = 0
    /// Holds a permit to load nodes.
    var mayLoad = false
    var status = BlockStatus.ok
    /// The block that is being read again.
    var rereadIndex: Int32 = 0
    /// Which of the two read epochs it belongs to, or 2 for none.
    var readEpoch: UInt8 = 2
    /// Next in whatever list the part waits in.
    var next: Int32 = -1
}

/// A first-in first-out list of parts through `RequestPart.next`.
struct PartList: BitwiseCopyable {
    private(set) var head: Int32 = -1
    private var tail: Int32 = -1
    private(set) var count = 0

    var isEmpty: Bool { head < 0 }

    mutating func append(_ part: Int, _ parts: inout SlotTable<RequestPart>) {
        parts[part].next = -1
        if tail >= 0 { parts[Int(tail)].next = Int32(part) } else { head = Int32(part) }
        tail = Int32(part)
        count += 1
    }

    mutating func prepend(_ part: Int, _ parts: inout SlotTable<RequestPart>) {
        parts[part].next = head
        head = Int32(part)
        if tail < 0 { tail = head }
        count += 1
    }

    mutating func popFirst(_ parts: inout SlotTable<RequestPart>) -> Int? {
        guard head >= 0 else { return nil }
        let part = Int(head)
        head = parts[part].next
        if head < 0 { tail = -1 }
        parts[part].next = -1
        count -= 1
        return part
    }
}

/// Reads in flight, in two alternating epochs: a slot that was given up is free for others only
/// when every read that may still be looking at it has ended.
struct ReadEpochs: BitwiseCopyable {
    private var counts: (Int, Int) = (0, 0)
    private(set) var current: UInt8 = 0

    mutating func enter() -> UInt8 {
        if current == 0 { counts.0 += 1 } else { counts.1 += 1 }
        return current
    }

    mutating func leave(_ epoch: UInt8) {
        if epoch == 0 { counts.0 -= 1 } else { counts.1 -= 1 }
        precondition(counts.0 >= 0 && counts.1 >= 0, "ReadEpochs: left more often than entered")
    }

    /// Reads of the epoch before the current one that have not ended.
    var previousCount: Int { current == 0 ? counts.1 : counts.0 }

    /// Begins a new epoch; the one before the current must be empty.
    mutating func advance() {
        precondition(previousCount == 0, "ReadEpochs: the previous epoch is not over")
        current ^= 1
    }
}
