// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
package import ParallaxCore

/// A block device with a volatile cache, whose every misfortune is decided by a seed.
///
/// Owned by one thread. Invariants: I1 a read returns the last completed write; I2 after
/// `crash(.powerLoss)` every sector holds its durable value or that of a later write; I3 a sync
/// makes durable what was completed before it was submitted, and nothing else; I4 a write's
/// buffers do not change between its submission and its completion (broken by the engine: an
/// entry in `violations`).
///
///     submit --> [ in flight ] --complete--> [ unsynced ] --sync--> [ durable ]
///                     |                          |
///                     +------- crash: any part survives or not
///
/// It does not know what an extent is, and has no clock: `completeOne` moves it on.
package final class SimulatedDevice: StoreMedium {
    package let byteCount: UInt64
    package var faults = FaultPlan.none
    /// Decides the order of completions and all faults. May be replaced between two calls.
    package var random: SeededRandom
    /// Decides the faults that came later than the others, so that the older ones stay where they
    /// were drawn.
    package var faultRandom: SeededRandom
    /// Commands that the engine should not have sent.
    package internal(set) var violations: [String] = []
    package internal(set) var statistics = Statistics()
    /// Stops the machine after that many further commands; see `hasStopped`.
    package var commandsUntilStop: Int?
    /// Whether syncs come to an end. Until the next crash.
    package var stall = Stall.none

    /// What a read returns: everything that was completed.
    let visible: PageStore
    /// What is certain to survive power loss.
    let durable: PageStore
    /// Completed and not yet covered by a sync, oldest first.
    var unsynced: [VolatileWrite] = []
    /// As the daemon's reactors have it, which one process shares.
    var syncs = SyncRecord()
    var inFlight: [CommandInFlight] = []
    /// Pages, some of them more than once, in which `visible` may differ from `durable`.
    var volatilePages: [UInt64] = []
    /// Where the last writes went, oldest first.
    private(set) var recentWrites: [Range<UInt64>] = []
    private static let recentCount = 32
    /// Sectors that cannot be read until they are written again.
    var unreadable: Set<UInt64> = []
    private var tick = 0
    private var completedCount = 0

    package struct Statistics: Sendable {
        package var reads = 0
        package var writes = 0
        package var syncs = 0
        package var errors = 0
        package var lies = 0
        /// Writes that a failed sync has taken out of reach of later ones.
        package var dropped = 0
        /// Reads that returned a wrong bit.
        package var flips = 0
        /// Commands that did not do what they should, known to the engine or not; lies apart.
        package var troubles: Int { errors + flips }
    }

    package enum Stall: Equatable {
        case none
        /// No sync that is submitted from now on ends.
        case syncs
        /// The same from the next write on that ends below this offset.
        case behindWrite(below: UInt64)
    }

    struct VolatileWrite {
        var sequence: Int
        var offset: UInt64
        var content: [UInt8]
    }

    struct CommandInFlight {
        var command: StoreCommand
        var owner: Int
        /// A copy of what is to be written, taken at submission.
        var content: [UInt8]
        /// For a sync: the writes that it covers.
        var coversThrough: Int
        var notBeforeTick: Int
        /// It has no end before the next crash.
        var isStalled: Bool
    }

    package init(byteCount: UInt64, seed: UInt64) {
        self.byteCount = byteCount
        random = SeededRandom(seed: seed)
        faultRandom = SeededRandom(seed: seed)
        visible = PageStore()
        durable = PageStore()
    }

    private init(copyOf other: SimulatedDevice) {
        byteCount = other.byteCount
        faults = other.faults
        random = other.random
        faultRandom = other.faultRandom
        unreadable = other.unreadable
        visible = other.visible.copy()
        durable = other.durable.copy()
        unsynced = other.unsynced
        volatilePages = other.volatilePages
        completedCount = other.completedCount
    }

    /// The same content, nothing in flight.
    package func copy() -> SimulatedDevice { SimulatedDevice(copyOf: self) }

    package var inFlightCount: Int { inFlight.count }
    /// Commands carried out so far.
    package var commandCount: Int { statistics.reads + statistics.writes + statistics.syncs }
    package var unsyncedCount: Int { unsynced.count }

    /// The machine has stopped: nothing is executed any more until `crash`.
    package var hasStopped: Bool { commandsUntilStop.map { $0 <= 0 } ?? false }

    /// Takes a command; `owner` comes back with the completion.
    package func submit(_ command: StoreCommand, owner: Int) {
        check(command)
        let isSlow = random.oneIn(faults.slowOneIn)
        inFlight.append(
            CommandInFlight(
                command: command, owner: owner,
                content: command.operation == .write ? gather(command) : [],
                coversThrough: completedCount,
                notBeforeTick: isSlow ? tick + random.integer(in: 10...200) : 0,
                isStalled: command.operation == .sync && stall == .syncs))
    }

    /// Executes one of the commands in flight, chosen by the seed, and answers it.
    package func completeOne() -> (owner: Int, completion: StoreCompletion)? {
        guard !inFlight.isEmpty, !hasStopped else { return nil }
        tick += 1
        let moving = inFlight.indices.filter { !inFlight[$0].isStalled }
        var ready = moving.filter { inFlight[$0].notBeforeTick <= tick }
        if ready.isEmpty {
            guard let next = moving.map({ inFlight[$0].notBeforeTick }).min() else { return nil }
            tick = next
            ready = moving.filter { inFlight[$0].notBeforeTick <= tick }
        }
        let entry = inFlight.remove(at: ready[random.index(below: ready.count)])
        countTowardsStop()
        let result = execute(entry)
        if result < 0 { statistics.errors += 1 }
        noteStall(entry.command)
        return (entry.owner, StoreCompletion(tag: entry.command.tag, result: result))
    }

    private func noteStall(_ done: StoreCommand) {
        if case .behindWrite(let end) = stall, done.operation == .write, done.offset < end {
            stall = .syncs
        }
    }

    func countTowardsStop() {
        if let left = commandsUntilStop { commandsUntilStop = left - 1 }
    }

    private func execute(_ entry: CommandInFlight) -> Int {
        switch entry.command.operation {
        case .read: return executeRead(entry.command)
        case .write: return executeWrite(entry)
        case .sync: return syncs.judge(executeSync(coversThrough: entry.coversThrough))
        }
    }

    private func executeRead(_ command: StoreCommand) -> Int {
        statistics.reads += 1
        if random.oneIn(faults.readErrorOneIn) { return -Int(EIO) }
        if isUnreadable(at: command.offset, count: command.byteCount) { return -Int(EIO) }
        fill(command)
        return command.byteCount
    }

    /// Copies what the device holds into a read's buffers; one bit of it may get lost on the way.
    func fill(_ command: StoreCommand) {
        var offset = command.offset
        let flipped = flippedByte(of: command.byteCount)
        forEachBuffer(command) { buffer in
            visible.read(at: offset, into: buffer)
            let start = Int(offset - command.offset)
            if let flipped, flipped >= start, flipped < start + buffer.count {
                buffer[flipped - start] ^= 1
            }
            offset += UInt64(buffer.count)
        }
    }

    private func executeWrite(_ entry: CommandInFlight) -> Int {
        statistics.writes += 1
        if !isUnchanged(entry) {
            violations.append("the buffers of a write changed while it was in flight")
        }
        if random.oneIn(faults.writeErrorOneIn) {
            applyInPart(entry, survival: .someSectors)
            return -Int(EIO)
        }
        if faultRandom.oneIn(faults.fullDeviceOneIn) { return -Int(ENOSPC) }
        applyWrite(at: entry.command.offset, content: entry.content)
        return entry.command.byteCount
    }

    /// Executes a write that reports success, honest or not.
    func applyWrite(at offset: UInt64, content: [UInt8]) {
        if random.oneIn(faults.lostWriteOneIn) {
            statistics.lies += 1
            return
        }
        var target = offset
        if random.oneIn(faults.misdirectedWriteOneIn) {
            statistics.lies += 1
            let places = (byteCount - UInt64(content.count)) / UInt64(blockBytes)
            target = UInt64(random.integer(in: 0...Int(places))) * UInt64(blockBytes)
        }
        store(at: target, content: content)
    }

    /// Makes `content` visible; not yet durable.
    func store(at offset: UInt64, content: [UInt8]) {
        completedCount += 1
        content.withUnsafeBytes { visible.write(at: offset, from: $0) }
        mend(at: offset, count: content.count)
        noteVolatile(offset, content.count)
        recentWrites.append(offset..<(offset + UInt64(content.count)))
        if recentWrites.count > Self.recentCount { recentWrites.removeFirst() }
        unsynced.append(VolatileWrite(sequence: completedCount, offset: offset, content: content))
    }

    func executeSync(coversThrough limit: Int? = nil) -> Int {
        statistics.syncs += 1
        let limit = limit ?? completedCount
        if random.oneIn(faults.syncErrorOneIn) {
            // What the failed sync covered is no longer dirty for the host: no later sync will
            // write it, although reads still return it.
            let before = unsynced.count
            unsynced.removeAll { $0.sequence <= limit && random.chance(percent: 50) }
            statistics.dropped += before - unsynced.count
            return -Int(EIO)
        }
        if random.oneIn(faults.lyingSyncOneIn) {
            statistics.lies += 1
            return 0
        }
        for write in unsynced where write.sequence <= limit {
            write.content.withUnsafeBytes { durable.write(at: write.offset, from: $0) }
        }
        unsynced.removeAll { $0.sequence <= limit }
        if unsynced.isEmpty && statistics.dropped == 0 {
            volatilePages.removeAll(keepingCapacity: true)
        }
        return 0
    }

    func noteVolatile(_ offset: UInt64, _ count: Int) {
        let size = UInt64(blockBytes)
        volatilePages += offset / size..<(offset + UInt64(count) + size - 1) / size
    }
}
