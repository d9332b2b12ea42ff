// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One queue of the device: its place in guest memory, its progress and its requests in flight.
///
/// Owned by the shard. Invariants:
/// I1 `inFlight` is the number of tasks with `isInFlight`;
/// I2 `ring` changes only while `inFlight` is 0, except to nil when the front end has gone;
/// I3 a queue with a `fault` neither reads nor writes its ring.
///
/// ```
///            SET_VRING_KICK               SET_VRING_ENABLE 1
///   stopped ----------------> started ----------------------> running
///      ^                         |                              |
///      +------ GET_VRING_BASE ---+----- after the last reply ---+     broken: until stopped
/// ```
struct Virtqueue: ~Copyable {
    let index: UInt32
    private(set) var size: UInt16 = 128
    private(set) var addresses: QueueAddresses?
    private(set) var ring: SplitRing?
    var isStarted = false
    var isEnabled = false
    var fault: RingFault?

    var kick: SharedEvent?
    var call: SharedEvent?
    var error: SharedEvent?

    /// virtio: last_avail_idx, the next available entry to take.
    var nextAvailable: UInt16 = 0
    /// Used entries written; the guest sees those below `publishedUsed`.
    private(set) var usedIndex: UInt16 = 0
    private(set) var publishedUsed: UInt16 = 0
    private var hasNotified = false

    /// What survives our death; see `Virtqueue+Tracking`.
    var tracking = InflightTracking()

    private(set) var inFlight = 0
    private(set) var tasks: UnsafeMutablePointer<RequestTask>
    private var inlineSegments: UnsafeMutablePointer<DataSegment>
    private var taskCapacity = 0

    init(index: UInt32) {
        self.index = index
        tasks = .allocate(capacity: 0)
        inlineSegments = .allocate(capacity: 0)
    }

    deinit {
        tasks.deallocate()
        inlineSegments.deallocate()
    }

    var isRunning: Bool { isStarted && isEnabled && fault == nil && ring != nil }

    /// The size for the next start. False: not the size of a split ring; the queue cannot run.
    mutating func resize(to count: UInt32) -> Bool {
        let isLegal = count <= VhostLimits.queueSizeMax && count.nonzeroBitCount == 1
        size = isLegal ? UInt16(count) : 0
        return isLegal
    }

    mutating func locate(_ addresses: QueueAddresses) { self.addresses = addresses }

    /// Finds the ring in the memory that is mapped now. Nothing may be in flight (I2).
    mutating func map(in memory: borrowing GuestMemory) {
        precondition(inFlight == 0, "Virtqueue I2: the ring moved under a request")
        guard let addresses else {
            ring = nil
            return
        }
        ring = SplitRing(addresses, size: size, memory: memory)
        guard let ring else { return }
        ring.clearUsedFlags()
        usedIndex = ring.usedIndex()
        publishedUsed = usedIndex
        reserveTasks()
    }

    /// The same place, whatever the flags: they concern only the dirty log.
    func isAt(_ other: QueueAddresses) -> Bool {
        guard let addresses, ring != nil else { return false }
        return addresses.descriptorTable == other.descriptorTable
            && addresses.availableRing == other.availableRing
            && addresses.usedRing == other.usedRing
    }

    /// Looks at the ring in the next turn, as a kick may have come while nobody listened.
    func resume(_ device: inout DeviceState) {
        if isRunning { kick?.signal(&device) }
    }

    /// The ring is looked at anew, even where its place is the old one: a driver that has reset the
    /// device begins with a used index of its own.
    mutating func start(in memory: borrowing GuestMemory) {
        map(in: memory)
        isStarted = true
        hasNotified = false
        tracking.start()
    }

    /// Stops taking requests; those in flight still get their replies.
    mutating func stop() {
        isStarted = false
        kick = nil
    }

