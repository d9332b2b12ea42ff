// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One ring of the device, its progress and its requests in flight.
///
/// Owned by the shard. Invariants:
/// I1 `taken - answered` is the number of tasks in use, at most `ring.size`;
/// I2 `ring` comes and goes only while the engine has no request of it;
/// I3 entries `answered ..< taken` of the ring hold, in any order, the requests of the tasks in
///    use, so that a successor finds all that is unanswered there, and nothing else.
///
/// ```
///        answered            taken            producer (the guest's)
///   --------+-------------------+------------------+-----------
///   answers |  tasks            |  waiting         |  free
/// ```
struct BlkifQueue: ~Copyable {
    let index: Int
    private(set) var ring: SharedRing?
    private(set) var event: EventChannel?
    /// Takes no requests: it is being closed, or its guest broke the rules.
    private(set) var isQuiet = true
    /// Its event channel is not watched.
    private(set) var isDeaf = true

    /// ring.h: req_cons
    private(set) var taken: UInt32 = 0
    /// ring.h: rsp_prod_pvt
    private(set) var answered: UInt32 = 0
    /// Requests of this queue that the engine has.
    private(set) var inFlight = 0
    /// A barrier is in flight; nothing is taken until it is answered.
    private var isBarred = false

    private var tasks: UnsafeMutablePointer<BlkifTask>
    private var inlineSegments: UnsafeMutablePointer<DataSegment>
    private var inlinePins: UnsafeMutablePointer<Int32>
    private var freeTasks: UnsafeMutablePointer<UInt16>
    private var freeCount = 0
    /// Tasks that have ended and are to be answered, in order.
    private var ended: UnsafeMutablePointer<UInt16>
    private var endedCount = 0
    /// The task whose request is in each ring entry.
    private var taskOfSlot: UnsafeMutablePointer<UInt16>
    private var capacity = 0

    init(index: Int) {
        self.index = index
        tasks = .allocate(capacity: 0)
        inlineSegments = .allocate(capacity: 0)
        inlinePins = .allocate(capacity: 0)
        freeTasks = .allocate(capacity: 0)
        ended = .allocate(capacity: 0)
        taskOfSlot = .allocate(capacity: 0)
    }

    deinit { deallocate() }

    private func deallocate() {
        tasks.deallocate()
        inlineSegments.deallocate()
        inlinePins.deallocate()
        freeTasks.deallocate()
        ended.deallocate()
        taskOfSlot.deallocate()
    }

    /// Serves the ring from where a back end before us, if there was one, left it.
    mutating func connect(_ ring: SharedRing) -> XenFault? {
        precondition(self.ring == nil && inFlight == 0, "BlkifQueue I2: connected twice")
        reserve(Int(ring.size))
        ring.finishAnswer()
        answered = ring.responseProducer()
        taken = answered
        guard ring.requestProducer() &- answered <= ring.size else {
            return .producerTooFar(queue: index)
        }
        self.ring = ring
        isQuiet = false
        isBarred = false
        return nil
    }

    private mutating func reserve(_ count: Int) {
        if capacity < count {
            deallocate()
            tasks = .allocate(capacity: count)
            inlineSegments = .allocate(capacity: count * XenLimits.directSegmentsMax)
            inlinePins = .allocate(capacity: count * XenLimits.directSegmentsMax)
            freeTasks = .allocate(capacity: count)
            ended = .allocate(capacity: count)
            taskOfSlot = .allocate(capacity: count)
            capacity = count
        }
        tasks.initialize(repeating: BlkifTask(), count: count)
        for task in 0..<count { freeTasks[task] = UInt16(count - 1 - task) }
        freeCount = count
        endedCount = 0
    }

    /// The device watches the channel from now on.
    mutating func listen(_ event: consuming EventChannel) {
        self.event = consume event
        isDeaf = false
    }

    /// Takes nothing any more; requests in flight still get their answers.
    mutating func quieten() {
        isQuiet = true
        isDeaf = true
    }

    /// Gives the ring back to be unmapped, when the last request has been answered.
    mutating func takeRing() -> SharedRing? {
        precondition(inFlight == 0, "BlkifQueue I2: the ring went under a request")
        defer { ring = nil }
        event = nil
        isQuiet = true
        isDeaf = true
        return ring
    }

    private func storage(_ task: Int) -> SegmentStorage {
        SegmentStorage(
            segments: inlineSegments + task * XenLimits.directSegmentsMax,
            pins: inlinePins + task * XenLimits.directSegmentsMax)
    }
}

extension BlkifQueue {
    /// What stopped `takeRequests`.
    enum Intake: BitwiseCopyable {
        case idle
        /// The ring is empty and the guest will send an event.
        case empty
        /// The ring has more, but it is somebody else's turn.
        case more
        /// The ring has more, but there is no room, or a barrier is in the way.
        case stalled
        /// The guest broke the rules.
        case broken
    }

    /// Moves requests from the ring to `requests`.
    mutating func takeRequests(
        _ device: inout BlkifState, _ requests: inout RequestQueue
    ) -> Intake {
        guard !isQuiet, let ring else { return .idle }
        // LIMIT: both the requests and the looks at an index that a guest may keep moving.
        var budget = XenLimits.requestsPerTurnMax
        while budget > 0 {
            let producer = ring.requestProducer()
            let waiting = producer &- taken
            // Both: the guest may have moved its index backwards.
            guard producer &- answered <= ring.size, waiting <= ring.size &- (taken &- answered)
            else {
                isQuiet = true
                return .broken
            }
            if waiting == 0 {
                if armEvent(ring) { return .empty }
                budget -= 1
                continue
            }
            for _ in 0..<min(Int(waiting), budget) {
                guard takeOne(ring, &device, &requests) else { return .stalled }
                budget -= 1
            }
        }
        return .more
    }

