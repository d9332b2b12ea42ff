// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

// The thread's main work. A slot that the device refuses stays in the thread's hands as a suspect, and
// the next one is tried:
//
//   another one is written      it was the slot: it is left out until the restart
//   no other one, or too many   it is the device: all of them go back, and the store is full
//
// Else the lowest free slot, which is always taken first, would be tried for ever and keep all others
// from being used; or an outage would use up all slots, one by one.

extension ExtentPreparer {
    /// LIMIT: slots that are refused one after the other before it is the device that fails.
    package static let suspectsMax = 32

    /// Slots in the thread's hands that could not be prepared, and the last thing that went wrong.
    private struct Suspects {
        var slots: [ExtentSlot] = []
        /// Why the last slot was refused that might have been the only one.
        var refusal: MediumError?
        var failure: MediumError?
    }

    func prepareSlots(_ zeroes: borrowing AlignedMemory) {
        var suspects = Suspects()
        while let slot = takeFreeSlot() {
            do throws(MediumError) {
                let hasWritten = try prepare(slot, zeroes)
                put(slot, hasWritten: hasWritten, &suspects)
            } catch {
                suspects.slots.append(slot)
                suspects.failure = error
                guard error.isOfItsPlace else { break }
                suspects.refusal = error
                guard suspects.slots.count < Self.suspectsMax else { break }
            }
        }
        // Until a slot is requested or released: something may have changed.
        if let failure = suspects.failure { giveBack(suspects, failure) }
    }

    /// The next slot to work on, while more are wanted.
    private func takeFreeSlot() -> ExtentSlot? {
        update { state in
            guard !state.isStopping,
                state.ready.count < readyCountMax || !state.waiting.isEmpty,
                let slot = state.takeFreeSlot()
            else { return nil }
            state.isHolding = true
            return slot
        }
    }

    private func put(_ slot: ExtentSlot, hasWritten: Bool, _ suspects: inout Suspects) {
        // One that was ready as it was says nothing about the device.
        let unwritable = hasWritten ? suspects.slots : []
        let refusal = suspects.refusal
        if hasWritten { suspects = Suspects() }
        let isHolding = !suspects.slots.isEmpty
        let reply: Reply? = update { state in
            state.isHolding = isHolding
            state.failure = nil
            state.isDeviceFailing = false
            state.unwritable += unwritable
            state.allocated.subtract(unwritable)
            if !state.waiting.isEmpty { return state.waiting.removeFirst() }
            state.ready.append(slot)
            return nil
        }
        reply?(slot)
        if let refusal, !unwritable.isEmpty { report(unwritable.count, refusal) }
    }

    /// Nobody waits for a slot that cannot be had.
    private func giveBack(_ suspects: Suspects, _ failure: MediumError) {
        let waiting = update { state in
            state.isHolding = false
            state.failure = failure
            state.isDeviceFailing = suspects.refusal != nil
            state.allocated.subtract(suspects.slots)
            for slot in suspects.slots { state.allocator.release(slot) }
            defer { state.waiting = [] }
            return state.waiting
        }
        for reply in waiting { reply(nil) }
    }

    /// False: there was nothing to do.
    private func prepare(
        _ slot: ExtentSlot, _ zeroes: borrowing AlignedMemory
    ) throws(MediumError) -> Bool {
        let hasWritten = try prepareRange(
            offset(of: slot), UInt64(extentBytes), UnsafeRawBufferPointer(zeroes.bytes),
            { _ in !isStopping }
        ).get()
        update { _ = $0.allocated.insert(slot) }
        if hasWritten { try store.sync() }
        return hasWritten
    }

    private func report(_ count: Int, _ refusal: MediumError) {
        let extents = count == 1 ? "an extent" : "\(count) extents"
        reportUnwritable(
            "\(extents) of the store \(store.path) cannot be written (errno \(refusal.errno) at "
                + "byte \(refusal.offset)) and \(count == 1 ? "is" : "are") left out until the "
                + "daemon is restarted; check the device and the kernel log")
    }
}

extension MediumError {
    /// The medium refuses this place and may take another: it is not full, was not interrupted, and
    /// has not lost what it had taken.
    fileprivate var isOfItsPlace: Bool {
        operation == .write && ![ENOSPC, EDQUOT, ECANCELED].contains(errno)
    }
}
