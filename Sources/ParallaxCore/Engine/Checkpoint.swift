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
        /// Writing what has changed of the record pages, then the index blocks above, the forward
        /// pages, and the pages of live bits.
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
    /// The forward pages to write: their positions among all of them as of the freeze.
    var frozenForwards: [Int] = []
    var stagedForwards = 0
    /// Pages of live bits whose old places have been given back; that are in chunks.
    var forgottenLivePages = 0
    var stagedLivePages = 0
    /// Of the moment of the freeze.
    var tableContents = CheckpointTables()
    /// Blocks of the tables, or of a level above them, and how many are in chunks.
    var tables: BlockBuffer?
    var tableBlockCount = 0
    var stagedTableBlocks = 0
    var references: [BlockReference] = []
    /// Extents that are needed no more once this checkpoint is durable.
    var droppable: [ExtentNumber] = []
    /// Slots of leases that this checkpoint does without.
    var returning: [ExtentSlot] = []
    var lastLSN = LogSequenceNumber(0)
    /// Number of the sync after which the root is durable.
    var rootSync: UInt64 = 0
    let rootBlock = BlockBuffer()
    let rootBuffer: UnsafeMutablePointer<DataSegment>
    /// Somebody wants one soon.
    var isWanted = false
    /// Changes wait for one: there are no frames for them, or no space.
    var isNeeded = false
    /// Places of the root that are still to be written, and that have been.
    var rootWritesToSend = 0
    var rootWritesDone = 0
    var lastStart: UInt64 = 0

    init(root: CheckpointRoot) {
        self.root = root
        next = root
        rootBuffer = .allocate(capacity: 1)
        rootBuffer.initialize(to: DataSegment(base: rootBlock.base, count: blockBytes))
    }

    deinit { rootBuffer.deallocate() }

    /// Copies one block of what was frozen, or is to be written, to its place in a chunk.
    static func copyBlock(
        _ index: Int, of contents: borrowing BlockBuffer?, to place: UnsafeMutableRawPointer
    ) {
        switch contents {
        case .some(let contents):
            Memory.copy(
                to: place, from: contents.base + index * blockBytes, count: blockBytes)
        case .none: preconditionFailure("Checkpoint: nothing to write")
        }
    }
}

/// The part of a checkpoint that is written as a whole each time: the extents, and where the record
/// pages are. As bytes:
///
/// ```
///  extents   u32 | per extent: number u64, slot u32, live blocks u32, last LSN u64
///  nodes     u64 live nodes
///  deletion  u64 what is being given back (0: nothing) | u8 level | u64 cursor
///  cold      next number u64 | the newest extent in use u64 (0: none), blocks filled u32
///  live bits u32 pages | per page: number u32, reference
///  forwards  u32 pages | per page: depth u8, prefix u32, reference
///  pages     u32 | index blocks u32 | reference of each index block
/// ```
/// They are cut into blocks; references to those blocks, 256 to a block, make the level above,
/// until one block is left. In these references the place of the extent number is taken by the
/// slot plus one: which extent is in which slot is not known before the tables are read. An index
/// block holds the references of 256 record pages.
struct CheckpointTables {
    static let extentBytes = 24
    static let livePageBytes = 20
    static let forwardPageBytes = 21
    private static let fixedBytes = 4 + 8 + 17 + 8 + 20 + 4 + 4

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
    /// The cleaner's own log. Cold extents behind `newest` have nothing in them yet.
    struct Cold: Equatable {
        /// The number of the next extent that it gets.
        var next = ExtentNumber.firstCold
        /// The newest that it has begun to fill, and up to which block; 0: none.
        var newest = ExtentNumber(0)
        var filled = 0
    }

    /// A page of the table of forwards. A hole: it is empty.
    struct ForwardPage {
        var depth: Int
        var prefix: UInt64
        var reference: BlockReference
    }

    var cold = Cold()
    var livePages: [(page: Int, reference: BlockReference)] = []
    var forwardPages: [ForwardPage] = []
    var pageCount = 0
    var index: [BlockReference] = []

    var byteCount: Int {
        Self.byteCount(
            extents: extents.count, indexBlocks: index.count, livePages: livePages.count,
            forwardPages: forwardPages.count)
    }

    private static func byteCount(
        extents: Int, indexBlocks: Int, livePages: Int, forwardPages: Int
    ) -> Int {
        fixedBytes + extents * extentBytes + indexBlocks * 16 + livePages * livePageBytes
            + forwardPages * forwardPageBytes
    }

    /// Upper bound of the blocks of the tables and of the levels above them.
    static func blockCount(
        extents: Int, indexBlocks: Int, livePages: Int, forwardPages: Int
    ) -> Int {
        let bytes = byteCount(
            extents: extents, indexBlocks: indexBlocks, livePages: livePages,
            forwardPages: forwardPages)
        let blocks = bytes / blockBytes + 1
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
        writer.put(cold.next.rawValue)
        writer.put(cold.newest.rawValue)
        writer.put(UInt32(cold.filled))
        writer.put(UInt32(livePages.count))
        for (page, reference) in livePages {
            writer.put(UInt32(page))
            writer.put(reference: reference)
        }
        writer.put(UInt32(forwardPages.count))
        for page in forwardPages {
            writer.put(UInt8(page.depth))
            writer.put(UInt32(page.prefix))
            writer.put(reference: page.reference)
        }
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
                let last = reader.take(UInt64.self), last < Limits.logSequenceNumbers
            else { return nil }
            tables.extents.append(
                Extent(
                    number: ExtentNumber(number), slot: ExtentSlot(slot), live: live,
                    lastLSN: LogSequenceNumber(last)))
        }
        guard let nodes = reader.take(UInt64.self), nodes < 1 << 40,
            let target = reader.take(UInt64.self), let level = reader.take(UInt8.self),
            level < Limits.radixLevels, let cursor = reader.take(UInt64.self),
            tables.decodeCold(&reader, superblock), tables.decodePages(&reader),
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

    private mutating func decodeCold(_ reader: inout ByteReader, _ superblock: Superblock) -> Bool {
        guard let next = reader.take(UInt64.self), next >> 40 == 0, ExtentNumber(next).isCold,
            let newest = reader.take(UInt64.self), newest < next,
            newest == 0 || ExtentNumber(newest).isCold, let filled = reader.take(UInt32.self),
            Int(filled) <= superblock.extentBlocks
        else { return false }
        cold = Cold(
            next: ExtentNumber(next), newest: ExtentNumber(newest), filled: Int(filled))
        return true
    }

    private mutating func decodePages(_ reader: inout ByteReader) -> Bool {
        guard let livePages = reader.take(UInt32.self) else { return false }
        for _ in 0..<livePages {
            guard let page = reader.take(UInt32.self), let reference = reader.takeReference(),
                reference.address.flags == 0
            else { return false }
            self.livePages.append((Int(page), reference))
        }
        guard let forwardPages = reader.take(UInt32.self) else { return false }
        for _ in 0..<forwardPages {
            guard let depth = reader.take(UInt8.self), let prefix = reader.take(UInt32.self),
                let reference = reader.takeReference(), reference.address.flags == 0
            else { return false }
            self.forwardPages.append(
                ForwardPage(depth: Int(depth), prefix: UInt64(prefix), reference: reference))
        }
        return true
    }
}
