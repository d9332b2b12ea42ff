// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLiburing
internal import Glibc
package import ParallaxCore

/// The reactor over io_uring: one system call a turn submits, waits and collects.
///
/// Readiness is level-triggered by re-arming: a poll request reports once, and after its event was
/// delivered the next `wait` submits it again, which reports at once if the file descriptor is
/// still ready. Poll requests enter the submission queue only inside `wait`, which submits them,
/// so a file descriptor that was closed after `unwatch` is never polled under its old number.
///
/// ```
///  user_data   63..62    61........32   31..........0
///              kind 0    0              slot: command
///              kind 1    generation     slot: watch
///              kind 2    0              0: answer to a cancelled poll, ignored
/// ```
///
/// Owned by one thread (the ring is single-issuer). Invariants: I1 every slot taken from
/// `transfers` is in the submission queue, in the kernel, or in `waitingSlots`.
package struct UringReactor: Reactor, ~Copyable {
    private enum Kind {
        static let shift: UInt64 = 62
        static let command: UInt64 = 0
        static let watch: UInt64 = 1
        static let ignored: UInt64 = 2
    }

    private let ring: OpaquePointer
    private var transfers: TransferTable
    private var watches: WatchTable
    /// Commands that found the submission queue full, and the kernel too busy to empty it.
    private var waitingSlots: FixedRing<UInt32>
    /// Events of this turn that `nextEvent` has not looked at.
    private var turnEvents: UInt32 = 0
    private var unsubmittedCount = 0
    private var hasRegisteredBuffers = false

    // LIMIT: the submission queue; a turn that needs more submits in between.
    private static let submissionCapacityMax = 512

    /// `fileDescriptor`: the store. At most `commandCapacity` commands are in flight. All reactors of a
    /// store share `syncs`.
    package init(
        fileDescriptor: Int32, commandCapacity: Int, watchCapacity: Int = 256,
        syncs: SyncRecord = SyncRecord()
    ) throws(ReactorError) {
        var ring: OpaquePointer?
        // Room for every command and a few poll events each turn; the kernel keeps what does not
        // fit and hands it over later.
        let result = parallax_ring_create(
            &ring, UInt32(min(commandCapacity, Self.submissionCapacityMax)),
            UInt32(2 * commandCapacity + 4 * watchCapacity), fileDescriptor)
        guard result == 0, let ring else {
            throw ReactorError(engine: .ioUring, errno: -result)
        }
        self.ring = ring
        transfers = TransferTable(capacity: commandCapacity, syncs: syncs)
        watches = WatchTable(capacity: watchCapacity)
        waitingSlots = FixedRing(minimumCapacity: commandCapacity)
    }

    deinit {
        Self.finish(ring, inFlightCount: transfers.inFlightCount - waitingSlots.count)
        parallax_ring_destroy(ring)
    }

    package var freeCommandSlots: Int { transfers.freeCount }

    package mutating func registerBuffers(_ buffers: UnsafeBufferPointer<DataSegment>) -> Bool {
        guard let base = buffers.baseAddress, !hasRegisteredBuffers else { return false }
        hasRegisteredBuffers =
            parallax_ring_register_buffers(ring, base, UInt32(buffers.count)) == 0
        return hasRegisteredBuffers
    }

    // MARK: Commands

    package mutating func enqueue(_ command: StoreCommand) {
        start(transfers.acquire(command))
    }

    private mutating func start(_ slot: UInt32) {
        if !push(slot) {
            submit()
            if !push(slot) { waitingSlots.append(slot) }
        }
        unsubmittedCount += 1
        if unsubmittedCount == commandsPerSubmission {
            unsubmittedCount = 0
            Self.check(parallax_ring_flush(ring))
        }
    }

    /// False: the submission queue is full.
    private func push(_ slot: UInt32) -> Bool {
        let transfer = transfers[slot]
        let userData = Kind.command << Kind.shift | UInt64(slot)
        if transfer.command.operation == .sync {
            return parallax_ring_push_sync(ring, userData) == 0
        }
        let piece = transfer.nextPiece
        let isWrite: Int32 = transfer.command.operation == .write ? 1 : 0
        if piece.vectorCount > 1 {
            return parallax_ring_push_vector(
                ring, isWrite, piece.vector, UInt32(piece.vectorCount), piece.offset, userData)
                == 0
        }
        let registered = hasRegisteredBuffers ? Int32(transfer.command.registeredBuffer) : -1
        return parallax_ring_push_transfer(
            ring, isWrite, piece.base, UInt32(piece.byteCount), piece.offset, registered, userData)
            == 0
    }

    // MARK: Watches

    package mutating func watch(
        fileDescriptor: Int32, token: EventToken, interest: EventInterest
    ) {
        if let slot = watches.slot(of: token), watches[slot].fileDescriptor == fileDescriptor {
            if watches[slot].isArmed { cancelPoll(watches.key(of: slot)) }
            watches.renew(slot, interest: interest)
            watches.setPending(slot)
            return
        }
        unwatch(token: token)
        let slot = watches.insert(
            token: token, fileDescriptor: fileDescriptor, interest: interest)
        watches.setPending(slot)
    }

    package mutating func unwatch(token: EventToken) {
        guard let slot = watches.slot(of: token) else { return }
        let isArmed = watches[slot].isArmed
        if isArmed { cancelPoll(watches.key(of: slot)) }
        watches.remove(slot)
        // Submitted here, so that the kernel lets go of the open file before the caller closes
        // its descriptor: the peer sees the end of the connection at once.
        if isArmed { submit() }
    }

    private func cancelPoll(_ key: UInt64) {
        let target = Kind.watch << Kind.shift | key
        let ignored = Kind.ignored << Kind.shift
        if parallax_ring_push_poll_cancel(ring, target, ignored) == 0 { return }
        submit()
        // If there is still no room, the poll stays until it fires; its key is void all the same.
        _ = parallax_ring_push_poll_cancel(ring, target, ignored)
    }

    private mutating func armWatches() {
        let ring = self.ring
        watches.drainPending { watch, key in
            let userData = Kind.watch << Kind.shift | key
            let fileDescriptor = watch.fileDescriptor
            let mask = watch.interest.pollMask
            if parallax_ring_push_poll(ring, fileDescriptor, mask, userData) == 0 { return true }
            Self.check(parallax_ring_submit(ring))
            return parallax_ring_push_poll(ring, fileDescriptor, mask, userData) == 0
        }
    }

    // MARK: Turns

    package mutating func wait(timeoutNanoseconds: Int64) {
        while let slot = waitingSlots.isEmpty ? nil : waitingSlots[0], push(slot) {
            _ = waitingSlots.popFirst()
        }
        armWatches()
        var timeout = timeoutNanoseconds
        if parallax_ring_ready(ring) > 0 { timeout = 0 }
        if !waitingSlots.isEmpty || watches.pendingCount > 0 {
            timeout = min(timeout < 0 ? Self.retryNanoseconds : timeout, Self.retryNanoseconds)
        }
        unsubmittedCount = 0
        Self.check(parallax_ring_submit_and_wait(ring, timeout))
        turnEvents = parallax_ring_ready(ring)
    }

    package mutating func nextEvent() -> ReactorEvent? {
        var userData: UInt64 = 0
        var result: Int32 = 0
        while turnEvents > 0, parallax_ring_pop(ring, &userData, &result) == 1 {
            turnEvents -= 1
            let event =
                switch userData >> Kind.shift {
                case Kind.command: settle(UInt32(truncatingIfNeeded: userData), Int(result))
                case Kind.watch: readiness(key: userData, result: result)
                default: ReactorEvent?.none
                }
            if let event { return event }
        }
        return nil
    }

    private mutating func settle(_ slot: UInt32, _ result: Int) -> ReactorEvent? {
        guard let completion = transfers.settle(slot, result: result) else {
            start(slot)
            return nil
        }
        return .completion(completion)
    }

    private mutating func readiness(key: UInt64, result: Int32) -> ReactorEvent? {
        guard let slot = watches.liveSlot(key: key) else { return nil }
        watches[slot].isArmed = false
        watches.setPending(slot)
        // A failed poll (a descriptor closed too early) is an error: the reader will meet it.
        let interest: EventInterest =
            result < 0 ? [.readable, .writable] : EventInterest(pollMask: UInt32(result))
        return .readiness(watches[slot].token, interest)
    }

    private func submit() {
        Self.check(parallax_ring_submit(ring))
    }

    // How long a turn lasts at most while the kernel lacks memory for what we want to submit.
    private static let retryNanoseconds: Int64 = 1_000_000

    /// Busy, out of memory for now, interrupted or timed out: the next turn tries again. Anything
    /// else would mean that the ring itself is broken.
    private static func check(_ result: Int32) {
        switch -result {
        case 0, ETIME, EINTR, EAGAIN, EBUSY, ENOMEM: return
        default: preconditionFailure("UringReactor: the kernel refuses the ring")
        }
    }

    /// Waits for the commands in the kernel: their buffers are about to go away.
    private static func finish(_ ring: OpaquePointer, inFlightCount: Int) {
        var remaining = inFlightCount
        var userData: UInt64 = 0
        var result: Int32 = 0
        while remaining > 0 {
            if parallax_ring_pop(ring, &userData, &result) == 0 {
                check(parallax_ring_submit_and_wait(ring, -1))
            } else if userData >> Kind.shift == Kind.command {
                remaining -= 1
            }
        }
    }
}
