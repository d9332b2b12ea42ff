// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The state of the checkpoint under way, and the last durable one.
///
/// ```
///   idle -> nodes -> pages -> tables -> applying -> durable -> root -> rootDurable -> idle
///    |      level    records,  level     until all   until a   write    until a sync
///  freeze   by level  index    by level  is applied  sync      it       that began later
/// ```
/// The trees are frozen when it begins; the guests go on writing, on copies. The root is written
/// only when everything that it refers to is durable, over the older of the two.
struct Checkpoint: ~Copyable {
    enum Phase: UInt8 {
        case idle
        /// Writing frozen nodes, leaves first.
        case nodes
        /// Writing the record pages on which anything has changed, then the index blocks above.
        case pages
        /// Writing the tables, then the levels above them.
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
    /// A root that stood on a record page when the trees were frozen, before its node had a place.
    struct FrozenRoot {
        /// Where it stands in `pageContents`.
        var offset: Int
        var root: BlockReference
        var owner: RecordOwner
    }

    /// The pages to write, their contents as of the freeze, and the roots still to be put there.
    var pages: [UInt32] = []
    var pageContents: BlockBuffer?
    var frozenRoots: [FrozenRoot] = []
    /// Index blocks above those pages.
    var indexBlocks: [Int] = []
    var stagedPages = 0
    var stagedIndexBlocks = 0
    /// Of the moment of the freeze.
    var tableContents = CheckpointTables()
    /// Blocks of the tables, or of a level above them, and how many are in chunks.
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
}

/// The part of a checkpoint that is written as a whole each time: the extents, and where the record
/// pages are. As bytes:
///
/// ```
///  extents   u32 | per extent: number u64, slot u32, live blocks u32, last LSN u64
///  nodes     u64 live nodes
///  deletion  u64 what is being given back (0: nothing) | u8 level | u64 cursor
///  pages     u32 | index blocks u32 | reference of each index block
/// ```
/// They are cut into blocks; references to those blocks, 256 to a block, make the level above,
/// until one block is left. In these references the place of the extent number is taken by the
/// slot plus one: which extent is in which slot is not known before the tables are read. An index
/// block holds the references of 256 record pages.
struct CheckpointTables {
    static let extentBytes = 24
    private static let fixedBytes = 4 + 8 + 17 + 8

    struct Extent {
        var number: ExtentNumber
        var slot: ExtentSlot
        var live: UInt32
        var lastLSN: LogSequenceNumber
    }

    /// Where the deletion under way stands; `target` is the raw value of a `VersionReference`.
    struct Deletion: Equatable {
        var target: UInt64
        var level: Int
        var cursor: UInt64
    }

    var extents: [Extent] = []
    var liveNodes = 0
    var deletion: Deletion?
    var pageCount = 0
    var index: [BlockReference] = []

    var byteCount: Int { Self.byteCount(extents: extents.count, indexBlocks: index.count) }

    private static func byteCount(extents: Int, indexBlocks: Int) -> Int {
        fixedBytes + extents * extentBytes + indexBlocks * 16
    }

    /// Upper bound of the blocks of the tables and of the levels above them.
    static func blockCount(extents: Int, indexBlocks: Int) -> Int {
        let blocks = byteCount(extents: extents, indexBlocks: indexBlocks) / blockBytes + 1
        return blocks + blocks / 128 + 4
    }

    func encode(into buffer: borrowing BlockBuffer) {
        var writer = ByteWriter(buffer.base, capacity: buffer.count)
        writer.put(UInt32(extents.count))
        for extent in extents {
            writer.put(extent.number.rawValue)
            writer.put(extent.slot.rawValue)
            writer.put(extent.live)
            writer.put(extent.lastLSN.rawValue)
        }
        writer.put(UInt64(liveNodes))
        writer.put(deletion?.target ?? 0)
        writer.put(UInt8(deletion?.level ?? 0))
        writer.put(deletion?.cursor ?? 0)
        writer.put(UInt32(pageCount))
        writer.put(UInt32(index.count))
        for reference in index { writer.put(reference: reference) }
    }

    /// nil when the bytes make no sense for a store with `slotCount` slots.
    static func decode(_ base: UnsafeRawPointer, count: Int, superblock: Superblock)
        -> CheckpointTables?
    {
        var reader = ByteReader(base, count: count)
        var tables = CheckpointTables()
        guard let extents = reader.take(UInt32.self), extents <= superblock.slotCount else {
            return nil
        }
        for _ in 0..<extents {
            guard let number = reader.take(UInt64.self), number > 0, number < 1 << 40,
                let slot = reader.take(UInt32.self), slot < superblock.slotCount,
                let live = reader.take(UInt32.self), Int(live) <= superblock.extentBlocks,
                let last = reader.take(UInt64.self)
            else { return nil }
            tables.extents.append(
                Extent(
                    number: ExtentNumber(number), slot: ExtentSlot(slot), live: live,
                    lastLSN: LogSequenceNumber(last)))
        }
        guard let nodes = reader.take(UInt64.self), nodes < 1 << 40,
            let target = reader.take(UInt64.self), let level = reader.take(UInt8.self),
            level < Limits.radixLevels, let cursor = reader.take(UInt64.self),
            let pages = reader.take(UInt32.self), let indexBlocks = reader.take(UInt32.self),
            Int(indexBlocks) == (Int(pages) + radixFanout - 1) / radixFanout
        else { return nil }
        tables.liveNodes = Int(nodes)
        if target != 0 {
            tables.deletion = Deletion(target: target, level: Int(level), cursor: cursor)
        }
        tables.pageCount = Int(pages)
        for _ in 0..<indexBlocks {
            guard let reference = reader.takeReference(), reference.address.flags == 0 else {
                return nil
            }
            tables.index.append(reference)
        }
        return tables
    }
}