    /// The ring goes back to the front end, all requests answered. What a broken one (I3) still owed
    /// is forgotten: whoever starts it again has reset the device.
    mutating func giveBack() {
        precondition(inFlight == 0, "Virtqueue I2: given back under a request")
        guard fault != nil else { return }
        fault = nil
        usedIndex = publishedUsed
        tracking.forgetTaken()
    }

    /// Back to the state before the front end connected; replies that are still to come are
    /// dropped, because the front end has taken its memory back.
    mutating func reset() {
        stop()
        call = nil
        error = nil
        isEnabled = false
        fault = nil
        addresses = nil
        ring = nil
        size = 128
        nextAvailable = 0
        usedIndex = 0
        publishedUsed = 0
        tracking = InflightTracking()
    }

    private mutating func reserveTasks() {
        guard taskCapacity < Int(size) else { return }
        tasks.deallocate()
        inlineSegments.deallocate()
        taskCapacity = Int(size)
        tasks = .allocate(capacity: taskCapacity)
        tasks.initialize(repeating: RequestTask(), count: taskCapacity)
        inlineSegments = .allocate(capacity: taskCapacity * VhostLimits.inlineDataSegments)
    }
}

extension Virtqueue {
    /// What stopped `takeRequests`.
    enum Intake: BitwiseCopyable {
        /// Not running.
        case idle
        /// The ring is empty and the guest will kick.
        case empty
        /// The ring has more, but it is somebody else's turn.
        case more
        /// The ring has more, but there is no room.
        case stalled
        case broken(RingFault)
    }

    /// Moves requests from the ring to `requests`.
    mutating func takeRequests(
        _ device: inout DeviceState, _ requests: inout RequestQueue
    ) -> Intake {
        guard isRunning, let ring else { return .idle }
        guard !device.isPaused else { return .stalled }
        // LIMIT: both the requests and the looks at an index that a guest may keep moving.
        var budget = VhostLimits.requestsPerTurnMax
        do throws(RingFault) {
            guard try takeLeft(ring, &device, &requests, &budget) else { return .stalled }
            while budget > 0 {
                let waiting = ring.availableIndex() &- nextAvailable
                guard waiting <= ring.size else { throw .availableIndexTooFar }
                if waiting == 0 {
                    if armKick(ring, device.features) { return .empty }
                    budget -= 1
                    continue
                }
                for _ in 0..<min(Int(waiting), budget) {
                    guard try takeOne(ring, &device, &requests) else { return .stalled }
                    budget -= 1
                }
            }
            return .more
        } catch {
            fault = error
            self.error?.signal(&device)
            return .broken(error)
        }
    }

    /// Asks for a kick at the next request; true when there is still none.
    private func armKick(_ ring: SplitRing, _ features: VirtioFeatures) -> Bool {
        guard features.contains(.eventIndex) else { return true }
        ring.storeAvailableEvent(nextAvailable)
        // ORDER: the event must be visible before the index is read again, or a request that is
        // added in between is neither seen nor kicked. Pairs with the driver's full barrier.
        SharedMemoryFence.full()
        return ring.availableIndex() == nextAvailable
    }

    private mutating func takeOne(
        _ ring: SplitRing, _ device: inout DeviceState, _ requests: inout RequestQueue
    ) throws(RingFault) -> Bool {
        let head = ring.availableEntry(at: nextAvailable)
        guard head < ring.size else { throw .headOutOfRange }
        guard let admission = try admit(head, ring, &device, &requests) else { return false }
        // Before the answer, which may come at once: what is answered was taken.
        tracking.markTaken(head)
        nextAvailable &+= 1
        settle(head, admission, writableBytes: device.chain.writableBytes)
        return true
    }

