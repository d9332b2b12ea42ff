// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What one stream knows of its extents: which slot each is in and which of its blocks live.
///
/// Owned by the shard thread. An extent belongs to one stream for all its life, and only that
/// stream's trees refer into it; so nothing here is shared.
///
/// I1 a number is in the table at most once, and so is a slot.
/// I2 `live` is the number of blocks of the extent to which the current trees refer, counting
///    nodes and pages that are in the store; the tables of a checkpoint are not counted. `LiveBits`
///    says which they are.
/// I3 an extent is dropped only when it is sealed, nothing lives in it, and all of its chunks are
///    older than the log that the newest durable checkpoint replays.
/// I4 one is dropped between checkpoints only if a replay finds it empty, too, and reads nothing in
///    it: not before `heldUntil`.
struct ExtentTable: ~Copyable {
    struct Extent: BitwiseCopyable {
        var number: ExtentNumber
        var slot: ExtentSlot
        var state: State
        /// A block of it is damaged: the cleaner leaves it where it is.
        var isPinned = false
        /// It stands in `emptied`.
        var isListed = false
        var live: UInt32
        /// Live blocks as of the checkpoint that is being written.
        var checkpointLive: UInt32
        /// LSN of the newest chunk in it; of a cold extent, the newest when it was sealed.
        var lastLSN: LogSequenceNumber
        /// The checkpoint without which a replay may need something in the extent: its number.
        var heldUntil: UInt64 = 0
        /// The number of the last batch of the cleaner's moves out of it.
        var lastMove: UInt64 = 0
        /// The cleaner has gone through it: what is left are tables, which that checkpoint writes anew.
        var cleanedUntil: UInt64 = 0
        var decay = Decay()
        var bits: LiveBits
    }

    enum State: UInt8, BitwiseCopyable {
        /// Announced in the log, to be filled later.
        case leased = 0
        /// The log is being written here, or what the cleaner keeps.
        case open = 1
        /// Full.
        case sealed = 2
    }

    private var entries: UnsafeMutablePointer<Extent>
    private var indexOf: IntegerMap
    /// Index of the extent in a slot, or -1.
    private var indexOfSlot: [Int32]
    private(set) var count = 0
    private(set) var capacity: Int
    let extentBlocks: Int
    private(set) var liveTotal = 0
    /// I2 does not hold: a block died that did not live, or came to life twice.
    var isContradicted = false
    /// The number of the next checkpoint that begins.
    var nextCheckpoint: UInt64 = 0
    /// The checkpoint that all extents are held for, at least.
    private(set) var allHeldUntil: UInt64 = 0
    /// Extents that have become empty, each once; some of them may be gone.
    private(set) var emptied: [ExtentNumber] = []
    /// Goes up with whatever may let one of them be dropped, but for checkpoints and records of moves.
    private(set) var emptiedChanges: UInt64 = 0
    private var pool: LiveBitsPool
    var livePages: LivePages

    init(slotCount: Int, extentBlocks: Int) {
        capacity = slotCount
        self.extentBlocks = extentBlocks
        entries = .allocate(capacity: max(slotCount, 1))
        indexOf = IntegerMap(capacity: slotCount)
        indexOfSlot = Array(repeating: -1, count: slotCount)
        pool = LiveBitsPool(blocks: extentBlocks)
        livePages = LivePages(slotCount: slotCount, extentBlocks: extentBlocks)
    }

    deinit {
        for index in 0..<count { entries[index].bits.deallocate() }
        entries.deallocate()
    }

    /// The extents in no particular order.
    subscript(index: Int) -> Extent {
        precondition(index >= 0 && index < count, "ExtentTable: index out of range")
        return entries[index]
    }

    func find(_ number: ExtentNumber) -> Extent? {
        indexOf.find(number.rawValue).map { entries[Int($0)] }
    }

    func slot(of number: ExtentNumber) -> ExtentSlot? {
        indexOf.find(number.rawValue).map { entries[Int($0)].slot }
    }

    /// The slot in which `count` blocks from `place` on are; nil: there is no such place, as what was
    /// read from the store may name any.
    func slot(of place: BlockAddress, count: Int = 1) -> ExtentSlot? {
        find(place, count: count).map { entries[$0].slot }
    }

