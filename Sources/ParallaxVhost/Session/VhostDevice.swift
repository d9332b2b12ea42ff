// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore

/// What is served, and where.
package struct VhostExport: Sendable {
    /// The VDI's name; its first 20 bytes are the disk's serial number.
    package var name: String
    package var sectors: UInt64
    package var readOnly: Bool
    package var socketPath: String
    /// What a guest that goes on must find again. nil: a disk that no other is told from.
    package var identity: VhostDiskIdentity?

    package init(
        name: String, sectors: UInt64, readOnly: Bool, socketPath: String,
        identity: VhostDiskIdentity? = nil
    ) {
        self.name = name
        self.sectors = sectors
        self.readOnly = readOnly
        self.socketPath = socketPath
        self.identity = identity
    }
}

/// A virtio-blk device behind a vhost-user socket: one VDI, one front end at a time.
///
/// Owned by a shard; all calls come from its thread. In each turn of its loop in which the shard
/// called `handleEvent` or `complete`, it calls `finishBatch` at the end.
///
/// Invariants:
/// I1 guest memory is mapped while a request of the engine may use it: neither a change of the
///    memory table nor the end of the connection unmaps before `state.inFlight` is 0;
/// I2 at most one connection; a new one is accepted only when the last request of the one before
///    has been answered;
/// I3 after the front end has gone, nothing is written to its memory by this type;
/// I4 no system call waits for a front end; where one can make us wait, the watchdog ends that, and
///    it was the last front end of this device.
///
/// ```
///              accept                front end goes
///   listening ---------> connected ------------------> draining --+
///       ^                    |                                    | last reply: unmap
///       +--------------------|------------------------------------+
///                            | stop
///                            v               last reply
///                         stopping --------------------------> stopped
/// ```
package struct VhostDevice: ~Copyable {
    enum Phase: BitwiseCopyable {
        case listening
        case connected
        case draining
        case stopping
        case stopped
    }

    /// Numbers of the descriptors in `EventToken.source`.
    enum Source {
        static let listener: UInt32 = 0
        static let connection: UInt32 = 1
        static let firstKick: UInt32 = 16
    }

    /// A message that is answered when requests in flight have ended.
    enum Waiting: BitwiseCopyable {
        case queueBase(QueueNumber)
        case memoryTable(MemoryTable)
        case removeMemoryRegion(MemoryRegion)
    }

    package let export: VhostExport
    var phase = Phase.listening
    var listener: ListeningSocket?
    /// Held for the moment when the process has no file descriptor left: see `turnAway`.
    var spare: OwnedFileDescriptor?
    var connection: Connection?
    var state: DeviceState
    /// What the front end keeps for us over our death.
    var inflight: InflightArea?
    let queues: UnsafeMutablePointer<Virtqueue>
    var waiting: (message: Waiting, header: MessageHeader)?

    /// Bit N: queue N has answers to publish.
    var touchedQueues: UInt32 = 0
    /// Bit N: queue N has requests that found no room.
    var stalledQueues: UInt32 = 0
    /// Who is asked first when there is room again: the one behind the last that was.
    private var firstStalled = 0

    var notices = FixedRing<VhostNotice>(minimumCapacity: 16)
    var noticesGiven: UInt64 = 0
    var count = VhostCounters()

    /// Binds the socket and listens; nobody is accepted before `start`.
    package init(session: UInt32, vdi: UInt32, export: VhostExport) throws(VhostError) {
        listener = try ListeningSocket(path: export.socketPath)
        spare = Self.makeSpare()
        state = DeviceState(session: session, vdi: vdi, export: export)
        queues = .allocate(capacity: VhostLimits.queueCountMax)
        for index in 0..<VhostLimits.queueCountMax {
            (queues + index).initialize(to: Virtqueue(index: UInt32(index)))
        }
        self.export = export
    }

    deinit {
        precondition(state.inFlight == 0, "VhostDevice I1: destroyed under the engine")
        queues.deinitialize(count: VhostLimits.queueCountMax)
        queues.deallocate()
    }

    /// Requests of the guest that the engine has.
    package var inFlight: Int { state.inFlight }

    /// After `stop`: nothing of this device is in use any more.
    package var isDrained: Bool { phase == .stopped }

    package var isConnected: Bool { phase == .connected }

    package var counters: VhostCounters {
        var result = count
        result.requests = state.requestsTaken
        return result
    }

    /// The next thing for the log. Each kind is told once for each connection.
    package mutating func takeNotice() -> VhostNotice? { notices.popFirst() }

    mutating func give(_ notice: VhostNotice) {
        guard noticesGiven & notice.kindBit == 0, !notices.isFull else { return }
        noticesGiven |= notice.kindBit
        notices.append(notice)
    }

    func token(_ source: UInt32) -> EventToken {
        EventToken(session: state.session, source: source)
    }
}

extension VhostDevice {
    /// From now on front ends can connect.
    package mutating func start<R: EventRegistrar & ~Copyable>(registrar: inout R) {
        watchListener(&registrar)
    }

