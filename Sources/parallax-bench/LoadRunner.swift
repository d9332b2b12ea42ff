// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import ParallaxGuest

/// Keeps every lane busy with one request at a time, in one thread for all queues, and measures.
///
///     issue -> (ring) -> finish -> issue -> ...          per lane
///     warming up | measuring | draining | sweeping       for all of them, by time
///
/// After `init` the loop allocates nothing until the sweep's end or an error.
///
/// SAFETY: owns `lanes`, `plan.laneCount` of them; tags are lane numbers and are checked.
struct LoadRunner: ~Copyable {
    private struct Lane {
        var block: UInt64 = 0
        /// What a read must find; 0: unknown.
        var generation: UInt32 = 0
        var submittedAt: UInt64 = 0
        var groupStartedAt: UInt64 = 0
        var writesSinceFlush: UInt64 = 0
    }

    private enum Phase { case warmingUp, measuring, draining, sweeping }

    private let plan: Plan
    private let serverPID: Int32?
    private let pattern: SectorPattern
    private let sectorsPerRequest: UInt64
    private var driver: BlockDriver
    private var source: RequestSource
    private var generations: GenerationTable
    private let lanes: UnsafeMutablePointer<Lane>
    private var phase = Phase.measuring
    private var phaseEnd = UInt64.max
    private var issuedCount: UInt64 = 0
    private var issueLimit = UInt64.max
    private var spinCount: UInt32 = 0
    private var sweepCursor: UInt64 = 0
    private(set) var sweptBlockCount: UInt64 = 0
    private(set) var measurement = Measurement()

    init(_ plan: Plan, driver: consuming BlockDriver, serverPID: Int32?) throws {
        let generations = try GenerationTable(count: plan.verifies ? Int(plan.blockCount) : 0)
        lanes = .allocate(capacity: plan.laneCount)
        lanes.initialize(repeating: Lane(), count: plan.laneCount)
        self.plan = plan
        self.serverPID = serverPID
        self.driver = driver
        self.generations = generations
        pattern = SectorPattern(seed: plan.seed)
        sectorsPerRequest = UInt64(plan.blockBytes / SectorPattern.sectorBytes)
        source = RequestSource(plan)
        fillBuffers()
    }

    deinit { lanes.deallocate() }

    /// Random bytes, once: a device that compresses or finds zeroes gains nothing.
    private mutating func fillBuffers() {
        var random = RandomSource(seed: ~plan.seed)
        for queue in 0..<plan.queueCount {
            for slot in 0..<plan.depth {
                let buffer = driver.buffer(queue: queue, slot: slot)
                let words = buffer.assumingMemoryBound(to: UInt64.self)
                for position in words.indices { words[position] = random.next() }
            }
        }
    }

    // MARK: Phases

    /// The measured run, from the first request to the last completion.
    mutating func run() throws {
        let now = parallax_monotonic_nanoseconds()
        if plan.warmupNanoseconds > 0 {
            phase = .warmingUp
            phaseEnd = now + plan.warmupNanoseconds
        } else {
            beginMeasuring(now)
        }
        try keepBusy()
        if phase != .draining {
            measurement.end(now: parallax_monotonic_nanoseconds(), serverPID: serverPID)
        }
    }

    /// Reads back every block that this run wrote (a read-only run: the whole range) and checks it.
    mutating func sweep() throws {
        phase = .sweeping
        phaseEnd = .max
        issueLimit = .max
        try keepBusy()
    }

    private mutating func beginMeasuring(_ now: UInt64) {
        phase = .measuring
        switch plan.limit {
        case .nanoseconds(let nanoseconds): phaseEnd = now + nanoseconds
        case .requests(let count):
            phaseEnd = .max
            issueLimit = issuedCount + count
        }
        measurement.begin(now: now, serverPID: serverPID)
    }

    private mutating func endPhase(_ now: UInt64) {
        switch phase {
        case .warmingUp: beginMeasuring(now)
        case .measuring:
            measurement.end(now: now, serverPID: serverPID)
            phase = .draining
            phaseEnd = .max
            issueLimit = 0
        case .draining, .sweeping: break
        }
    }

    // MARK: The loop

    private mutating func keepBusy() throws {
        for lane in 0..<plan.laneCount { issue(lane: lane) }
        for queue in 0..<plan.queueCount { driver.publish(queue: queue) }
        var lastProgress = parallax_monotonic_nanoseconds()
        while driver.inFlightCount > 0 {
            if try reapAll() {
                lastProgress = .max
                continue
            }
            if plan.polls {
                // Looking at the socket is a system call: now and then is enough.
                spinCount &+= 1
                if spinCount & 0xFFF != 0 { continue }
                try driver.checkConnection()
            } else if try driver.wait(timeoutMilliseconds: 1000) {
                continue
            }
            let now = parallax_monotonic_nanoseconds()
            if lastProgress == .max { lastProgress = now }
            guard now - lastProgress < 60_000_000_000 else {
                throw BenchFailure(
                    "the device finished none of \(driver.inFlightCount) requests in 60 s")
            }
        }
    }

