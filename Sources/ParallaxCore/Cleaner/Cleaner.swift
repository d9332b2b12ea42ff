// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The state of the log cleaner of one stream.
///
/// ```
///   idle ---> scanning ---> writing ---> idle
///     victims   reads them    sorted survivors    their places are in the forwards;
///     chosen    piece by      into a cold extent  the victims are empty: the next
///               piece                             checkpoint drops them
/// ```
/// A few reads, or writes, are under way at a time. A move becomes durable with the next checkpoint, or with a
/// record in the log (`MoveLog`). A crash before that leaves the blocks where they were, since no slot
/// is given back earlier.
///
/// SAFETY: owns its buffers. Those of a piece are handed to the device while it is `reading`, those of a
/// cold chunk and its survivors while it is `writing`; neither is touched meanwhile.
struct Cleaner: ~Copyable {
    enum Phase: UInt8 { case idle, scanning, writing }

    /// A block that lives in a victim.
    struct Survivor: BitwiseCopyable {
        var place: BlockAddress
        var vdi: UInt64
        var firstBlock: UInt64
        var checksum: UInt32
        /// Level of a node; -1 for data.
        var level: Int32
        /// Block of the batch's memory.
        var buffer: Int32
    }

    /// How far the scan of a victim has come.
    struct Scan {
        var victim = ExtentNumber(0)
        /// The next block to look at.
        var block = 0
        var chunk = ChunkCursor()
        /// Live blocks whose chunk, or whose content, is damaged.
        var damaged = 0
    }

    /// Some blocks of a victim: being read, or waiting to be looked at.
    struct Piece: BitwiseCopyable {
        enum State: UInt8, BitwiseCopyable { case reading, read, unreadable }

        var victim: ExtentNumber
        var start: Int
        var count: Int
        var state = State.reading
        /// Of the read: the victim's slot must not be given away under it.
        var epoch: UInt8
    }

    /// Survivors on their way into a cold extent.
    struct ColdChunk: BitwiseCopyable {
        enum State: UInt8, BitwiseCopyable { case free, writing, written }

        var state = State.free
        var first = 0
        var count = 0
        /// Of its header.
        var place = BlockAddress(rawValue: 0)
        var attempts = 0
    }

    static let pieceBlocks = 256
    /// LIMIT: pieces, and cold chunks, at a time.
    static let pieceCount = 3
    static let coldChunkCount = 2
    /// What is said about a block takes 20 bytes of the chunk's header.
    static let blocksPerChunk = 192
    /// A full chunk has as many even if each of its blocks is of another VDI than the one before, which
    /// takes a record of its own.
    static let leastBlocksPerChunk =
        ChunkHeader.recordCapacity / (ChunkRecord.movedFixedBytes + MovedBlock.bytes)

    let batchBlocks: Int
    var phase = Phase.idle
    /// Victims that are still to be read, and how far the first is.
    var victims: [ExtentNumber] = []
    var nextToRead = 0
    /// By their numbers modulo `pieceCount`: from the oldest to the newest that was begun.
    var pieces: [Piece]
    var oldestPiece = 0
    var newestPiece = 0
    var readsInFlight = 0
    var scan = Scan()
    var survivors: [Survivor] = []
    /// Survivors that are in chunks, and that are in their new places.
    var stagedCount = 0
    var movedCount = 0
    var coldChunks = [ColdChunk](repeating: ColdChunk(), count: Cleaner.coldChunkCount)
    var writesInFlight = 0
    /// Places of record, forward and live-bit pages that were found in victims.
    var tablePlaces: Set<UInt64> = []

    /// The cold extents: numbers, and how far the newest is filled.
    var cold = CheckpointTables.Cold()
    var isColdOpen = false
    /// Cold extents that have nothing in them.
    var spares: [ExtentNumber] = []

    /// Why it works, and how much it may: see `Engine+CleanerPacing`.
    var pacing = CleanerPacing()
    /// Its own reads or writes failed: it rests until the next start.
    var isBroken = false

    private(set) var memory: UnsafeMutableRawPointer?
    private let pieceMemory = BlockBuffer(blocks: Cleaner.pieceBlocks * Cleaner.pieceCount)
    let chunkHeader = BlockBuffer()
    private let coldHeaders = BlockBuffer(blocks: Cleaner.coldChunkCount)
    let readBuffers: UnsafeMutablePointer<DataSegment>
    private let writeBuffers: UnsafeMutablePointer<DataSegment>

