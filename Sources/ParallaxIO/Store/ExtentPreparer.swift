// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore
internal import Synchronization

/// Keeps a few extent slots ready for the log, and owns the allocator that all shards share.
///
/// On a file, a direct write into a hole or an unwritten range costs the host file system a
/// transaction, and the next `fdatasync` has to commit it. So a thread of its own allocates each
/// new slot and writes zeroes over it before the log gets there; log writes are then pure
/// overwrites. Slots that were in use before (the file system knows), and block devices, need
/// nothing.
///
/// ```
///            requestSlot                       releaseSlot
///   shards ──────────────> ready (prepared)        │
///              │ empty         ^                   v
///              │               │ zeroes, sync    allocator: free slots
///              └───────────────┼───────────────────┘
///                unprepared    └── one at a time, in the thread
/// ```
///
/// May be used from any thread. Invariant: I1 a slot is in exactly one of: the allocator, `ready`,
/// the thread's hands, a shard's hands.
package final class ExtentPreparer: Sendable {
    package typealias Reply = @Sendable (ExtentSlot?) -> Void

    private struct State {
        var allocator: SlotAllocator
        var ready: [ExtentSlot] = []
        /// Requests that came while the only free slot was being prepared.
        var waiting: [Reply] = []
        var isPreparing = false
        var isStopping = false
        var failure: MediumError?
    }

    private let store: StoreFile
    private let firstExtentOffset: UInt64
    private let extentBytes: Int
    private let readyCountMax: Int
    private let state: Mutex<State>
    private let wakeUp: Int32
    private let thread: Mutex<ShardThread?>

    /// `readyCountMax`: how many prepared slots to keep.
    package init(
        store: StoreFile, firstExtentOffset: UInt64 = Superblock.firstExtentOffset,
        extentBytes: Int, readyCountMax: Int, allocator: SlotAllocator
    ) {
        self.store = store
        self.firstExtentOffset = firstExtentOffset
        self.extentBytes = extentBytes
        self.readyCountMax = readyCountMax
        state = Mutex(State(allocator: allocator))
        wakeUp = parallax_eventfd_create(1, 0)
        thread = Mutex(nil)
    }

    deinit { close(wakeUp) }

    /// Starts the thread. Without it slots come unprepared.
    package func start() throws(ShardThreadError) {
        guard !store.isBlockDevice else { return }
        let started = try ShardThread(name: "parallax-extent") { self.run() }
        thread.withLock { $0 = started }
    }

    /// Ends the thread, within the time of one small write, and gives prepared slots back.
    package func stop() {
        state.withLock { $0.isStopping = true }
        wake()
        thread.withLock { $0 }?.join()
        let waiting = state.withLock { state in
            for slot in state.ready { state.allocator.release(slot) }
            state.ready = []
            defer { state.waiting = [] }
            return state.waiting
        }
        for reply in waiting { reply(nil) }
    }

    /// Calls `reply` exactly once: with a slot, or with nil when the store is full. On the calling
    /// thread at once, or later on another thread.
    ///
    /// The slot is prepared if there is such a one, or if the caller `canWait` for it; else it is
    /// only allocated in the file system.
    package func requestSlot(canWait: Bool = false, _ reply: @escaping Reply) {
        let answer: ExtentSlot?? = state.withLock { state in
            if !state.ready.isEmpty { return .some(state.ready.removeFirst()) }
            let mayCome = state.isPreparing || state.allocator.freeCount > 0
            if canWait && hasThread && mayCome && !state.isStopping {
                state.waiting.append(reply)
                return nil
            }
            if let slot = state.allocator.allocate() { return .some(slot) }
            guard state.isPreparing && !state.isStopping else { return .some(nil) }
            state.waiting.append(reply)
            return nil
        }
        if let answer { give(answer, to: reply) }
        wake()
    }

    /// Answers those who wait with unprepared slots: the log needs them now.
    package func hurry() {
        let rushed: [(Reply, ExtentSlot)] = state.withLock { state in
            var rushed: [(Reply, ExtentSlot)] = []
            while !state.waiting.isEmpty, let slot = state.allocator.allocate() {
                rushed.append((state.waiting.removeFirst(), slot))
            }
            return rushed
        }
        for (reply, slot) in rushed { give(slot, to: reply) }
    }

    /// An unprepared slot at least gets its blocks in one go.
    private func give(_ slot: ExtentSlot?, to reply: Reply) {
        if let slot, !store.isBlockDevice {
            _ = parallax_fallocate(
                store.fileDescriptor, 0, Int64(offset(of: slot)), Int64(extentBytes))
        }
        reply(slot)
    }

    private var hasThread: Bool { thread.withLock { $0 != nil } }

    private func offset(of slot: ExtentSlot) -> UInt64 {
        firstExtentOffset + UInt64(slot.rawValue) * UInt64(extentBytes)
    }

    /// Gives a slot back that the log no longer needs.
    package func releaseSlot(_ slot: ExtentSlot) {
        state.withLock { $0.allocator.release(slot) }
        wake()
    }

    /// Exclusive access to the allocator, for opening and for figures.
    package func withAllocator<Result>(_ body: (inout SlotAllocator) -> Result) -> Result {
        state.withLock { body(&$0.allocator) }
    }

    package struct Status: Equatable, Sendable {
        /// Slots that nobody owns, prepared ones not counted.
        package var freeCount: Int
        package var readyCount: Int
        /// Why the last slot could not be prepared, until one can.
        package var failure: MediumError?
    }

    package var status: Status {
        state.withLock { state in
            Status(
                freeCount: state.allocator.freeCount, readyCount: state.ready.count,
                failure: state.failure)
        }
    }

    private func wake() {
        _ = parallax_eventfd_write(wakeUp, 1)
    }
}

