// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What one stream knows of its extents: which slot each is in and how many of its blocks live.
///
/// Owned by the shard thread. An extent belongs to one stream for all its life, and only that
/// stream's trees refer into it; so nothing here is shared.
///
/// I1 a number is in the table at most once, and so is a slot.
/// I2 `live` is the number of blocks of the extent to which the current trees refer, counting
///    nodes that are in the store; the tables of a checkpoint are not counted.
/// I3 an extent is dropped only when it is sealed, nothing lives in it, and all of its chunks are
///    older than the log that the newest durable checkpoint replays.
struct ExtentTable: ~Copyable {
    struct Extent: BitwiseCopyable {
        var number: ExtentNumber
        var slot: ExtentSlot
        var state: State
        var live: UInt32
        /// Live blocks as of the checkpoint that is being written.
        var checkpointLive: UInt32
        /// LSN of the newest chunk in it.
        var lastLSN: LogSequenceNumber
    }

    enum State: UInt8, BitwiseCopyable {
        /// Announced in the log, to be filled later.
        case leased = 0
        /// The log is being written here.
        case open = 1
        /// Full.
        case sealed = 2
    }

    private var entries: UnsafeMutablePointer<Extent>
    private var indexOf: IntegerMap
    private(set) var count = 0
    private var capacity: Int

    init(slotCount: Int) {
        capacity = slotCount
        entries = .allocate(capacity: max(slotCount, 1))
        indexOf = IntegerMap(capacity: slotCount)
    }

    deinit { entries.deallocate() }

    /// The extents in no particular order.
    subscript(index: Int) -> Extent {
        precondition(index >= 0 && index < count, "ExtentTable: index out of range")
        return entries[index]
    }

    func slot(of number: ExtentNumber) -> ExtentSlot? {
        indexOf.find(number.rawValue).map { entries[Int($0)].slot }
    }

    func contains(_ number: ExtentNumber) -> Bool { indexOf.find(number.rawValue) != nil }

    var hasRoom: Bool { count < capacity }

    mutating func insert(
        _ number: ExtentNumber, slot: ExtentSlot, state: State, live: UInt32 = 0,
        lastLSN: LogSequenceNumber = LogSequenceNumber(0)
    ) {
        precondition(count < capacity, "ExtentTable: more extents than slots")
        indexOf.insert(number.rawValue, UInt32(count))
        entries[count] = Extent(
            number: number, slot: slot, state: state, live: live, checkpointLive: 0,
            lastLSN: lastLSN)
        count += 1
    }

    mutating func setState(_ number: ExtentNumber, _ state: State) {
        entries[index(number)].state = state
    }

    mutating func noteChunk(_ number: ExtentNumber, lsn: LogSequenceNumber) {
        entries[index(number)].lastLSN = lsn
    }

    mutating func addLive(_ number: ExtentNumber, _ blocks: Int) {
        let index = index(number)
        entries[index].live += UInt32(blocks)
    }

    mutating func removeLive(_ number: ExtentNumber, _ blocks: Int) {
        let index = index(number)
        precondition(entries[index].live >= UInt32(blocks), "ExtentTable I2: live count below 0")
        entries[index].live -= UInt32(blocks)
    }

    mutating func addCheckpointLive(_ number: ExtentNumber, _ blocks: Int) {
        entries[index(number)].checkpointLive += UInt32(blocks)
    }

    /// Freezes the counts for the checkpoint that begins now.
    mutating func beginCheckpoint() {
        for index in 0..<count { entries[index].checkpointLive = entries[index].live }
    }

    /// Whether the checkpoint that replays from `replayLSN` no longer needs the extent (I3).
    func isDroppable(_ extent: Extent, replayLSN: LogSequenceNumber) -> Bool {
        extent.state == .sealed && extent.checkpointLive == 0 && extent.lastLSN < replayLSN
    }

    /// Drops an extent that the durable checkpoint does not need.
    mutating func remove(_ number: ExtentNumber) {
        let hole = index(number)
        indexOf.remove(number.rawValue)
        count -= 1
        guard hole != count else { return }
        entries[hole] = entries[count]
        indexOf.remove(entries[hole].number.rawValue)
        indexOf.insert(entries[hole].number.rawValue, UInt32(hole))
    }

    private func index(_ number: ExtentNumber) -> Int {
        guard let found = indexOf.find(number.rawValue) else {
            preconditionFailure("ExtentTable: an address names an extent that is not there")
        }
        return Int(found)
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
        for index in 0..<count { indexOf.insert(entries[index].number.rawValue, UInt32(index)) }
    }
}
