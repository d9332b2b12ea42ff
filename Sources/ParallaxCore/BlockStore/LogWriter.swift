// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The end of a stream's log: chunks that are being built, written and waiting to be applied.
///
/// ```
///   extent 17                                         extent 18 (leased, announced)
///  +-------+-------+-------+-------+-------+---------+------------------
///  | chunk | chunk | chunk | chunk |       | reserve |
///  +-------+-------+-------+-------+-------+---------+------------------
///   applied  applied writing building  ^ head
/// ```
/// Owned by the shard thread.
/// I1 chunks are written at the head, in the order of their LSNs, at most `chunkCount - 1` at once.
/// I2 an extent is entered only after a chunk in front of it has announced it with a lease record:
///    so a replay finds every extent.
/// I3 the last block of each extent is kept for a chunk that carries nothing but leases.
struct LogWriter: ~Copyable {
    struct Lease: BitwiseCopyable {
        var extent: ExtentNumber
        var slot: ExtentSlot
        var isAnnounced: Bool
        /// The chunk that announced it.
        var announcedLSN = LogSequenceNumber(0)
    }

    let chunkCount: Int
    let chunks: UnsafeMutablePointer<Chunk>
    let extentBlocks: Int
    /// Chunk buffers that are being written or wait to be applied, oldest first.
    var inFlight: FixedRing<UInt32>
    private var freeChunks: FixedRing<UInt32>
    /// The chunk being built, or -1.
    var building = -1
    var nextLSN: LogSequenceNumber
    var extent: ExtentNumber
    /// Block in `extent` where the next chunk goes.
    var head: Int
    var leases: FixedRing<Lease>
    var nextExtent: ExtentNumber

    init(
        chunkCount: Int, extentBlocks: Int, nextLSN: LogSequenceNumber, extent: ExtentNumber,
        head: Int, nextExtent: ExtentNumber
    ) {
        self.chunkCount = chunkCount
        self.extentBlocks = extentBlocks
        self.nextLSN = nextLSN
        self.extent = extent
        self.head = head
        self.nextExtent = nextExtent
        chunks = .allocate(capacity: chunkCount)
        inFlight = FixedRing(minimumCapacity: chunkCount)
        freeChunks = FixedRing(minimumCapacity: chunkCount)
        leases = FixedRing(minimumCapacity: 64)
        for index in 0..<chunkCount {
            (chunks + index).initialize(to: Chunk())
            freeChunks.append(UInt32(index))
        }
    }

    deinit {
        for index in 0..<chunkCount { chunks[index].deallocate() }
        chunks.deallocate()
    }

    /// There may be as many as the reserves take, which grow with the tables: the ring does, too.
    mutating func append(lease: Lease) {
        if leases.isFull {
            var larger = FixedRing<Lease>(minimumCapacity: 2 * leases.capacity)
            while let lease = leases.popFirst() { larger.append(lease) }
            leases = larger
        }
        leases.append(lease)
    }

    /// Blocks that the log can still take: the rest of this extent, and the leased ones.
    var availableBlocks: Int {
        extentBlocks - head + leases.count * extentBlocks
            - (building >= 0 ? chunks[building].payloadBlocks + 1 : 0)
    }

    var inFlightCount: Int { inFlight.count }

    /// Whether chunks behind which the log has gone into another extent are not applied yet, so that
    /// nobody knows what is dead in theirs.
    var hasUnappliedExtents: Bool {
        !inFlight.isEmpty && chunks[Int(inFlight[0])].extent != extent
    }

    /// Whether nothing is being built, written or applied. A chunk without records was opened for a write
    /// that has failed, and waits for another.
    var isQuiet: Bool {
        inFlight.isEmpty && (building < 0 || chunks[building].recordBytes == 0)
    }

    enum OpenResult { case open, noBuffer, noExtent }

    /// Smallest payload worth a chunk at the end of an extent when another extent is at hand.
    static let smallestTail = 8

    /// Blocks that may be lost at the end of an extent: a tail that is too small, with its header, and
    /// I3's reserve.
    static let lostPerExtent = smallestTail + 4

    /// Makes sure that a chunk is being built. `noExtent`: the log cannot go on before an extent
    /// is leased.
    mutating func openChunk(extents: inout ExtentTable) -> OpenResult {
        if building >= 0 { return .open }
        // The block behind the header, the payload, and I3's reserve.
        var room = extentBlocks - head - 2
        if room < 1 || (room < Self.smallestTail && !leases.isEmpty) {
            guard !leases.isEmpty else { return .noExtent }
            if leases[0].isAnnounced {
                enterNextExtent(&extents)
                room = extentBlocks - 2
            } else {
                // Only the leases go out; the next call enters the extent.
                room = 0
            }
        }
        guard let index = freeChunks.popFirst() else { return .noBuffer }
        start(Int(index), payloadLimit: min(room, Limits.chunkPayloadBlocks))
        return .open
    }

