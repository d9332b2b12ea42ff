// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore

// A slot is taken out of the allocator while its hole is punched, so it cannot be handed out
// meanwhile (I1). Nothing waits for a hole: a slot that is wanted is not punched, and a punch that is
// under way takes a few milliseconds.

extension ExtentPreparer.State {
    /// Those who wait for more slots than there are (I3): the store is full.
    mutating func takeHopeless() -> [ExtentPreparer.Reply] {
        guard !waiting.isEmpty, !isHolding, allocator.freeCount == 0 else { return [] }
        defer { waiting = [] }
        return waiting
    }

    /// A free slot for who takes it unprepared. None while the device fails: the log would be told
    /// there what the thread has been told, and a log write that fails ends the shard's writing.
    mutating func takeUnprepared() -> ExtentSlot? { isDeviceFailing ? nil : takeFreeSlot() }

    /// Who is to have a slot that the thread has had for something else, as it is.
    mutating func takeWaiting() -> ExtentPreparer.Reply? {
        isDeviceFailing || waiting.isEmpty ? nil : waiting.removeFirst()
    }

    /// A free slot to work with. One with blocks is used as it is, and the newest of those first:
    /// the others are on their way back to the file system. Else the lowest.
    mutating func takeFreeSlot() -> ExtentSlot? {
        guard let newest = backed.popLast() else { return allocator.allocate() }
        let isFree = allocator.markUsed(newest.slot)
        precondition(isFree, "ExtentPreparer I2: a backed slot is not free")
        return newest.slot
    }
}

extension ExtentPreparer {
    /// LIMIT: slots that are looked at before a request is looked for again.
    private static let surveyStep = 64

    /// One step of giving blocks back, when there is nothing to prepare. When to come again, in
    /// milliseconds; -1: when woken.
    func tidyUp() -> Int32 {
        guard let restNanoseconds else { return -1 }
        if survey() { return 0 }
        let now = parallax_monotonic_nanoseconds()
        let (slot, due): (ExtentSlot?, UInt64?) = update { state in
            guard !state.isStopping, !state.cannotPunch, state.waiting.isEmpty,
                state.backed.count > readyCountMax, let oldest = state.backed.first
            else { return (nil, nil) }
            let due = oldest.sinceNanoseconds + restNanoseconds
            guard due <= now, state.allocator.markUsed(oldest.slot) else { return (nil, due) }
            state.backed.removeFirst()
            state.isHolding = true
            return (oldest.slot, nil)
        }
        if let due { return Int32(clamping: (due - min(due, now)) / 1_000_000 + 1) }
        guard let slot else { return -1 }
        punch(slot)
        // A GiB a second: the file system's journal has other work too.
        return Int32(max(1, extentBytes >> 20))
    }

    private func punch(_ slot: ExtentSlot) {
        let result = parallax_fallocate(
            store.fileDescriptor, PARALLAX_FALLOC_PUNCH_HOLE | PARALLAX_FALLOC_KEEP_SIZE,
            Int64(offset(of: slot)), Int64(extentBytes))
        let reply: Reply? = update { state in
            state.isHolding = false
            if result == 0 {
                state.punchedBytes += UInt64(extentBytes)
                state.allocated.remove(slot)
            } else if result == -EOPNOTSUPP {
                state.cannotPunch = true
                state.backed = []
            }
            // Somebody came meanwhile, and there was no other.
            if let reply = state.takeWaiting() { return reply }
            state.allocator.release(slot)
            return nil
        }
        if let reply { give(slot, to: reply) }
    }

    /// Finds free slots that were in use before the start. False: it has looked at all of them.
    private func survey() -> Bool {
        for _ in 0..<Self.surveyStep {
            let (slot, isDone): (ExtentSlot?, Bool) = update { state in
                guard state.surveyedCount < state.allocator.slotCount, !state.isStopping else {
                    return (nil, true)
                }
                let slot = ExtentSlot(UInt32(state.surveyedCount))
                state.surveyedCount += 1
                guard state.allocator.markUsed(slot) else { return (nil, false) }
                state.isHolding = true
                return (slot, false)
            }
            if isDone { return false }
            guard let slot else { continue }
            let isBacked = parallax_range_has_blocks(
                store.fileDescriptor, offset(of: slot), UInt64(extentBytes))
            let reply: Reply? = update { state in
                state.isHolding = false
                if let reply = state.takeWaiting() { return reply }
                if isBacked == 1 { putBack(slot, &state) } else { state.allocator.release(slot) }
                return nil
            }
            if let reply { give(slot, to: reply) }
        }
        return true
    }
}