    /// ring.h: RING_FINAL_CHECK_FOR_REQUESTS. True when there is still none.
    private func armEvent(_ ring: SharedRing) -> Bool {
        ring.storeRequestEvent(taken &+ 1)
        // ORDER: the wish must be visible before the index is read again, or a request that is
        // added in between is neither seen nor announced. Pairs with the front end's full barrier.
        SharedMemory.fence()
        return ring.requestProducer() == taken
    }

    private mutating func takeOne(
        _ ring: SharedRing, _ device: inout BlkifState, _ requests: inout RequestQueue
    ) -> Bool {
        guard !requests.isFull, !device.isAtItsShare, !isBarred, freeCount > 0 else {
            return false
        }
        ring.copyRequest(ring.slot(taken), to: device.entry)
        let entry = UnsafeRawBufferPointer(start: device.entry, count: ring.layout.entryBytes)
        let request = BlkifRequest(decoding: entry.bytes, layout: ring.layout)
        let isBarrier = request.operation == .writeBarrier
        // A barrier starts when all before it has ended.
        if isBarrier && inFlight > 0 { return false }

        let number = freeTasks[freeCount - 1]
        let task = tasks + Int(number)
        task.pointee = BlkifTask(
            id: request.id, operation: request.echoedOperation,
            slot: UInt16(ring.slot(taken)), isBarrier: isBarrier)
        let slot = BlkifTaskSlot(
            task: task, inline: storage(Int(number)), tag: UInt32(index) << 16 | UInt32(number))
        switch device.admit(request, ring.layout, slot, &requests) {
        case .stalled: return false
        case .submitted:
            inFlight += 1
            isBarred = isBarrier
        case .finished(let status):
            task.pointee.status = status
            end(number, &device)
        }
        freeCount -= 1
        taskOfSlot[Int(task.pointee.slot)] = number
        taken &+= 1
        device.count.requests += 1
        return true
    }

    /// The engine has answered.
    mutating func complete(task number: UInt16, status: BlkifStatus, _ device: inout BlkifState) {
        precondition(Int(number) < capacity, "a reply to a tag that was never given out")
        let task = tasks + Int(number)
        precondition(task.pointee.isInFlight, "a reply to a request that is not in flight")
        task.pointee.isInFlight = false
        task.pointee.status = status
        inFlight -= 1
        device.inFlight -= 1
        if task.pointee.isBarrier { isBarred = false }
        end(number, &device)
    }

    /// Lets go of the guest's pages and queues the answer.
    private mutating func end(_ number: UInt16, _ device: inout BlkifState) {
        let task = tasks + Int(number)
        let list = task.pointee.pooledList
        device.release(task, list >= 0 ? device.lists[list] : storage(Int(number)))
        if task.pointee.status != .okay { device.count.failures += 1 }
        ended[endedCount] = number
        endedCount += 1
    }
}

extension BlkifQueue {
    /// Shows the guest the answers since the last time, and sends an event if it wants one: once.
    mutating func publish(_ device: inout BlkifState) {
        guard endedCount > 0, let ring else { return }
        let old = answered
        for position in 0..<endedCount { answer(ended[position], ring) }
        endedCount = 0
        // ORDER: the index must be visible before the guest's wish is read; pairs with the front
        // end's full barrier between writing its wish and reading the index.
        SharedMemory.fence()
        // ring.h: RING_PUSH_RESPONSES_AND_CHECK_NOTIFY
        guard answered &- ring.responseEvent() < answered &- old else { return }
        event?.notify()
        device.count.notifications += 1
    }

    /// A response takes the next entry of the ring. If another request is there that is not
    /// answered yet, it moves to the entry of the one that is (I3); the journal makes both steps
    /// safe against the end of the daemon.
    private mutating func answer(_ number: UInt16, _ ring: SharedRing) {
        let task = tasks[Int(number)]
        let target = ring.slot(answered)
        ring.storeJournal(
            AnswerJournal(
                index: answered, vacant: UInt32(task.slot), id: task.id,
                operation: task.operation, status: task.status.rawValue))
        if target != UInt32(task.slot) {
            ring.enterJournalPhase(.moving)
            ring.moveRequest(from: target, to: UInt32(task.slot))
            let other = taskOfSlot[Int(target)]
            tasks[Int(other)].slot = task.slot
            taskOfSlot[Int(task.slot)] = other
        }
        ring.enterJournalPhase(.answering)
        ring.storeResponse(
            target, id: task.id, operation: task.operation, status: task.status.rawValue)
        answered &+= 1
        ring.storeResponseProducer(answered)
        freeTasks[freeCount] = number
        freeCount += 1
    }
}

extension SharedRing {
    /// Finishes the answer that a back end before us was writing when it ended, if it was.
    func finishAnswer() {
        let answered = responseProducer()
        guard let (phase, entry) = loadJournal(), entry.index == answered, entry.vacant < size
        else { return }
        let target = slot(answered)
        if phase == .moving {
            moveRequest(from: target, to: entry.vacant)
            enterJournalPhase(.answering)
        }
        storeResponse(target, id: entry.id, operation: entry.operation, status: entry.status)
        storeResponseProducer(answered &+ 1)
    }
}