    private mutating func start(_ index: Int, payloadLimit: Int) {
        building = index
        chunks[index].state = .building
        chunks[index].operationCount = 0
        chunks[index].appliedCount = 0
        chunks[index].payloadBlocks = 0
        chunks[index].recordBytes = 0
        chunks[index].writeAttempts = 0
        chunks[index].payloadLimit = payloadLimit
        chunks[index].extent = extent
        chunks[index].block = head
        chunks[index].lsn = nextLSN
        announceLeases()
    }

    private mutating func enterNextExtent(_ extents: inout ExtentTable) {
        guard let lease = leases.popFirst() else { return }
        extents.setState(extent, .sealed)
        // Perhaps nothing has ever lived in it.
        extents.noteEmptied(extent)
        extents.setState(lease.extent, .open)
        extent = lease.extent
        head = 0
    }

    /// Puts the leases that no chunk has announced yet into the chunk being built.
    mutating func announceLeases() {
        guard building >= 0 else { return }
        for index in 0..<leases.count where !leases[index].isAnnounced {
            guard chunks[building].recordRoom >= ChunkRecord.leaseBytes else { return }
            var writer = chunks[building].recordWriter()
            writer.put(ChunkRecord.Kind.lease)
            writer.put(UInt8(0))
            writer.put(UInt16(0))
            writer.put(leases[index].slot.rawValue)
            writer.put(leases[index].extent.rawValue)
            chunks[building].recordBytes += ChunkRecord.leaseBytes
            leases[index].isAnnounced = true
            leases[index].announcedLSN = chunks[building].lsn
        }
    }

    /// An extent that the allocator has given to this stream.
    mutating func addLease(slot: ExtentSlot, extents: inout ExtentTable) {
        let number = nextExtent
        nextExtent = number.next
        extents.insert(number, slot: slot, state: .leased)
        append(lease: Lease(extent: number, slot: slot, isAnnounced: false))
    }

    /// Gives back the lease that would be used last, if no replay from `replayLSN` on would find
    /// it in the log. Its number, under which nothing was ever written, is given to the next.
    mutating func returnLastLease(replayLSN: LogSequenceNumber) -> ExtentNumber? {
        guard !leases.isEmpty else { return nil }
        let last = leases[leases.count - 1]
        guard !last.isAnnounced || last.announcedLSN < replayLSN, last.extent.next == nextExtent
        else { return nil }
        leases.dropLast()
        nextExtent = last.extent
        return last.extent
    }

    /// Finishes the chunk being built and moves the head behind it. Returns its buffer.
    mutating func seal(
        superblock: borrowing Superblock, stream: Int, durableLSN: LogSequenceNumber,
        extents: inout ExtentTable
    ) -> Int {
        let index = building
        precondition(index >= 0, "LogWriter: nothing to seal")
        let chunk = chunks[index]
        let recordsEnd = ChunkHeader.recordsOffset + chunk.recordBytes
        Memory.zero(chunk.base + recordsEnd, count: blockBytes - recordsEnd)
        ChunkHeader(
            uuid: superblock.uuid, stream: stream, payloadBlocks: chunk.payloadBlocks,
            lsn: chunk.lsn, generation: superblock.generation, extent: chunk.extent,
            block: chunk.block, recordBytes: chunk.recordBytes, durableLSN: durableLSN
        ).encode(to: chunk.base)
        chunk.writeBuffer.initialize(
            to: DataSegment(base: chunk.base, count: (1 + chunk.payloadBlocks) * blockBytes))
        extents.noteChunk(chunk.extent, lsn: chunk.lsn)
        chunks[index].state = .writing
        head += 1 + chunk.payloadBlocks
        precondition(head <= extentBlocks, "LogWriter: a chunk ran over its extent")
        nextLSN = nextLSN.next
        building = -1
        inFlight.append(UInt32(index))
        return index
    }

    /// The oldest chunk has been applied: its buffer is free.
    mutating func retireOldest() {
        guard let index = inFlight.popFirst() else {
            preconditionFailure("LogWriter: nothing to retire")
        }
        let chunk = Int(index)
        for block in 0..<chunks[chunk].payloadBlocks { chunks[chunk].nodeFrames[block] = -1 }
        chunks[chunk].state = .free
        freeChunks.append(index)
    }

    /// Where a replay begins that must see everything not yet applied.
    func replayStart() -> (lsn: LogSequenceNumber, extent: ExtentNumber, block: Int) {
        let oldest = inFlight.isEmpty ? building : Int(inFlight[0])
        guard oldest >= 0 else { return (nextLSN, extent, head) }
        return (chunks[oldest].lsn, chunks[oldest].extent, chunks[oldest].block)
    }
}
