// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// The file descriptors that are watched, in numbered slots, found by token.
///
/// The kernel hands back a *key* with each event: slot and generation. A slot's generation changes
/// whenever its watch ends or is replaced, so an event of an ended watch finds no owner.
///
/// ```
///  key   63..62   61........32   31.........0
///        (left)    generation       slot
/// ```
///
/// Owned by the reactor's thread. Watching is control-path work: the table grows when full.
/// Invariants: I1 `slots[token]` is the slot whose watch has that token, for every live watch;
/// I2 a slot is live or in `free`; I3 a slot is in `pending` exactly when `isPending`.
///
/// SAFETY: owns its storage; slots from outside are checked.
struct WatchTable: ~Copyable {
    struct Watch: BitwiseCopyable {
        var token = EventToken(session: 0, source: 0)
        var fileDescriptor: Int32 = -1
        var interest: EventInterest = []
        var isLive = false
        /// The kernel will report it.
        var isArmed = false
        /// Waits in the list of those to be armed.
        var isPending = false
        var generation: UInt32 = 0
    }

    static let generationMask: UInt32 = (1 << 30) - 1

    private var watches: UnsafeMutablePointer<Watch>
    private var pending: UnsafeMutablePointer<UInt32>
    private var capacity: Int
    private var free: [UInt32] = []
    private var slots: [EventToken: UInt32] = [:]
    private(set) var pendingCount = 0

    init(capacity: Int) {
        self.capacity = max(capacity, 1)
        watches = UnsafeMutablePointer<Watch>.allocate(capacity: self.capacity)
        watches.initialize(repeating: Watch(), count: self.capacity)
        pending = UnsafeMutablePointer<UInt32>.allocate(capacity: self.capacity)
        free.reserveCapacity(self.capacity)
        slots.reserveCapacity(self.capacity)
        free.append(contentsOf: (0..<UInt32(self.capacity)).reversed())
    }

    deinit {
        watches.deallocate()
        pending.deallocate()
    }

    subscript(slot: UInt32) -> Watch {
        get {
            precondition(slot < capacity, "WatchTable: slot out of range")
            return watches[Int(slot)]
        }
        _modify {
            precondition(slot < capacity, "WatchTable: slot out of range")
            yield &watches[Int(slot)]
        }
    }

    func slot(of token: EventToken) -> UInt32? { slots[token] }

    func key(of slot: UInt32) -> UInt64 {
        UInt64(self[slot].generation) << 32 | UInt64(slot)
    }

    /// The slot that a key from the kernel names, unless that watch has ended.
    func liveSlot(key: UInt64) -> UInt32? {
        let slot = UInt32(truncatingIfNeeded: key)
        guard slot < capacity else { return nil }
        let watch = watches[Int(slot)]
        let generation = UInt32(truncatingIfNeeded: key >> 32) & Self.generationMask
        return watch.isLive && watch.generation == generation ? slot : nil
    }

    /// A slot for a token that has none.
    mutating func insert(
        token: EventToken, fileDescriptor: Int32, interest: EventInterest
    ) -> UInt32 {
        precondition(slots[token] == nil, "WatchTable I1: the token has a slot already")
        if free.isEmpty { grow() }
        let slot = free.removeLast()
        slots[token] = slot
        self[slot].token = token
        self[slot].isLive = true
        self[slot].isArmed = false
        self[slot].fileDescriptor = fileDescriptor
        self[slot].interest = interest
        return slot
    }

    /// Ends the watch; keys handed out before are void.
    mutating func remove(_ slot: UInt32) {
        precondition(self[slot].isLive, "WatchTable I2: removal of a free slot")
        slots[self[slot].token] = nil
        self[slot].isLive = false
        self[slot].fileDescriptor = -1
        renew(slot, interest: [])
        free.append(slot)
    }

    /// Changes the interest; keys handed out before are void.
    mutating func renew(_ slot: UInt32, interest: EventInterest) {
        self[slot].interest = interest
        self[slot].isArmed = false
        self[slot].generation = (self[slot].generation &+ 1) & Self.generationMask
    }

    /// Puts the slot into the list of those to be armed, once.
    mutating func setPending(_ slot: UInt32) {
        guard !self[slot].isPending else { return }
        self[slot].isPending = true
        pending[pendingCount] = slot
        pendingCount += 1
    }

    /// Calls `arm` for the live slots in the list, oldest first; those that it refuses stay.
    mutating func drainPending(_ arm: (Watch, _ key: UInt64) -> Bool) {
        var keptCount = 0
        for index in 0..<pendingCount {
            let slot = pending[index]
            let watch = self[slot]
            if watch.isLive && !watch.isArmed {
                guard arm(watch, key(of: slot)) else {
                    pending[keptCount] = slot
                    keptCount += 1
                    continue
                }
                self[slot].isArmed = true
            }
            self[slot].isPending = false
        }
        pendingCount = keptCount
    }

    private mutating func grow() {
        let newCapacity = capacity * 2
        let newWatches = UnsafeMutablePointer<Watch>.allocate(capacity: newCapacity)
        newWatches.moveInitialize(from: watches, count: capacity)
        (newWatches + capacity).initialize(repeating: Watch(), count: capacity)
        let newPending = UnsafeMutablePointer<UInt32>.allocate(capacity: newCapacity)
        newPending.moveInitialize(from: pending, count: pendingCount)
        watches.deallocate()
        pending.deallocate()
        free.append(contentsOf: (UInt32(capacity)..<UInt32(newCapacity)).reversed())
        (watches, pending, capacity) = (newWatches, newPending, newCapacity)
    }
}

extension EventInterest {
    /// The bits of `poll` and `epoll`; they are the same for these two.
    var pollMask: UInt32 {
        (contains(.readable) ? 0x001 : 0) | (contains(.writable) ? 0x004 : 0)
    }

    /// Errors and hang-ups count as both.
    init(pollMask: UInt32) {
        self = []
        if pollMask & ~0x004 != 0 { insert(.readable) }
        if pollMask & ~0x001 != 0 { insert(.writable) }
    }
}