// MARK: The thread

extension ExtentPreparer {
    private func run() {
        guard let zeroes = try? AlignedMemory(byteCount: 1 << 20) else { return }
        var ignored: UInt64 = 0
        while parallax_eventfd_read(wakeUp, &ignored) == 0, !isStopping {
            while let slot = takeFreeSlot() {
                do throws(MediumError) {
                    try prepare(slot, zeroes)
                    put(slot)
                } catch {
                    giveBack(slot, error)
                    break  // Until a slot is requested or released: something may have changed.
                }
            }
        }
    }

    private var isStopping: Bool { state.withLock { $0.isStopping } }

    /// The next slot to work on, while more are wanted.
    private func takeFreeSlot() -> ExtentSlot? {
        state.withLock { state in
            guard !state.isStopping,
                state.ready.count < readyCountMax || !state.waiting.isEmpty,
                let slot = state.allocator.allocate()
            else { return nil }
            state.isPreparing = true
            return slot
        }
    }

    private func put(_ slot: ExtentSlot) {
        let reply: Reply? = state.withLock { state in
            state.isPreparing = false
            state.failure = nil
            if !state.waiting.isEmpty { return state.waiting.removeFirst() }
            state.ready.append(slot)
            return nil
        }
        reply?(slot)
    }

    /// Nobody waits for a slot that cannot be had.
    private func giveBack(_ slot: ExtentSlot, _ failure: MediumError) {
        let waiting = state.withLock { state in
            state.isPreparing = false
            state.failure = failure
            state.allocator.release(slot)
            defer { state.waiting = [] }
            return state.waiting
        }
        for reply in waiting { reply(nil) }
    }

    private func prepare(
        _ slot: ExtentSlot, _ zeroes: borrowing AlignedMemory
    ) throws(MediumError) {
        try store.prepare(
            from: offset(of: slot), byteCount: UInt64(extentBytes),
            zeroes: UnsafeRawBufferPointer(zeroes.bytes)
        ) { _ in !isStopping }
        try store.sync()
    }
}
