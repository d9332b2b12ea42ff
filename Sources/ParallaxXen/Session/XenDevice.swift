// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore

/// A virtual disk of a Xen domain: one VDI behind the blkif protocol.
///
/// Owned by a shard; all calls come from its thread. In each turn of its loop in which the shard
/// called `handleEvent` or `complete`, it calls `finishBatch` at the end.
///
/// Invariants:
/// I1 the guest's pages stay mapped while a request of the engine may use them: whatever ends the
///    connection, nothing is unmapped before `state.inFlight` is 0;
/// I2 a device that is not connected has no page mapped and no event channel bound;
/// I3 our state is written to xenstore only after what it promises has been done;
/// I4 a daemon that stops leaves the guest connected: its successor goes on with the same ring;
/// I8 a ring is only ever served with the disk that it was connected to;
/// I9 one device of a guest is served once in the process.
///
/// ```
///              offer, connect           close, leave, fail
///   waiting ------------------> serving ------------------> draining --- last reply ---> released
///      ^                                                                                    |
///      +------------------------- the front end begins anew --------------------------------+
/// ```
package struct XenDevice: ~Copyable {
    /// Numbers of the descriptors in `EventToken.source`.
    enum Source {
        static let store: UInt32 = 0
        static let timer: UInt32 = 1
        static let wake: UInt32 = 2
        static let firstQueue: UInt32 = 16
    }

    /// What follows when the last request in flight has ended.
    enum Pending: BitwiseCopyable {
        case nothing
        /// Release, then Closed.
        case close
        /// Release, then end; our nodes go.
        case leave
        /// Release, then end, and not a word to the guest (I4).
        case abandon
    }

    package let export: XenExport
    let library: XenLibrary
    var store: StoreConnection
    var node = XenNode()
    /// Until the end: no other device of the process is this one of the guest.
    var claim: DeviceClaim?
    var state: BlkifState
    let queues: UnsafeMutablePointer<BlkifQueue>
    var queueCount = 0

    /// What the other side may know of us.
    var ours = XenbusState.initialising
    var isWanted = true
    var hasFailed = false
    var isEnded = false
    /// xenstore has failed us, and is not listened to any more.
    var hasLostStore = false
    var pending = Pending.nothing
    /// The first connection goes on with a ring that is in use.
    var isTakingOver = false
    /// The ring that is in use is another disk's: it is not touched, and the guest is asked to let
    /// go of it.
    var isForeign = false
    /// The front end's keys as they were when it was connected; nil for those that were not there.
    var connectedKeys: [String: String?] = [:]

    /// Wakes us in the next turn when a queue has more than one turn allows.
    let wake: Int32
    var timer: Int32 = -1
    /// Bit N: queue N has answers to publish.
    var touchedQueues: UInt32 = 0
    /// Bit N: queue N has requests that found no room.
    var stalledQueues: UInt32 = 0
    /// Who is asked first when there is room again: the one behind the last that was.
    private var firstStalled = 0

    var notices: [XenNotice] = []

    /// Opens xenstore and finds the device, or makes it; nothing is served before `start`.
    package static func open(
        session: UInt32, vdi: UInt32, export: XenExport, library: XenLibrary
    ) throws(XenError) -> XenDevice {
        var device = XenDevice(session: session, vdi: vdi, export: export, library: library)
        try device.find()
        return device
    }

    private init(session: UInt32, vdi: UInt32, export: XenExport, library: XenLibrary) {
        store = StoreConnection(library)
        state = BlkifState(session: session, vdi: vdi, export: export, library: library)
        queues = .allocate(capacity: XenLimits.queueCountMax)
        for index in 0..<XenLimits.queueCountMax {
            (queues + index).initialize(to: BlkifQueue(index: index))
        }
        wake = parallax_eventfd_create(0, 1)
        self.library = library
        self.export = export
    }

    private mutating func find() throws(XenError) {
        guard wake >= 0 else { throw .outOfFileDescriptors }
        try store.open()
        node = try XenNode(export.place, store)
        // Before the claim: who may serve the device must not find it taken by us, who may not.
        _ = try node.isMade(export.place, store)
        claim = library.claims.claim(node.frontend)
        guard claim != nil else { throw Self.inUse(export.place) }
        try node.make(export.place, store)
        try store.watch(node.frontend)
        try store.watch(node.backend + "/online")
        try findRing()
    }

    /// What an earlier back end has left. Its key is missing where a daemon made the connection
    /// that did not write it yet; the ring is then what we are told that it is.
    private mutating func findRing() throws(XenError) {
        let stored: XenbusState
        let theirs: XenbusState
        let owner: String?
        do throws(StoreLost) {
            stored = XenbusState(text: try store.value(node.backend + "/state"))
            theirs = XenbusState(text: try store.value(node.frontend + "/state"))
            owner = try store.value("\(node.backend)/\(XenDiskIdentity.key)")
        } catch { throw .noStore }
        let isSameDisk = owner == nil || owner == "\(export.identity)"
        ours = XenbusMachine.initial(stored: stored, theirs: theirs, isSameDisk: isSameDisk)
        isTakingOver = stored == .connected && ours == .initWait
        isForeign = stored == .connected && ours == .closing
        guard !isForeign || !export.isRestored else { throw Self.inUse(export.place) }
    }

    private static func inUse(_ place: XenPlace) -> XenError {
        switch place {
        case .address(let address, _): .deviceInUse(address)
        case .node(let path): .nodeInUse(path)
        }
    }

    deinit {
        precondition(state.inFlight == 0, "XenDevice I1: destroyed under the engine")
        queues.deinitialize(count: XenLimits.queueCountMax)
        queues.deallocate()
        if wake >= 0 { _ = close(wake) }
        if timer >= 0 { _ = close(timer) }
    }

    /// Requests of the guest that the engine has.
    package var inFlight: Int { state.inFlight }

    /// Nothing of this device is in use any more, after `stop` or because its domain is gone.
    package var isDrained: Bool { isEnded }

    package var isConnected: Bool { ours == .connected && queueCount > 0 }

    package var counters: XenCounters {
        var result = state.count
        result.persistentHits = state.cache.hits
        result.persistentEvictions = state.cache.evictions
        result.pagesMapped = UInt64(state.mappedCount)
        return result
    }

    /// The next thing for the log.
    package mutating func takeNotice() -> XenNotice? {
        notices.isEmpty ? nil : notices.removeFirst()
    }

    mutating func give(_ notice: XenNotice) {
        // LIMIT: a guest can come and go as fast as it likes; the log need not follow.
        if notices.count < 16 { notices.append(notice) }
    }

    func token(_ source: UInt32) -> EventToken {
        EventToken(session: state.session, source: source)
    }
}

