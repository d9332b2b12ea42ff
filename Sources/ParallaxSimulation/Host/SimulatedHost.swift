// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// A host with one store, several engines, many guests and an administrator, in one thread: it
/// owns the device and the clock, and every step is drawn from `random`.
///
///     guests --requests--> engines --commands--> device
///        ^                   |  ^                   |
///        +------replies------+  +----completions----+
///                 |
///              oracles: is that reply right?
///
/// A step that finds anything wrong throws `SimulationFailure`.
package final class SimulatedHost {
    package let store: any StoreUnderTest
    package let device: SimulatedDevice
    package let streams: [SimulatedStream]
    package var random: SeededRandom
    package var trace: Trace
    package var disks: [UInt64: GuestDisk] = [:]
    package var deleted: Set<UInt64> = []
    package var snapshots: [UInt64: GuestSnapshot] = [:]
    /// Deleted snapshots, with their parents.
    var buried: [UInt64: UInt64?] = [:]
    /// There may be versions that only the engine knows.
    var hasHiddenVersions = false
    /// Groups that are under way, by number.
    var groups: [UInt64: GroupInFlight] = [:]
    /// Members of groups that were finished, whose cuts have not been compared.
    var uncheckedGroups: [[UInt64]] = []
    package var now: UInt64 = 1_000_000_000
    package let queueDepth: Int
    /// Something was damaged on purpose: reads may say so.
    package var mayBeCorrupt = false
    /// What is stored may be other than what was written: on purpose, or because the device lied.
    var mayBeDamaged: Bool { mayBeCorrupt || device.statistics.lies > 0 }
    package internal(set) var statistics = Statistics()

    var slotOwners: [Int?]
    var freeSlots: [UInt32] = []
    /// The allocator hands out first what came back last, so that it is written again at once.
    var prefersReleased = false
    private var lastReleased: UInt32?
    var nextTag: UInt32 = 0
    var nextTicket: UInt64 = 0
    var nextName = 0
    /// VDIs that have had a quota, and may still have one.
    var rationed: Set<UInt64> = []
    /// What the crashes since the last recovery amount to.
    var pendingMode: CrashMode?
    /// The request that `waitForReply` waits for, and its status.
    var awaited: UInt32?
    var lastStatus: [UInt32: BlockStatus] = [:]

    package struct Statistics {
        package var operations = 0
        package var requests = 0
        package var crashes = 0
        package var reopens = 0
        package var changes = 0
        package var refusals = 0
        package var noSpace = 0
        package var ioErrors = 0
        package var corruptReads = 0
        package var verifiedBlocks = 0
        package var turns = 0
        package var snapshots = 0
        package var groups = 0
        package var diffs = 0
        package var censuses = 0
        package var storeChecks = 0
        package var cleanings = 0
        package var movedBlocks = 0
        /// Logs that damage has made shorter than what was answered.
        package var cutLogs = 0
        /// Stores that were not opened, for they were damaged.
        package var refusedOpens = 0
    }

    package init(
        store: any StoreUnderTest, device: SimulatedDevice, streamCount: Int, queueDepth: Int,
        random: SeededRandom, tell: ((String) -> Void)?
    ) {
        self.store = store
        self.device = device
        self.queueDepth = queueDepth
        self.random = random
        let time = ModelClock()
        streams = (0..<streamCount).map { SimulatedStream(index: $0, time: time) }
        slotOwners = Array(repeating: nil, count: store.slotCount)
        trace = Trace(tell: tell)
    }

    /// VDIs in a fixed order.
    package var sortedDisks: [GuestDisk] {
        disks.keys.sorted().compactMap { disks[$0] }
    }

    // MARK: Steps

    private static let stepWeights = [6, 3, 1, 1, 1]

    /// One step of the machine: the device, an engine or the allocator does something.
    package func step() throws(SimulationFailure) {
        if device.hasStopped { throw .stop }
        let stream = streams[random.index(below: streams.count)]
        switch random.weightedIndex(Self.stepWeights) {
        case 0: try completeCommand()
        case 1: try turn(stream)
        case 2: try drainCommands(stream)
        case 3: try drainReplies(stream)
        default: supplyExtents(stream)
        }
        try checkDevice()
        try checkRefusals(stream)
    }

    /// Nobody is told that there is no space while cleaning would give some. Damaged blocks stay where they
    /// are, and after an error of the device the cleaner rests.
    private func checkRefusals(_ stream: SimulatedStream) throws(SimulationFailure) {
        guard let engine = stream.engine, engine.prospectRefused > 0, !mayBeDamaged,
            device.statistics.troubles == 0
        else { return }
        throw SimulationFailure(
            "stream \(stream.index) refused a request for want of space although cleaning could have "
                + "gained \(engine.prospectRefused) blocks more than it takes")
    }

    private func completeCommand() throws(SimulationFailure) {
        guard let (owner, completion) = device.completeOne() else { return }
        trace.note(
            .completion, UInt64(owner), completion.tag,
            UInt64(bitPattern: Int64(completion.result)),
            "  device: stream \(owner) tag \(completion.tag) result \(completion.result)")
        streams[owner].engine?.complete(completion)
        try checkLiveStore()
    }

    /// A whole turn of a shard's loop.
    func turn(_ stream: SimulatedStream) throws(SimulationFailure) {
        guard let engine = stream.engine else { return }
        statistics.turns += 1
        now += UInt64(random.integer(in: 1_000...200_000))
        engine.noteFreeSlots(freeSlots.count)
        engine.turn(nowNanoseconds: now)
        try drainCommands(stream)
        drainCuts(stream)
        try drainReplies(stream)
        try drainChangeReplies(stream)
        try drainDiffReplies(stream)
        try drainReleases(stream)
        try drainScrubFindings(stream)
        requestExtents(stream)
        if random.chance(percent: 50) { supplyExtents(stream) }
    }

    func drainCommands(_ stream: SimulatedStream) throws(SimulationFailure) {
        guard let engine = stream.engine else { return }
        while device.inFlightCount < queueDepth, let command = engine.nextCommand() {
            trace.note(
                .command, command.tag, command.offset, UInt64(command.byteCount),
                """
                  stream \(stream.index): \(command.operation) \(command.byteCount) bytes at \
                \(command.offset), tag \(command.tag)
                """)
            try checkPlace(command, stream)
            device.submit(command, owner: stream.index)
        }
    }

    private func checkPlace(
        _ command: StoreCommand, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        guard command.operation != .sync, command.byteCount > 0 else { return }
        for offset in [command.offset, command.offset + UInt64(command.byteCount) - 1] {
            switch store.place(of: offset) {
            case .slot(let slot):
                guard Int(slot) < slotOwners.count, slotOwners[Int(slot)] == stream.index else {
                    throw SimulationFailure(
                        "stream \(stream.index) \(command.operation)s in slot \(slot), "
                            + "which is not its own")
                }
            case .stream(let owner):
                guard owner == stream.index else {
                    throw SimulationFailure(
                        "stream \(stream.index) \(command.operation)s what is stream \(owner)'s")
                }
            case .reserved:
                throw SimulationFailure(
                    "stream \(stream.index) \(command.operation)s at \(offset), a reserved place")
            }
        }
    }

    func checkDevice() throws(SimulationFailure) {
        guard let violation = device.violations.first else { return }
        throw SimulationFailure("the device was misused: \(violation)")
    }

    // MARK: Extents

    /// As the daemon does before its shards run.
    func giveSpares() {
        for stream in streams {
            guard let engine = stream.engine, engine.lacksSpare, let slot = takeFreeSlot() else {
                continue
            }
            engine.noteExtentRequested()
            slotOwners[Int(slot)] = stream.index
            stream.extentsOnTheWay.append(slot)
        }
    }

    private func requestExtents(_ stream: SimulatedStream) {
        guard let engine = stream.engine else { return }
        var bound = 64
        while engine.wantedExtents > 0, bound > 0 {
            bound -= 1
            engine.noteExtentRequested()
            let slot = takeFreeSlot()
            if let slot {
                slotOwners[Int(slot)] = stream.index
            } else {
                for other in streams where other.index != stream.index {
                    other.engine?.giveBackSpace()
                }
            }
            stream.extentsOnTheWay.append(slot)
        }
    }

    /// The lowest free slot mostly, as the allocator does; sometimes any.
    private func takeFreeSlot() -> UInt32? {
        guard !freeSlots.isEmpty else { return nil }
        if prefersReleased, let slot = lastReleased, let place = freeSlots.firstIndex(of: slot) {
            return freeSlots.remove(at: place)
        }
        return freeSlots.remove(
            at: random.chance(percent: 70) ? 0 : random.index(below: freeSlots.count))
    }

    func supplyExtents(_ stream: SimulatedStream) {
        guard let engine = stream.engine, !stream.extentsOnTheWay.isEmpty else { return }
        let slot = stream.extentsOnTheWay.removeFirst()
        trace.note(
            .extent, UInt64(stream.index), UInt64(slot ?? .max),
            "  stream \(stream.index): extent \(slot.map(String.init) ?? "none")")
        stream.lastSupplyWasNil = slot == nil
        if slot == nil { stream.nilSupplies += 1 }
        engine.supplyExtent(
            slot: slot,
            peersAreGaining: streams.contains {
                $0.index != stream.index && $0.engine?.isGainingSpace == true
            })
    }

    private func drainReleases(_ stream: SimulatedStream) throws(SimulationFailure) {
        while let slot = stream.engine?.takeReleasedSlot() {
            trace.note(
                .release, UInt64(stream.index), UInt64(slot),
                "  stream \(stream.index): released slot \(slot)")
            guard Int(slot) < slotOwners.count, slotOwners[Int(slot)] == stream.index else {
                throw SimulationFailure(
                    "stream \(stream.index) released slot \(slot), which is not its own")
            }
            let busy = device.inFlightOffsets(owner: stream.index).contains {
                store.place(of: $0) == .slot(slot)
            }
            if busy {
                throw SimulationFailure(
                    "stream \(stream.index) released slot \(slot) with commands in flight to it")
            }
            slotOwners[Int(slot)] = nil
            lastReleased = slot
            freeSlots.append(slot)
            freeSlots.sort()
        }
    }
}