    /// Finishes what the device has used, and puts new requests in its place.
    private mutating func reapAll() throws -> Bool {
        var hasProgressed = false
        for queue in 0..<plan.queueCount {
            let now = parallax_monotonic_nanoseconds()
            if now >= phaseEnd { endPhase(now) }
            while let completion = try driver.reap(queue: queue) {
                let lane = Int(truncatingIfNeeded: completion.tag)
                precondition(lane >= 0 && lane < plan.laneCount, "LoadRunner: no such lane")
                try finish(completion, queue: queue, lane: lane, now: now)
                issue(lane: lane)
                hasProgressed = true
            }
            driver.publish(queue: queue)
        }
        return hasProgressed
    }

    // MARK: One request

    private mutating func issue(lane: Int) {
        if phase == .sweeping { return issueSweep(lane: lane) }
        let isFlush = plan.flushEvery > 0 && lanes[lane].writesSinceFlush == plan.flushEvery
        guard isFlush || issuedCount < issueLimit, phase != .draining else { return }
        if isFlush { return submit(.flush, lane: lane) }
        issuedCount += 1
        var (block, isWrite) = source.next()
        if plan.verifies {
            // Ends: there are more blocks than lanes.
            while generations.isBusy(block) { block = (block + 1) % plan.blockCount }
            generations.begin(block, isWrite: isWrite)
            lanes[lane].generation = generations[block]
        }
        lanes[lane].block = block
        submit(isWrite ? .write : .read, lane: lane)
    }

    private mutating func issueSweep(lane: Int) {
        while sweepCursor < plan.blockCount {
            let block = sweepCursor
            sweepCursor += 1
            guard plan.workload.isReadOnly || generations[block] != 0 else { continue }
            generations.begin(block, isWrite: false)
            lanes[lane].generation = generations[block]
            lanes[lane].block = block
            sweptBlockCount += 1
            return submit(.read, lane: lane)
        }
    }

    private mutating func submit(_ operation: BlockOperation, lane: Int) {
        let queue = lane / plan.depth
        guard let slot = driver.reserve(queue: queue) else {
            preconditionFailure("LoadRunner: a lane without a slot")
        }
        let firstSector = lanes[lane].block * sectorsPerRequest
        if plan.verifies, operation == .write {
            pattern.fill(
                requestBuffer(queue: queue, slot: slot), firstSector: firstSector,
                generation: lanes[lane].generation)
        }
        let now = parallax_monotonic_nanoseconds()
        lanes[lane].submittedAt = now
        if operation == .write {
            if lanes[lane].writesSinceFlush == 0 { lanes[lane].groupStartedAt = now }
            lanes[lane].writesSinceFlush += 1
        }
        driver.submit(
            queue: queue, slot: slot, operation,
            firstSector: operation == .flush ? 0 : firstSector,
            byteCount: operation == .flush ? 0 : plan.blockBytes, tag: UInt64(lane))
    }

    private func requestBuffer(queue: Int, slot: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(
            rebasing: driver.buffer(queue: queue, slot: slot)[..<plan.blockBytes])
    }

    private mutating func finish(
        _ completion: DriverQueue.Completion, queue: Int, lane: Int, now: UInt64
    ) throws {
        let state = lanes[lane]
        guard completion.status == BlockStatusByte.ok else {
            throw failure(completion, state)
        }
        // A request submitted in this very pass has begun after `now` was read.
        let latency = now > state.submittedAt ? now - state.submittedAt : 0
        let isMeasured = phase == .measuring
        switch completion.operation {
        case .read:
            if isMeasured { measurement.reads.record(latency) }
            if plan.verifies { try verify(queue: queue, slot: completion.slot, state) }
        case .write:
            if isMeasured { measurement.writes.record(latency) }
        default:
            if isMeasured {
                measurement.flushes.record(latency)
                measurement.groups.record(latency + (state.submittedAt - state.groupStartedAt))
            }
            lanes[lane].writesSinceFlush = 0
            return
        }
        if plan.verifies { generations.end(state.block) }
    }

    private func verify(queue: Int, slot: Int, _ lane: Lane) throws {
        // Before its first write a block may hold anything, unless all was written by another run.
        guard lane.generation != 0 || plan.workload.isReadOnly else { return }
        let mismatch = pattern.check(
            UnsafeRawBufferPointer(requestBuffer(queue: queue, slot: slot)),
            firstSector: lane.block * sectorsPerRequest, generation: lane.generation)
        if let mismatch { throw BenchFailure(mismatch.description) }
    }

    private func failure(_ completion: DriverQueue.Completion, _ lane: Lane) -> BenchFailure {
        let status = BlockStatusByte.name(completion.status)
        switch completion.operation {
        case .flush: return BenchFailure("a flush ended with \(status)")
        default:
            let verb = completion.operation == .read ? "read" : "write"
            return BenchFailure(
                "a \(verb) of \(plan.blockBytes) bytes at byte "
                    + "\(lane.block * UInt64(plan.blockBytes)) ended with \(status)")
        }
    }
}
