// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// A queue's side of the in-flight area.
///
/// Invariant: the entries of the available ring below `nextAvailable` are those that the guest has
/// seen answered, and those that are marked in the area; so after our death
/// `nextAvailable = used index + marks`.
///
/// ```
///   take                 answer               publish
///   counter, mark        used entry, link     used index | clear each, store used index
///                 ^                    ^                 ^
///   killed here:  made again           made again        shown: cleared at the next start
/// ```
struct InflightTracking {
    private var area: InflightQueue?
    /// There is an area, with or without a place for this queue.
    private var isWanted = false
    /// What was left behind has been looked for.
    fileprivate var hasRecovered = true
    /// To be made again, oldest first, from `nextLeft` on.
    fileprivate var left: [InflightQueue.Left] = []
    fileprivate var nextLeft = 0
    /// How many there were, until it is told.
    private var untoldCount = 0
    private var counter: UInt64 = 0
    /// The last head that was answered, as our own copy of the area's list.
    private var lastAnswered: UInt16 = 0

    init() {}

    /// The queue is stopped. `area` is nil where the front end's area has no place for it.
    init(in area: InflightQueue?) {
        self.area = area
        isWanted = true
    }

    mutating func start() {
        hasRecovered = !isWanted
        left = []
        nextLeft = 0
    }

    /// Looks up what was left behind; the number of requests to make again.
    fileprivate mutating func recover(_ ring: SplitRing, usedIndex: UInt16) throws(RingFault) {
        guard let area, let found = area.recover(usedIndex: usedIndex, ringSize: ring.size) else {
            throw .inflightAreaMismatch
        }
        left = found
        nextLeft = 0
        untoldCount = found.count
        counter = (found.last?.counter ?? counter) &+ 1
        hasRecovered = true
    }

    /// The number of requests that were left behind, once, if there were any.
    mutating func takeOverCount() -> Int? {
        guard untoldCount > 0 else { return nil }
        defer { untoldCount = 0 }
        return untoldCount
    }

    mutating func markTaken(_ head: UInt16) {
        guard let area else { return }
        area.markTaken(head, counter: counter)
        counter &+= 1
    }

    /// Nothing that was taken is to be made again.
    func forgetTaken() { area?.clearAll() }

    /// Returns the head that was answered before.
    mutating func link(_ head: UInt16) -> UInt16 {
        let before = lastAnswered
        area?.link(head, previous: before)
        lastAnswered = head
        return before
    }

    /// The guest can see the last `count` answers.
    func clearBatch(
        of count: UInt16, upTo usedIndex: UInt16, _ tasks: UnsafeMutablePointer<RequestTask>
    ) {
        guard let area else { return }
        var head = lastAnswered
        for _ in 0..<count {
            area.clear(head)
            head = tasks[Int(head)].answeredBefore
        }
        area.storeUsedIndex(usedIndex)
    }
}

extension Virtqueue {
    /// Makes the requests again that were taken before we died, in the order in which they were
    /// taken then, ahead of all others. False: no room for the next one now.
    mutating func takeLeft(
        _ ring: SplitRing, _ device: inout DeviceState, _ requests: inout RequestQueue,
        _ budget: inout Int
    ) throws(RingFault) -> Bool {
        if !tracking.hasRecovered { try recover(ring, &device) }
        while tracking.nextLeft < tracking.left.count, budget > 0 {
            let head = tracking.left[tracking.nextLeft].head
            guard let admission = try admit(head, ring, &device, &requests) else { return false }
            tracking.nextLeft += 1
            budget -= 1
            settle(head, admission, writableBytes: device.chain.writableBytes)
        }
        return true
    }

    private mutating func recover(
        _ ring: SplitRing, _ device: inout DeviceState
    ) throws(RingFault) {
        try tracking.recover(ring, usedIndex: usedIndex)
        let count = tracking.left.count
        // Otherwise the front end knows better, as nothing was left.
        if count > 0 { nextAvailable = usedIndex &+ UInt16(count) }
        // We may have died between an answer and the call that it deserved.
        call?.signal(&device)
    }
}