extension XenDevice {
    /// From now on the guest is served.
    package mutating func start<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue
    ) {
        registrar.watch(
            fileDescriptor: store.fileDescriptor, token: token(Source.store), interest: .readable)
        registrar.watch(fileDescriptor: wake, token: token(Source.wake), interest: .readable)
        if isForeign { turnAway(&registrar) }
        look(&registrar, &requests)
    }

    /// A descriptor that `start` or a later call watches is ready.
    package mutating func handleEvent<R: EventRegistrar & ~Copyable>(
        source: UInt32, interest: EventInterest, registrar: inout R, requests: inout RequestQueue
    ) {
        guard !isEnded else { return }
        switch source {
        case Source.store: hearStore(&registrar, &requests)
        case Source.timer: closeByForce(&registrar)
        case Source.wake:
            var ignored: UInt64 = 0
            _ = parallax_eventfd_read(wake, &ignored)
        default:
            let queue = Int(source) - Int(Source.firstQueue)
            guard queue >= 0, queue < queueCount else { return }
            queues[queue].event?.drain()
            takeRequests(queue, &registrar, &requests)
        }
    }

    /// The engine has answered the request with this tag.
    package mutating func complete(tag: UInt32, status: BlockStatus) {
        let queue = Int(tag >> 16)
        precondition(queue < queueCount, "a reply to a tag that was never given out")
        queues[queue].complete(
            task: UInt16(truncatingIfNeeded: tag), status: BlkifStatus(status), &state)
        touchedQueues |= 1 << queue
    }

    /// The end of a turn: shows the guest its answers with at most one event for each queue, takes
    /// what had found no room, and goes on with what had waited for the last reply.
    package mutating func finishBatch<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue
    ) {
        publishTouched()
        retryStalled(&registrar, &requests)
        publishTouched()
        if pending != .nothing, state.inFlight == 0 {
            finishPending(&registrar)
            look(&registrar, &requests)
        }
    }

    /// Ends the service; `isDrained` tells when all is over. A guest that is kept finds the disk
    /// again when the daemon is back; otherwise it is asked to let go, and has a time to do so.
    package mutating func stop<R: EventRegistrar & ~Copyable>(
        keepingGuest: Bool, registrar: inout R, requests: inout RequestQueue
    ) {
        guard !isEnded else { return }
        isWanted = false
        if keepingGuest {
            pending = .abandon
            quieten(&registrar)
            if state.inFlight == 0 { finishPending(&registrar) }
        } else {
            if pending == .nothing { look(&registrar, &requests) }
            if !isEnded { startTimer(&registrar) }
        }
    }
}

extension XenDevice {
    mutating func takeRequests<R: EventRegistrar & ~Copyable>(
        _ queue: Int, _ registrar: inout R, _ requests: inout RequestQueue
    ) {
        let bit: UInt32 = 1 << queue
        touchedQueues |= bit
        stalledQueues &= ~bit
        switch queues[queue].takeRequests(&state, &requests) {
        case .idle, .empty: break
        case .stalled: stalledQueues |= bit
        // Back in the next turn, after the other queues and sessions.
        case .more:
            stalledQueues |= bit
            _ = parallax_eventfd_write(wake, 1)
        case .broken: fail(.producerTooFar(queue: queue), &registrar)
        }
    }

    mutating func publishTouched() {
        while touchedQueues != 0 {
            let queue = touchedQueues.trailingZeroBitCount
            touchedQueues &= touchedQueues - 1
            queues[queue].publish(&state)
        }
    }

    private mutating func retryStalled<R: EventRegistrar & ~Copyable>(
        _ registrar: inout R, _ requests: inout RequestQueue
    ) {
        guard stalledQueues != 0, pending == .nothing else { return }
        let first = firstStalled
        for offset in 0..<XenLimits.queueCountMax {
            guard !requests.isFull, !state.isAtItsShare else { break }
            let queue = (first + offset) % XenLimits.queueCountMax
            guard stalledQueues & (1 << queue) != 0 else { continue }
            takeRequests(queue, &registrar, &requests)
            firstStalled = (queue + 1) % XenLimits.queueCountMax
        }
        // With requests in flight their replies bring us back, and the shard when its queue is not full any
        // more. Without, only we ourselves can.
        if stalledQueues != 0, state.inFlight == 0, !requests.isFull {
            _ = parallax_eventfd_write(wake, 1)
        }
    }
}
