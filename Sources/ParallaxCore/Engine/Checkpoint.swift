// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The state of the checkpoint under way, and the last durable one.
///
/// ```
///   idle -> nodes -> tables -> applying -> durable -> root -> rootDurable -> idle
///    |      level     level      until all   until a   write    until a sync
///  freeze   by level  by level   is applied  sync      it       that began later
/// ```
/// The trees are frozen when it begins; the guests go on writing, on copies. The root is written
/// only when everything that it refers to is durable, over the older of the two.
struct Checkpoint: ~Copyable {
    enum Phase: UInt8 {
        case idle
        /// Writing frozen nodes, leaves first.
        case nodes
        /// Writing the tables, then the index blocks above them.
        case tables
        /// Waiting until its last chunk is applied.
        case applying
        /// Waiting until that chunk is durable.
        case durable
        /// The root is being written.
        case root
        /// Waiting until the root is durable.
        case rootDurable
    }

    var phase = Phase.idle
    /// The last durable checkpoint.
    var root: CheckpointRoot
    /// The one being written.
    var next: CheckpointRoot
    var level = 0
    var records: [VDIRecord] = []
    /// Blocks of the tables, or of the index level above them, and how many are in chunks.
    var tables: BlockBuffer?
    var tableBlockCount = 0
    var stagedTableBlocks = 0
    var references: [BlockReference] = []
    /// Extents that are needed no more once this checkpoint is durable.
    var droppable: [ExtentNumber] = []
    var lastLSN = LogSequenceNumber(0)
    /// Number of the sync after which the root is durable.
    var rootSync: UInt64 = 0
    let rootBlock = BlockBuffer()
    let rootBuffer: UnsafeMutablePointer<DataSegment>
    /// Somebody wants one soon.
    var isWanted = false
    /// Changes wait for one: there are no frames for them, or no space.
    var isNeeded = false
    var isAwaitingRootWrite = false
    var lastStart: UInt64 = 0

    init(root: CheckpointRoot) {
        self.root = root
        next = root
        rootBuffer = .allocate(capacity: 1)
        rootBuffer.initialize(to: DataSegment(base: rootBlock.base, count: blockBytes))
    }

    deinit { rootBuffer.deallocate() }

    var wantsSync: Bool { phase == .durable || phase == .rootDurable }

    /// Upper bound of the blocks of the tables and of the index above them.
    func tableBlocks(extents: Int, vdis: Int) -> Int {
        let bytes =
            8 + extents * CheckpointTables.extentBytes
            + vdis * (VDIRecord.fixedBytes + Limits.vdiNameBytes.upperBound)
        let blocks = bytes / blockBytes + 1
        return blocks + blocks / 128 + 4
    }
}

/// The tables of a checkpoint as bytes.
///
/// ```
///  extents  u32 | per extent: number u64, slot u32, live blocks u32, last LSN u64
///  VDIs     u32 | per VDI: VDIRecord
/// ```
/// They are cut into blocks; references to those blocks, 256 to a block, make the level above,
/// until one block is left. In these references the place of the extent number is taken by the
/// slot plus one: which extent is in which slot is not known before the tables are read.
enum CheckpointTables {
    static let extentBytes = 24

    static func byteCount(extents: [ExtentTable.Extent], records: [VDIRecord]) -> Int {
        8 + extents.count * extentBytes + records.reduce(0) { $0 + $1.encodedBytes }
    }

    static func encode(
        extents: [ExtentTable.Extent], records: [VDIRecord], into buffer: borrowing BlockBuffer
    ) {
        var writer = ByteWriter(buffer.base, capacity: buffer.count)
        writer.put(UInt32(extents.count))
        for extent in extents {
            writer.put(extent.number.rawValue)
            writer.put(extent.slot.rawValue)
            writer.put(extent.checkpointLive)
            writer.put(extent.lastLSN.rawValue)
        }
        writer.put(UInt32(records.count))
        for record in records { record.encode(to: &writer) }
    }

    struct Decoded {
        var extents: [(number: ExtentNumber, slot: ExtentSlot, live: UInt32, last: UInt64)] = []
        var records: [VDIRecord] = []
    }

    /// nil when the bytes make no sense for a store with `slotCount` slots.
    static func decode(_ base: UnsafeRawPointer, count: Int, superblock: Superblock) -> Decoded? {
        var reader = ByteReader(base, count: count)
        var decoded = Decoded()
        guard let extents = reader.take(UInt32.self), extents <= superblock.slotCount else {
            return nil
        }
        for _ in 0..<extents {
            guard let number = reader.take(UInt64.self), number > 0, number < 1 << 40,
                let slot = reader.take(UInt32.self), slot < superblock.slotCount,
                let live = reader.take(UInt32.self), Int(live) <= superblock.extentBlocks,
                let last = reader.take(UInt64.self)
            else { return nil }
            decoded.extents.append((ExtentNumber(number), ExtentSlot(slot), live, last))
        }
        guard let records = reader.take(UInt32.self) else { return nil }
        for _ in 0..<records {
            guard let record = VDIRecord.decode(from: &reader) else { return nil }
            decoded.records.append(record)
        }
        return decoded
    }
}