    func contains(_ number: ExtentNumber) -> Bool { indexOf.find(number.rawValue) != nil }

    func contains(_ place: BlockAddress) -> Bool { find(place) != nil }

    /// The index of the extent in which `count` blocks from `place` on are; nil: there is none.
    private func find(_ place: BlockAddress, count: Int = 1) -> Int? {
        guard place.block + count <= extentBlocks else { return nil }
        return indexOf.find(place.extent.rawValue).map(Int.init)
    }

    func isFree(_ slot: ExtentSlot) -> Bool { indexOfSlot[Int(slot.rawValue)] < 0 }

    var hasRoom: Bool { count < capacity }

    mutating func insert(
        _ number: ExtentNumber, slot: ExtentSlot, state: State, live: UInt32 = 0,
        lastLSN: LogSequenceNumber = LogSequenceNumber(0)
    ) {
        precondition(count < capacity, "ExtentTable: more extents than slots")
        indexOf.insert(number.rawValue, UInt32(count))
        indexOfSlot[Int(slot.rawValue)] = Int32(count)
        var bits = LiveBits(words: pool.take())
        if livePages.isFrozen { bits.frozen = pool.take() }
        entries[count] = Extent(
            number: number, slot: slot, state: state, live: live, checkpointLive: 0,
            lastLSN: lastLSN, bits: bits)
        liveTotal += Int(live)
        count += 1
        livePages.touch(slot: slot)
    }

    mutating func setState(_ number: ExtentNumber, _ state: State) {
        entries[index(number)].state = state
        emptiedChanges += 1
    }

    mutating func noteChunk(_ number: ExtentNumber, lsn: LogSequenceNumber) {
        entries[index(number)].lastLSN = lsn
    }

    /// Blocks that die in the extent for each block of log.
    mutating func decayRate(at index: Int, clock: UInt64) -> Float {
        entries[index].decay.update(live: entries[index].live, clock: clock)
    }

    /// What lives in the extent still will have left it with the next checkpoint.
    mutating func noteCleaned(_ number: ExtentNumber) {
        entries[index(number)].cleanedUntil = nextCheckpoint
    }

    /// Blocks of the extent are in a batch of moves.
    mutating func noteMove(_ number: ExtentNumber, batch: UInt64) {
        entries[index(number)].lastMove = batch
    }

    mutating func pin(_ number: ExtentNumber) { entries[index(number)].isPinned = true }

    /// Drops an extent that the durable checkpoint does not need.
    mutating func remove(_ number: ExtentNumber) {
        let hole = index(number)
        indexOf.remove(number.rawValue)
        indexOfSlot[Int(entries[hole].slot.rawValue)] = -1
        count -= 1
        liveTotal -= Int(entries[hole].live)
        livePages.touch(slot: entries[hole].slot)
        pool.giveBack(entries[hole].bits.words)
        if let frozen = entries[hole].bits.frozen { pool.giveBack(frozen) }
        guard hole != count else { return }
        entries[hole] = entries[count]
        indexOf.remove(entries[hole].number.rawValue)
        indexOf.insert(entries[hole].number.rawValue, UInt32(hole))
        indexOfSlot[Int(entries[hole].slot.rawValue)] = Int32(hole)
    }

    private func index(_ number: ExtentNumber) -> Int {
        guard let found = indexOf.find(number.rawValue) else {
            preconditionFailure("ExtentTable: an address names an extent that is not there")
        }
        return Int(found)
    }
}

/// Which blocks live. Addresses are places, not names: `RadixForest.place` comes first. They were read
/// from the store, so each is looked up before its bit is touched.
extension ExtentTable {
    func isLive(_ place: BlockAddress) -> Bool {
        find(place).map { entries[$0].bits[place.block] } ?? false
    }

    mutating func addLive(_ place: BlockAddress, count: Int = 1) {
        guard let index = find(place, count: count) else { return isContradicted = true }
        thaw(index)
        for block in place.block..<place.block + count {
            if entries[index].bits[block] { isContradicted = true }
            entries[index].bits.set(block)
        }
        entries[index].live += UInt32(count)
        liveTotal += count
        livePages.touch(slot: entries[index].slot, block: place.block, count: count)
    }