    mutating func watchListener<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        guard let number = listener?.number else { return }
        registrar.watch(
            fileDescriptor: number, token: token(Source.listener), interest: .readable)
    }

    /// A descriptor that `start` or a later call watches is ready.
    package mutating func handleEvent<R: EventRegistrar & ~Copyable>(
        source: UInt32, interest: EventInterest, registrar: inout R, requests: inout RequestQueue
    ) {
        switch source {
        case Source.listener: acceptFrontEnds(&registrar)
        case Source.connection: receiveMessages(&registrar)
        default:
            let queue = Int(source) - Int(Source.firstKick)
            guard queue >= 0, queue < VhostLimits.queueCountMax else { return }
            queues[queue].kick?.drain()
            takeRequests(queue, &requests)
        }
    }

    /// The engine has answered the request with this tag.
    package mutating func complete(tag: UInt32, status: BlockStatus) {
        let queue = Int(tag >> 16)
        precondition(queue < VhostLimits.queueCountMax, "a reply to a tag that was never given out")
        queues[queue].complete(
            head: UInt16(truncatingIfNeeded: tag), status: VirtioBlockStatus(status), &state)
        touchedQueues |= 1 << queue
    }

    /// The end of a turn: shows the guest its answers with at most one call for each queue, takes
    /// what had found no room, and goes on with what had waited for the last reply.
    package mutating func finishBatch<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue
    ) {
        endForCause(&registrar)
        // Also when the front end has gone: the engine answers what has been taken.
        state.submitLeftRanges(&requests)
        publishTouched()
        retryStalled(&requests)
        publishTouched()
        finishWaiting(&registrar)
        endForCause(&registrar)
        guard state.inFlight == 0 else { return }
        switch phase {
        case .draining: returnToListening(&registrar)
        case .stopping: finishStopping(&registrar)
        case .listening, .connected, .stopped: break
        }
    }

    private mutating func hasLostMemory() -> Bool {
        state.memory.loss.hasHappened || inflight?.hasVanished == true
    }

    /// Ends the connection of a front end that endangers others.
    private mutating func endForCause<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        guard phase == .connected else { return }
        if state.hasHeldUp {
            give(.heldUp)
        } else if hasLostMemory() {
            give(.memoryVanished)
        } else {
            return
        }
        disconnect(&registrar)
    }

    /// The VDI has a new size; the front end is told, and so is the guest by it.
    package mutating func resize(sectors: UInt64) {
        state.sectors = sectors
        connection?.sendConfigChanged()
    }

    /// Ends the service: the path goes at once, the connection with the last reply. Requests in
    /// flight get their replies; `isDrained` tells when all is over.
    package mutating func stop<R: EventRegistrar & ~Copyable>(registrar: inout R) {
        guard phase != .stopping, phase != .stopped else { return }
        registrar.unwatch(token: token(Source.listener))
        listener = nil
        if phase == .connected { quieten(&registrar) }
        phase = .stopping
        guard state.inFlight == 0 else { return }
        publishTouched()
        finishStopping(&registrar)
    }
}

extension VhostDevice {
    private mutating func takeRequests(_ queue: Int, _ requests: inout RequestQueue) {
        let bit: UInt32 = 1 << queue
        touchedQueues |= bit
        stalledQueues &= ~bit
        let intake = queues[queue].takeRequests(&state, &requests)
        if let count = queues[queue].tracking.takeOverCount() {
            give(.tookOver(queue: UInt32(queue), requests: count))
        }
        switch intake {
        case .idle, .empty: break
        case .stalled: stalledQueues |= bit
        // Our own kick brings us back in the next turn, after the other queues and sessions.
        case .more: queues[queue].kick?.signal(&state)
        case .broken(let fault):
            count.brokenQueues += 1
            give(.queueBroken(queue: UInt32(queue), fault))
        }
    }

    private mutating func publishTouched() {
        // What was read from memory that has gone, or written to it, deserves no answer.
        if touchedQueues != 0, hasLostMemory() { touchedQueues = 0 }
        while touchedQueues != 0 {
            let queue = touchedQueues.trailingZeroBitCount
            touchedQueues &= touchedQueues - 1
            queues[queue].publish(&state)
        }
    }

    private mutating func retryStalled(_ requests: inout RequestQueue) {
        guard stalledQueues != 0, phase == .connected, !state.isPaused else { return }
        let first = firstStalled
        for offset in 0..<VhostLimits.queueCountMax {
            guard !requests.isFull, !state.isAtItsShare else { break }
            let queue = (first + offset) % VhostLimits.queueCountMax
            guard stalledQueues & (1 << queue) != 0 else { continue }
            takeRequests(queue, &requests)
            firstStalled = (queue + 1) % VhostLimits.queueCountMax
        }
        // With requests in flight their replies bring us back, and the shard when its queue is not full any
        // more. Without, only a kick can.
        guard state.inFlight == 0, !requests.isFull else { return }
        var left = stalledQueues
        while left != 0 {
            queues[left.trailingZeroBitCount].kick?.signal(&state)
            left &= left - 1
        }
    }

    /// Publishes everything, as a change of memory or of a ring's place is about to come.
    mutating func publishAll() {
        touchedQueues = (1 << UInt32(VhostLimits.queueCountMax)) - 1
        publishTouched()
    }
}
