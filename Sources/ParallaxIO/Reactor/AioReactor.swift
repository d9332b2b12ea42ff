// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLibaio
internal import CLinux
internal import Glibc
package import ParallaxCore

/// The reactor over libaio and epoll, for hosts where io_uring is forbidden.
///
/// Completions announce themselves on an eventfd in the same epoll set. It is edge-triggered, so
/// nobody has to read it: every `wait` collects all completions there are.
///
/// ```
///  wait:  io_submit(all queued) ── epoll_wait ── io_getevents, only if any are complete
///  epoll data   watch key (generation, slot), or all ones: the completion eventfd
/// ```
///
/// Owned by one thread. Invariants: I1 every slot taken from `transfers` is in `queuedSlots`, in
/// the kernel, or answered in `failures`.
package struct AioReactor: Reactor, ~Copyable {
    private static var completionKey: UInt64 { .max }
    // LIMIT: descriptors reported in one turn; epoll reports the others first in the next.
    private static let readyCapacity = 64

    private let aio: OpaquePointer
    private let epoll: Int32
    private let completionEvent: Int32
    private let store: Int32
    private var transfers: TransferTable
    private var watches: WatchTable

    private let queuedSlots: UnsafeMutablePointer<UInt32>
    private var queuedCount = 0
    /// The kernel took less than was offered; no use to offer more in this turn.
    private var isKernelFull = false
    /// Commands that the kernel refused at submission.
    private var failures: FixedRing<StoreCompletion>

    private let ready: UnsafeMutablePointer<parallax_epoll_event>
    private var readyCount = 0
    private var readyIndex = 0
    private var completionCount: UInt32 = 0
    private var completionIndex: UInt32 = 0
    private var failureBudget = 0
    /// Watched descriptors that epoll refused, for example regular files: always ready.
    private var unpollable: [EventToken: EventInterest] = [:]
    private var unpollableTurn: [EventToken] = []

    /// `fileDescriptor`: the store. At most `commandCapacity` commands are in flight. All reactors of a
    /// store share `syncs`.
    package init(
        fileDescriptor: Int32, commandCapacity: Int, watchCapacity: Int = 256,
        syncs: SyncRecord = SyncRecord()
    ) throws(ReactorError) {
        let handles = try Handles(fileDescriptor: fileDescriptor, capacity: commandCapacity)
        (aio, epoll, completionEvent) = (handles.aio, handles.epoll, handles.completionEvent)
        store = fileDescriptor
        transfers = TransferTable(capacity: commandCapacity, syncs: syncs)
        watches = WatchTable(capacity: watchCapacity)
        queuedSlots = UnsafeMutablePointer<UInt32>.allocate(capacity: commandCapacity)
        failures = FixedRing(minimumCapacity: commandCapacity)
        ready = UnsafeMutablePointer<parallax_epoll_event>.allocate(capacity: Self.readyCapacity)
    }

    private struct Handles {
        let aio: OpaquePointer
        let epoll: Int32
        let completionEvent: Int32

        init(fileDescriptor: Int32, capacity: Int) throws(ReactorError) {
            epoll = parallax_epoll_create()
            guard epoll >= 0 else { throw ReactorError(engine: .libaio, errno: -epoll) }
            completionEvent = parallax_eventfd_create(0, 1)
            guard completionEvent >= 0 else {
                close(epoll)
                throw ReactorError(engine: .libaio, errno: -completionEvent)
            }
            var aio: OpaquePointer?
            var result = parallax_epoll_add(
                epoll, completionEvent, PARALLAX_EPOLLIN | PARALLAX_EPOLLET, completionKey)
            if result == 0 {
                result = parallax_aio_create(
                    &aio, UInt32(capacity), fileDescriptor, completionEvent)
            }
            guard result == 0, let aio else {
                close(completionEvent)
                close(epoll)
                throw ReactorError(engine: .libaio, errno: -result)
            }
            self.aio = aio
        }
    }

    deinit {
        // Waits for the operations in flight.
        parallax_aio_destroy(aio)
        close(completionEvent)
        close(epoll)
        queuedSlots.deallocate()
        ready.deallocate()
    }

    package var freeCommandSlots: Int { transfers.freeCount }

    /// libaio has no registered memory.
    package mutating func registerBuffers(_ buffers: UnsafeBufferPointer<DataSegment>) -> Bool {
        false
    }

    // MARK: Commands

    package mutating func enqueue(_ command: StoreCommand) {
        start(transfers.acquire(command))
    }

    private mutating func start(_ slot: UInt32) {
        let transfer = transfers[slot]
        if transfer.command.operation == .sync {
            parallax_aio_set_sync(aio, slot)
        } else {
            let piece = transfer.nextPiece
            let isWrite: Int32 = transfer.command.operation == .write ? 1 : 0
            if piece.vectorCount > 1 {
                parallax_aio_set_vector(
                    aio, slot, isWrite, piece.vector, UInt32(piece.vectorCount), piece.offset)
            } else {
                parallax_aio_set_transfer(
                    aio, slot, isWrite, piece.base, UInt64(piece.byteCount), piece.offset)
            }
        }
        precondition(queuedCount < transfers.capacity, "AioReactor I1: more queued than slots")
        queuedSlots[queuedCount] = slot
        queuedCount += 1
        if queuedCount >= commandsPerSubmission && !isKernelFull { submitQueued() }
    }

    /// Submits all queued commands; those that the kernel has no room for stay queued.
    private mutating func submitQueued() {
        var first = 0
        while first < queuedCount {
            let result = parallax_aio_submit(aio, queuedSlots + first, UInt32(queuedCount - first))
            if result > 0 {
                first += Int(result)
                continue
            }
            let slot = queuedSlots[first]
            let outcome = result == 0 ? -EAGAIN : substituteForSync(slot, result)
            // Nil: to be tried again, as it stands, when something has completed.
            guard let completion = transfers.settle(slot, result: Int(outcome)) else {
                isKernelFull = true
                break
            }
            failures.append(completion)
            first += 1
        }
        queuedCount -= first
        queuedSlots.update(from: queuedSlots + first, count: queuedCount)
    }

    /// Kernels before 4.18, and some file systems, have no asynchronous fdatasync.
    private func substituteForSync(_ slot: UInt32, _ result: Int32) -> Int32 {
        guard transfers[slot].command.operation == .sync, result == -EINVAL else { return result }
        return fdatasync(store) == 0 ? 0 : -errno
    }

    // MARK: Watches

    package mutating func watch(
        fileDescriptor: Int32, token: EventToken, interest: EventInterest
    ) {
        if let slot = watches.slot(of: token), watches[slot].fileDescriptor == fileDescriptor {
            watches.renew(slot, interest: interest)
            arm(slot)
            return
        }
        unwatch(token: token)
        arm(watches.insert(token: token, fileDescriptor: fileDescriptor, interest: interest))
    }

    private mutating func arm(_ slot: UInt32) {
        let watch = watches[slot]
        let (mask, key) = (watch.interest.pollMask, watches.key(of: slot))
        var result = parallax_epoll_modify(epoll, watch.fileDescriptor, mask, key)
        if result == -ENOENT {
            result = parallax_epoll_add(epoll, watch.fileDescriptor, mask, key)
        }
        unpollable[watch.token] = result == 0 ? nil : watch.interest
    }

    package mutating func unwatch(token: EventToken) {
        guard let slot = watches.slot(of: token) else { return }
        // Fails only if the descriptor was closed too early, and then it is gone from the set.
        _ = parallax_epoll_remove(epoll, watches[slot].fileDescriptor)
        watches.remove(slot)
        unpollable[token] = nil
    }

    // MARK: Turns

    package mutating func wait(timeoutNanoseconds: Int64) {
        isKernelFull = false
        submitQueued()
        var timeout = timeoutNanoseconds
        let hasLeftovers = completionIndex < completionCount || !failures.isEmpty
        if hasLeftovers || !unpollable.isEmpty { timeout = 0 }
        if queuedCount > 0 {
            timeout = min(timeout < 0 ? Self.retryNanoseconds : timeout, Self.retryNanoseconds)
        }
        let count = parallax_epoll_wait(epoll, ready, Int32(Self.readyCapacity), timeout)
        precondition(count >= 0 || count == -EINTR, "AioReactor: the kernel refuses the epoll set")
        (readyCount, readyIndex) = (max(0, Int(count)), 0)
        if completionIndex == completionCount {
            completionCount = UInt32(max(0, parallax_aio_collect(aio)))
            completionIndex = 0
        }
        failureBudget = failures.count
        unpollableTurn.removeAll(keepingCapacity: true)
        unpollableTurn.append(contentsOf: unpollable.keys)
    }

    package mutating func nextEvent() -> ReactorEvent? {
        if let event = nextCompletion() { return event }
        while readyIndex < readyCount {
            let event = ready[readyIndex]
            readyIndex += 1
            if event.data == Self.completionKey { continue }
            guard let slot = watches.liveSlot(key: event.data) else { continue }
            return .readiness(watches[slot].token, EventInterest(pollMask: event.events))
        }
        while let token = unpollableTurn.popLast() {
            if let interest = unpollable[token] { return .readiness(token, interest) }
        }
        return nil
    }

    private mutating func nextCompletion() -> ReactorEvent? {
        while completionIndex < completionCount {
            var slot: UInt32 = 0
            var result: Int64 = 0
            parallax_aio_completion(aio, completionIndex, &slot, &result)
            completionIndex += 1
            guard let completion = transfers.settle(slot, result: Int(result)) else {
                start(slot)
                continue
            }
            return .completion(completion)
        }
        guard failureBudget > 0, let failure = failures.popFirst() else { return nil }
        failureBudget -= 1
        return .completion(failure)
    }

    // How long a turn lasts at most while the kernel has no room for what we want to submit.
    private static let retryNanoseconds: Int64 = 1_000_000
}