    /// `isReplayed`: a replay finds in the log that the block died or was moved, and does not read
    /// it. Everything else is needed until the next checkpoint.
    mutating func removeLive(_ place: BlockAddress, isReplayed: Bool = false) {
        // A check goes on with bits that are more than the count.
        guard let index = find(place), entries[index].bits[place.block], entries[index].live > 0
        else { return isContradicted = true }
        thaw(index)
        entries[index].bits.clear(place.block)
        entries[index].live -= 1
        liveTotal -= 1
        if !isReplayed { entries[index].heldUntil = nextCheckpoint }
        if entries[index].live == 0 { list(index) }
        livePages.touch(slot: entries[index].slot, block: place.block, count: 1)
    }

    private mutating func list(_ index: Int) {
        emptiedChanges += 1
        guard !entries[index].isListed else { return }
        entries[index].isListed = true
        emptied.append(entries[index].number)
    }

    /// What is kept of the list.
    mutating func keepEmptied(_ kept: [ExtentNumber]) {
        for number in emptied {
            if let index = indexOf.find(number.rawValue) { entries[Int(index)].isListed = false }
        }
        emptied = kept
        for number in kept { entries[index(number)].isListed = true }
    }

    /// An extent that is sealed now may have been empty before.
    mutating func noteEmptied(_ number: ExtentNumber) {
        let index = index(number)
        if entries[index].live == 0 { list(index) }
    }

    /// After a replay.
    mutating func collectEmptied() {
        for index in 0..<count where entries[index].live == 0 && entries[index].state != .leased {
            list(index)
        }
    }

    /// Something has changed that is not in the log, and that decides what dies from now on.
    mutating func holdAll() { allHeldUntil = nextCheckpoint }

    /// Whether a replay from checkpoint `sequence` on finds the extent empty where it is dropped
    /// (I4). Of the chunks of a cold extent it needs none.
    func isDroppable(_ extent: Extent, afterCheckpoint root: CheckpointRoot) -> Bool {
        extent.state == .sealed && extent.live == 0
            && max(extent.heldUntil, allHeldUntil) <= root.sequence
            && (extent.number.isCold || extent.lastLSN < root.replayLSN)
    }

    /// A block to which the checkpoint being written refers, whether the current trees do or not.
    mutating func addCheckpointLive(_ place: BlockAddress) {
        let index = index(place.extent)
        thaw(index)
        entries[index].bits.setFrozen(place.block)
        entries[index].checkpointLive += 1
        livePages.include(slot: entries[index].slot, block: place.block)
        livePages.touch(slot: entries[index].slot, block: place.block, count: 1)
    }

    /// A page of live bits: counted, and in the bits that are in memory. Those in the store leave
    /// it out; loading puts it in.
    mutating func addLivePage(_ place: BlockAddress) {
        let index = index(place.extent)
        if entries[index].bits[place.block] { isContradicted = true }
        thaw(index)
        entries[index].bits.set(place.block)
        entries[index].live += 1
        entries[index].checkpointLive += 1
        liveTotal += 1
    }

    /// The page of live bits there is written anew: the checkpoint that is being written does
    /// without it.
    mutating func removeLivePage(_ place: BlockAddress) {
        guard let index = find(place), entries[index].bits[place.block],
            entries[index].live > 0, entries[index].checkpointLive > 0
        else { return isContradicted = true }
        thaw(index)
        entries[index].bits.clear(place.block)
        entries[index].bits.clearFrozen(place.block)
        entries[index].live -= 1
        entries[index].checkpointLive -= 1
        liveTotal -= 1
        entries[index].heldUntil = nextCheckpoint
        if entries[index].live == 0 { list(index) }
        livePages.touch(slot: entries[index].slot, block: place.block, count: 1)
        livePages.include(slot: entries[index].slot, block: place.block)
    }

    /// Before a change: keeps the bits as they were when the checkpoint began.
    @inline(__always)
    private mutating func thaw(_ index: Int) {
        if livePages.isFrozen && entries[index].bits.frozen == nil { keepFrozen(index) }
    }

    @inline(never)
    private mutating func keepFrozen(_ index: Int) {
        let copy = pool.take()
        copy.update(from: entries[index].bits.words, count: pool.words)
        entries[index].bits.frozen = copy
    }

