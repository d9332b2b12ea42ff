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
/// nothing; so such slots are used first. What stays free for a while is punched out of the file,
/// so that this does not keep for ever the size that it once had.
///
/// ```
///            requestSlot                       releaseSlot
///   shards ──────────────> ready (prepared)        │
///              │ empty         ^                   v
///              │               │ zeroes, sync    allocator: free slots, `backed` or not
///              └───────────────┼───────────────────┘  │  ^
///                unprepared    └── one at a time,  <──┘  │ hole punched
///                                  in the thread ────────┘
/// ```
///
/// A slot that the device refuses is left out until the restart, so that it does not keep all others
/// from being used (`ExtentPreparer+Prepare.swift`).
///
/// May be used from any thread. Invariants: I1 a slot is in exactly one of: the allocator, `ready`,
/// the thread's hands, a shard's hands, `unwritable`. I2 `backed` names slots that are in the allocator, each
/// once, those that have been free for longest first. I3 somebody waits only while there is a free
/// slot, or one in the thread's hands.
package final class ExtentPreparer: Sendable {
    package typealias Reply = @Sendable (ExtentSlot?) -> Void
    /// Makes a range of the store ready for pure overwrites, as `StoreFile.prepare` does.
    package typealias Preparation =
        @Sendable (
            _ start: UInt64, _ byteCount: UInt64, _ zeroes: UnsafeRawBufferPointer,
            _ report: (UInt64) -> Bool
        ) -> Result<Bool, MediumError>

    struct State {
        var allocator: SlotAllocator
        var ready: [ExtentSlot] = []
        /// Free slots that may have blocks in the host file system, when holes are to be punched.
        var backed: [BackedSlot] = []
        /// Slots before this one have been looked at for blocks of the time before the start; only
        /// they are in `backed`.
        var surveyedCount = 0
        /// Slots that have been given their blocks since the start, and have them still.
        var allocated: Set<ExtentSlot> = []
        var punchedBytes: UInt64 = 0
        /// The file system cannot punch holes.
        var cannotPunch = false
        /// Requests that came while the only free slot was in the thread's hands.
        var waiting: [Reply] = []
        /// The thread has a slot in its hands.
        var isHolding = false
        var isStopping = false
        /// The thread has ended by itself: slots come unprepared, and nobody may wait for it.
        var hasGivenUp = false
        var failure: MediumError?
        /// Slots that the device has refused while it took others.
        var unwritable: [ExtentSlot] = []
        /// The device refuses slots, and it is not known that it takes any.
        var isDeviceFailing = false
    }

    /// A free slot, and since when.
    struct BackedSlot {
        var slot: ExtentSlot
        var sinceNanoseconds: UInt64
    }

    let store: StoreFile
    private let firstExtentOffset: UInt64
    let extentBytes: Int
    let readyCountMax: Int
    private let freeSlots: Atomic<Int>
    /// How long a slot stays free before its blocks go back to the file system; nil: for ever.
    let restNanoseconds: UInt64?
    private let state: Mutex<State>
    let prepareRange: Preparation
    /// Hears, in a sentence, of slots that are left out.
    let reportUnwritable: @Sendable (String) -> Void
    let wakeUp: Int32
    private let thread: Mutex<ShardThread?>

    /// `readyCountMax`: how many prepared slots to keep, and how many free ones that need no
    /// preparation. `restNanoseconds`: when other free slots of a file are punched out of it.
    /// `prepareRange`: nil, but in tests, means `store.prepare`.
    package init(
        store: StoreFile, firstExtentOffset: UInt64 = Superblock.firstExtentOffset,
        extentBytes: Int, readyCountMax: Int, allocator: SlotAllocator,
        restNanoseconds: UInt64? = nil, prepareRange: Preparation? = nil,
        reportUnwritable: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.store = store
        self.firstExtentOffset = firstExtentOffset
        self.extentBytes = extentBytes
        self.readyCountMax = readyCountMax
        self.restNanoseconds = store.isBlockDevice ? nil : restNanoseconds
        freeSlots = Atomic(allocator.freeCount)
        state = Mutex(State(allocator: allocator))
        self.prepareRange =
            prepareRange
            ?? { start, byteCount, zeroes, report in
                do throws(MediumError) {
                    return .success(
                        try store.prepare(
                            from: start, byteCount: byteCount, zeroes: zeroes, report: report))
                } catch { return .failure(error) }
            }
        self.reportUnwritable = reportUnwritable
        wakeUp = parallax_eventfd_create(1, 0)
        thread = Mutex(nil)
    }

    deinit { if wakeUp >= 0 { close(wakeUp) } }

    /// Slots that no shard owns and that can be had, prepared ones included. Without a lock, and so a
    /// moment old.
    package var freeSlotCount: Int { freeSlots.load(ordering: .relaxed) }

    /// Every look at the state and every change of it.
    func update<Result>(_ body: (inout State) -> Result) -> Result {
        let (result, hopeless) = state.withLock { state in
            let result = body(&state)
            // Where one cannot be had, nobody counts on the others: the store is full.
            let free = state.failure == nil ? state.allocator.freeCount : 0
            freeSlots.store(free + state.ready.count, ordering: .relaxed)
            return (result, state.takeHopeless())
        }
        for reply in hopeless { reply(nil) }
        return result
    }

    /// Starts the thread. Without it slots come unprepared.
    package func start() throws(ShardThreadError) {
        guard !store.isBlockDevice else { return }
        // Without it nothing would wake the thread, not even to end.
        guard wakeUp >= 0 else {
            throw ShardThreadError(name: "parallax-extent", errno: -wakeUp)
        }
        let started = try ShardThread(name: "parallax-extent") { self.run() }
        thread.withLock { $0 = started }
    }

    /// Ends the thread, within the time of one small write, and gives prepared slots back.
    package func stop() {
        update { $0.isStopping = true }
        wake()
        thread.withLock { $0 }?.join()
        let waiting = update { state in
            for slot in state.ready { state.allocator.release(slot) }
            state.ready = []
            defer { state.waiting = [] }
            return state.waiting
        }
        for reply in waiting { reply(nil) }
    }

    /// Nothing is written into the store any more, to prepare it or to punch it: it is another's.
    /// Returns at once; what is under way ends as with `stop`, which is still to come.
    package func halt() {
        update { $0.isStopping = true }
        wake()
    }

    /// Calls `reply` exactly once: with a slot, or with nil when the store is full. On the calling
    /// thread at once, or later on another thread.
    ///
    /// The slot is prepared if there is such a one, or if the caller `canWait` for it; else it is
    /// only allocated in the file system.
    package func requestSlot(canWait: Bool = false, _ reply: @escaping Reply) {
        let answer: ExtentSlot?? = update { state in
            if !state.ready.isEmpty { return .some(state.ready.removeFirst()) }
            let mayCome = state.isHolding || state.allocator.freeCount > 0
            if canWait && hasThread && mayCome && !state.isStopping && !state.hasGivenUp {
                state.waiting.append(reply)
                return nil
            }
            if let slot = state.takeUnprepared() { return .some(slot) }
            guard state.isHolding && !state.isStopping else { return .some(nil) }
            state.waiting.append(reply)
            return nil
        }
        if let answer { give(answer, to: reply) }
        wake()
    }

    /// Answers those who wait with unprepared slots: the log needs them now.
    package func hurry() {
        let rushed: [(Reply, ExtentSlot)] = update { state in
            var rushed: [(Reply, ExtentSlot)] = []
            while !state.waiting.isEmpty, let slot = state.takeUnprepared() {
                rushed.append((state.waiting.removeFirst(), slot))
            }
            return rushed
        }
        for (reply, slot) in rushed { give(slot, to: reply) }
    }

    /// An unprepared slot at least gets its blocks in one go. Once: for this call the file system waits
    /// until nothing is under way in the file. Where the file system has no room for them the slot is
    /// free again, and the store is full: a log that wrote there would fail.
    func give(_ slot: ExtentSlot?, to reply: Reply) {
        guard let slot, !store.isBlockDevice, update({ $0.allocated.insert(slot).inserted }) else {
            return reply(slot)
        }
        let start = offset(of: slot)
        // XFS wants room for the whole slot, whatever part of it has its blocks.
        let hasBlocks =
            parallax_range_is_written(store.fileDescriptor, start, UInt64(extentBytes)) == 1
        let result =
            hasBlocks
            ? 0
            : parallax_fallocate(store.fileDescriptor, 0, Int64(start), Int64(extentBytes))
        let isGiven = update { state in
            if result == 0 || result == -EOPNOTSUPP {
                state.failure = nil
                return true
            }
            state.failure = MediumError(errno: -result, operation: .write, offset: start)
            state.allocated.remove(slot)
            // Not `backed`: those that have blocks come first.
            state.allocator.release(slot)
            return false
        }
        reply(isGiven ? slot : nil)
    }

    private var hasThread: Bool { thread.withLock { $0 != nil } }

    func offset(of slot: ExtentSlot) -> UInt64 {
        firstExtentOffset + UInt64(slot.rawValue) * UInt64(extentBytes)
    }

    /// Gives a slot back that the log no longer needs.
    package func releaseSlot(_ slot: ExtentSlot) {
        update { putBack(slot, &$0) }
        wake()
    }

    /// A slot that has been in use, or was to be, is free.
    func putBack(_ slot: ExtentSlot, _ state: inout State) {
        state.allocator.release(slot)
        // The survey finds the others, once.
        guard slot.rawValue < state.surveyedCount, !state.cannotPunch else { return }
        state.backed.append(
            BackedSlot(slot: slot, sinceNanoseconds: parallax_monotonic_nanoseconds()))
    }

    /// The store has more slots now, all of them free.
    package func grow(slotCount: Int) {
        update { $0.allocator.grow(slotCount: slotCount) }
        wake()
    }

    /// Exclusive access to the allocator, for opening and for figures.
    package func withAllocator<Result>(_ body: (inout SlotAllocator) -> Result) -> Result {
        update { body(&$0.allocator) }
    }

    package struct Status: Equatable, Sendable {
        /// Slots that nobody owns, prepared ones not counted.
        package var freeCount: Int
        package var readyCount: Int
        /// Of the free ones, those whose blocks may have to go back to the file system.
        package var backedCount: Int
        /// Bytes that were punched out of the file since the start.
        package var punchedBytes: UInt64
        /// Why the last slot could not be prepared, until one can.
        package var failure: MediumError?
        /// Slots that are left out until the restart; not among the free ones.
        package var unwritableCount: Int
    }

    package var status: Status {
        update { state in
            Status(
                freeCount: state.allocator.freeCount, readyCount: state.ready.count,
                backedCount: state.backed.count, punchedBytes: state.punchedBytes,
                failure: state.failure, unwritableCount: state.unwritable.count)
        }
    }

    private func wake() {
        _ = parallax_eventfd_write(wakeUp, 1)
    }
}

// MARK: The thread

extension ExtentPreparer {
    private func run() {
        guard let zeroes = try? AlignedMemory(byteCount: 1 << 20) else {
            update { $0.hasGivenUp = true }
            return hurry()
        }
        var isWoken = true
        while !isStopping {
            if isWoken { prepareSlots(zeroes) }
            isWoken = sleep(milliseconds: tidyUp())
        }
    }

    /// Until it is woken (true), or the time has passed. -1: for ever.
    private func sleep(milliseconds: Int32) -> Bool {
        var event = pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0)
        guard poll(&event, 1, milliseconds) > 0 else { return false }
        var ignored: UInt64 = 0
        return parallax_eventfd_read(wakeUp, &ignored) == 0
    }

    var isStopping: Bool { update { $0.isStopping } }
}
