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
/// At most one read or write is under way. Nothing of a move is logged: it becomes durable with the
/// next checkpoint, in which the forwards, the live bits and the trees are those of one moment. A
/// crash before that leaves the blocks where they were, since no slot is given back earlier.
///
/// SAFETY: owns its buffers, which are handed to the device only while `isBusy`.
struct Cleaner: ~Copyable {
    enum Phase: UInt8 { case idle, scanning, writing }

    /// A block that lives in a victim.
    struct Survivor: BitwiseCopyable {
        var place: BlockAddress
        /// By which trees may know it, if not by its place.
        var name: BlockAddress
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
        /// Which blocks of it are in the piece buffer.
        var pieceStart = 0
        var pieceEnd = 0
        /// Payload blocks of the present chunk that are still to come, and what it says of them.
        var payloadLeft = 0
        var records: ChunkRecordReader?
        var record: ChunkRecord?
        var indexInRecord = 0
        /// Live blocks whose chunk, or whose content, is damaged.
        var damaged = 0
        /// It was the round's last.
        var isOver = false
    }

    static let pieceBlocks = 256
    /// What is said about a block takes 20 bytes of the chunk's header.
    static let blocksPerChunk = 192

    let batchBlocks: Int
    var phase = Phase.idle
    /// A read or write is under way.
    var isBusy = false
    /// The epoch of the read under way, or 2: its victim's slot must not be given away under it.
    var readEpoch: UInt8 = 2
    var victims: [ExtentNumber] = []
    var scan = Scan()
    var survivors: [Survivor] = []
    /// Survivors that are in their new places, and that are in the chunk being written.
    var movedCount = 0
    var chunkCount = 0
    var attempts = 0
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
    let piece = BlockBuffer(blocks: Cleaner.pieceBlocks)
    let chunkHeader = BlockBuffer()
    let coldHeader = BlockBuffer()
    let buffers: UnsafeMutablePointer<DataSegment>

    init(batchBlocks: Int) {
        self.batchBlocks = max(batchBlocks, Self.blocksPerChunk)
        buffers = .allocate(capacity: Self.blocksPerChunk + 1)
    }

    deinit {
        memory?.deallocate()
        buffers.deallocate()
    }

    /// The batch's memory, which is allocated when the cleaner first works.
    mutating func batchMemory() -> UnsafeMutableRawPointer {
        if let memory { return memory }
        let allocated = Memory.allocatePages(byteCount: batchBlocks * blockBytes)
        memory = allocated
        return allocated
    }

    var isQuiet: Bool { phase == .idle && !isBusy }
    var isBatchFull: Bool { survivors.count >= batchBlocks }

    /// Blocks that the cold extents at hand can take.
    func room(extentBlocks: Int) -> Int {
        (isColdOpen ? payload(of: extentBlocks - cold.filled) : 0)
            + spares.count * payload(of: extentBlocks)
    }

    /// Payload that fits into so many blocks, chunk headers taken off.
    private func payload(of blocks: Int) -> Int {
        let perChunk = min(batchBlocks, Self.blocksPerChunk)
        return max(0, blocks - (blocks + perChunk) / (perChunk + 1))
    }

    mutating func addSpare(slot: ExtentSlot, extents: inout ExtentTable) {
        let number = cold.next
        cold.next = number.next
        extents.insert(number, slot: slot, state: .leased)
        spares.append(number)
    }

    /// The state as a checkpoint has it. False: it makes no sense.
    mutating func load(_ state: CheckpointTables.Cold, extents: inout ExtentTable) -> Bool {
        cold = state
        for index in 0..<extents.count where extents[index].number.isCold {
            let number = extents[index].number
            guard number < cold.next else { return false }
            if number > cold.newest {
                guard extents[index].live == 0 else { return false }
                extents.setState(number, .leased)
                spares.append(number)
            } else if number == cold.newest, cold.filled < extents.extentBlocks {
                extents.setState(number, .open)
                isColdOpen = true
            }
        }
        spares.sort()
        return true
    }
}