    /// Freezes counts and bits for the checkpoint that begins now.
    mutating func beginCheckpoint() {
        for index in 0..<count {
            entries[index].checkpointLive = entries[index].live
            precondition(entries[index].bits.frozen == nil, "ExtentTable: frozen twice")
        }
        livePages.freeze()
    }

    /// All frozen bits are in chunks.
    mutating func endFreeze() {
        for index in 0..<count {
            if let frozen = entries[index].bits.frozen { pool.giveBack(frozen) }
            entries[index].bits.frozen = nil
        }
        livePages.thaw()
    }

    /// Whether the checkpoint that replays from `replayLSN` no longer needs the extent (I3).
    func isDroppable(_ extent: Extent, replayLSN: LogSequenceNumber) -> Bool {
        extent.state == .sealed && extent.checkpointLive == 0 && extent.lastLSN < replayLSN
    }
}

/// Pages of live bits, to and from the store.
extension ExtentTable {
    func hasExtent(onLivePage page: Int) -> Bool {
        livePages.slots(ofPage: page, slotCount: capacity).contains { indexOfSlot[$0] >= 0 }
    }

    /// Lays the frozen bits of a page out.
    func fillLivePage(_ page: Int, at place: UnsafeMutableRawPointer) {
        Memory.zero(place, count: blockBytes)
        for slot in livePages.slots(ofPage: page, slotCount: capacity) {
            let index = Int(indexOfSlot[slot])
            guard index >= 0, let overlap = livePages.overlap(slot: slot, page: page) else {
                continue
            }
            let words = entries[index].bits.frozen ?? entries[index].bits.words
            Memory.copy(
                to: place + overlap.pageOffset, from: UnsafeRawPointer(words) + overlap.offset,
                count: overlap.count)
        }
    }

    /// Takes the bits of our extents from a page that was read.
    mutating func loadLivePage(_ page: Int, from place: UnsafeRawPointer) {
        for slot in livePages.slots(ofPage: page, slotCount: capacity) {
            let index = Int(indexOfSlot[slot])
            guard index >= 0, let overlap = livePages.overlap(slot: slot, page: page) else {
                continue
            }
            Memory.copy(
                to: UnsafeMutableRawPointer(entries[index].bits.words) + overlap.offset,
                from: place + overlap.pageOffset, count: overlap.count)
        }
    }

    /// After loading: a page of live bits lives, and its bit need not be in the store.
    mutating func loadPlace(ofLivePage place: BlockAddress) -> Bool {
        guard let index = find(place) else { return false }
        entries[index].bits.set(place.block)
        return true
    }

    /// A walk has found what lives in the extent at `index`: nil, nothing. With `keepsOthers` what the
    /// walk has not found stays as it is.
    mutating func adoptBits(_ index: Int, _ words: [UInt64]?, keepsOthers: Bool) {
        var live = 0
        for word in 0..<pool.words {
            let others = keepsOthers ? entries[index].bits.words[word] : 0
            entries[index].bits.words[word] = others | (words?[word] ?? 0)
            live += entries[index].bits.words[word].nonzeroBitCount
        }
        liveTotal += live - Int(entries[index].live)
        entries[index].live = UInt32(live)
        livePages.touch(slot: entries[index].slot)
    }

    /// The first extent whose bits are not as many as its live blocks.
    var inconsistentExtent: ExtentNumber? {
        for index in 0..<count where popcount(index) != Int(entries[index].live) {
            return entries[index].number
        }
        return nil
    }

    private func popcount(_ index: Int) -> Int {
        var sum = 0
        for word in 0..<pool.words { sum += entries[index].bits.words[word].nonzeroBitCount }
        return sum
    }
}

extension ExtentTable {
    /// Makes room for the extents of a store that has grown. A smaller count changes nothing.
    mutating func grow(slotCount: Int) {
        guard slotCount > capacity else { return }
        let larger = UnsafeMutablePointer<Extent>.allocate(capacity: slotCount)
        larger.update(from: entries, count: count)
        entries.deallocate()
        entries = larger
        capacity = slotCount
        indexOf = IntegerMap(capacity: slotCount)
        while indexOfSlot.count < slotCount { indexOfSlot.append(-1) }
        livePages.grow(slotCount: slotCount)
        for index in 0..<count { indexOf.insert(entries[index].number.rawValue, UInt32(index)) }
    }
}