    init(batchBlocks: Int) {
        self.batchBlocks = max(batchBlocks, Self.blocksPerChunk)
        pieces = Array(
            repeating: Piece(victim: ExtentNumber(0), start: 0, count: 0, epoch: 0),
            count: Self.pieceCount)
        readBuffers = .allocate(capacity: Self.pieceCount)
        writeBuffers = .allocate(capacity: Self.coldChunkCount * (Self.blocksPerChunk + 1))
    }

    deinit {
        memory?.deallocate()
        readBuffers.deallocate()
        writeBuffers.deallocate()
    }

    /// The batch's memory, which is allocated when the cleaner first works.
    mutating func batchMemory() -> UnsafeMutableRawPointer {
        if let memory { return memory }
        let allocated = Memory.allocatePages(byteCount: batchBlocks * blockBytes)
        memory = allocated
        return allocated
    }

    func memory(ofPiece index: Int) -> UnsafeMutableRawPointer {
        pieceMemory.base + index * Self.pieceBlocks * blockBytes
    }

    func header(ofChunk index: Int) -> UnsafeMutableRawPointer {
        coldHeaders.base + index * blockBytes
    }

    func buffers(ofChunk index: Int) -> UnsafeMutablePointer<DataSegment> {
        writeBuffers + index * (Self.blocksPerChunk + 1)
    }

    var isBusy: Bool { readsInFlight > 0 || writesInFlight > 0 }
    var isQuiet: Bool { phase == .idle && !isBusy }
    var isBatchFull: Bool { survivors.count >= batchBlocks }
    var hasFreePiece: Bool { newestPiece - oldestPiece < Self.pieceCount }
    var hasPieces: Bool { newestPiece > oldestPiece }

    mutating func beginRound(_ chosen: [ExtentNumber]) {
        victims = chosen
        nextToRead = 0
        oldestPiece = 0
        newestPiece = 0
        scan = Scan()
        phase = .scanning
        forgetSurvivors()
    }

    mutating func forgetSurvivors() {
        survivors.removeAll(keepingCapacity: true)
        stagedCount = 0
        movedCount = 0
    }

    /// Blocks that the cold extents at hand can take, whatever they are, and however many batches they
    /// come in: what is promised here and does not fit would leave each victim of a round with some
    /// of its blocks, and give no slot back.
    func room(extentBlocks: Int) -> Int {
        let total =
            (isColdOpen ? payload(of: extentBlocks - cold.filled) : 0)
            + spares.count * payload(of: extentBlocks)
        // The last chunk of each batch may have but one block.
        return max(0, total - (total + batchBlocks - 1) / batchBlocks)
    }

    /// Payload that fits into so many blocks, chunk headers taken off.
    private func payload(of blocks: Int) -> Int {
        let perChunk = Self.leastBlocksPerChunk
        return max(0, blocks - (blocks + perChunk) / (perChunk + 1))
    }

    /// Up to where the open cold extent is on the device, between two chunks; nil: it is another.
    func writtenEnd(of extent: ExtentNumber) -> Int? {
        guard isColdOpen, extent == cold.newest else { return nil }
        return oldestColdChunk.map { coldChunks[$0].place.block } ?? cold.filled
    }

    /// The first that is not moved yet.
    var oldestColdChunk: Int? {
        coldChunks.indices.filter { coldChunks[$0].state != .free }
            .min { coldChunks[$0].first < coldChunks[$1].first }
    }

    /// What a checkpoint that begins now keeps of the cold extents: what is on its way counts only when
    /// it is moved. Counted before, its room would be lost to a crash, and with it perhaps the only
    /// room that there is.
    var coldAtFreeze: CheckpointTables.Cold {
        var frozen = cold
        if let end = writtenEnd(of: cold.newest) { frozen.filled = end }
        return frozen
    }

    /// The number of another one.
    mutating func addSpare() -> ExtentNumber {
        let number = cold.next
        cold.next = number.next
        spares.append(number)
        return number
    }

    /// In a replay: blocks of a cold extent are in use.
    mutating func noteFilled(_ extent: ExtentNumber, upTo block: Int) {
        if extent > cold.newest {
            cold.newest = extent
            cold.filled = block
        } else if extent == cold.newest {
            cold.filled = max(cold.filled, block)
        }
    }
}