    /// Reads the request at `head`; nil: no room now.
    mutating func admit(
        _ head: UInt16, _ ring: SplitRing, _ device: inout DeviceState,
        _ requests: inout RequestQueue
    ) throws(RingFault) -> Admission? {
        guard !requests.isFull, !device.isAtItsShare, device.leftRanges.isEmpty else { return nil }
        let task = tasks + Int(head)
        guard !task.pointee.isInFlight else { throw .headInFlight }
        try device.chain.gather(
            ring, head: head, isIndirectAllowed: device.features.contains(.indirectDescriptors),
            memory: &device.memory)
        let slot = TaskSlot(
            task: task, inlineSegments: inlineSegments + Int(head) * VhostLimits.inlineDataSegments,
            tag: index << 16 | UInt32(head))
        let admission = try device.admit(slot, &requests)
        if case .stalled = admission { return nil }
        device.requestsTaken += 1
        return admission
    }

    /// Counts what the engine has, and answers what it need not have.
    mutating func settle(_ head: UInt16, _ admission: Admission, writableBytes: UInt64) {
        guard case .finished(let status, let dataByteCount) = admission else {
            inFlight += 1
            return
        }
        // virtio: used.len counts bytes from the buffer's start without a gap.
        let isFilled = dataByteCount == writableBytes
        let used = UInt32(truncatingIfNeeded: dataByteCount) + (isFilled ? 1 : 0)
        answer(head, tasks[Int(head)].statusByte, status, used)
    }
}

extension Virtqueue {
    /// One of the task's requests has its reply.
    mutating func complete(
        head: UInt16, status: VirtioBlockStatus, _ device: inout DeviceState
    ) {
        precondition(Int(head) < taskCapacity, "a reply to a tag that was never given out")
        let task = tasks + Int(head)
        precondition(task.pointee.isInFlight, "a reply to a request that is not in flight")
        if status.rawValue > task.pointee.status.rawValue { task.pointee.status = status }
        task.pointee.remaining -= 1
        device.engineRequests -= 1
        guard task.pointee.remaining == 0 else { return }
        if task.pointee.pooledList >= 0 {
            device.lists.giveBack(task.pointee.pooledList)
            task.pointee.pooledList = -1
        }
        task.pointee.isInFlight = false
        inFlight -= 1
        device.inFlight -= 1
        let final = task.pointee.status
        answer(
            head, task.pointee.statusByte, final, final == .ok ? task.pointee.usedByteCount : 0)
    }

    private mutating func answer(
        _ head: UInt16, _ statusByte: UnsafeMutableRawPointer?, _ status: VirtioBlockStatus,
        _ usedByteCount: UInt32
    ) {
        // The front end may have gone, or the queue may have been broken meanwhile (I3).
        guard let ring, fault == nil, let statusByte else { return }
        statusByte.storeBytes(of: status.rawValue, as: UInt8.self)
        ring.storeUsed(at: usedIndex, head: head, byteCount: usedByteCount)
        tasks[Int(head)].answeredBefore = tracking.link(head)
        usedIndex &+= 1
    }

    /// Shows the guest all answers since the last time, and calls it if it wants that: once.
    mutating func publish(_ device: inout DeviceState) {
        guard usedIndex != publishedUsed, fault == nil, let ring else { return }
        let old = publishedUsed
        ring.storeUsedIndex(usedIndex)
        publishedUsed = usedIndex
        tracking.clearBatch(of: usedIndex &- old, upTo: usedIndex, tasks)
        // ORDER: the index must be visible before the guest's wish is read; pairs with the
        // driver's full barrier between writing its wish and reading the index.
        SharedMemoryFence.full()
        if wantsCall(ring, old, device.features) { call?.signal(&device) }
    }

    private mutating func wantsCall(
        _ ring: SplitRing, _ old: UInt16, _ features: VirtioFeatures
    ) -> Bool {
        guard features.contains(.eventIndex) else { return !ring.interruptsAreUnwanted }
        guard hasNotified else {
            hasNotified = true
            return true
        }
        // virtio 1.2, 2.7.10: call when the event lies in old ..< new.
        return publishedUsed &- ring.usedEvent() &- 1 < publishedUsed &- old
    }
}
