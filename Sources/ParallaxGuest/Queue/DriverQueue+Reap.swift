// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

extension DriverQueue {
    /// Whether the device has used something that was not reaped yet.
    package var hasCompletion: Bool {
        // ORDER: acquire, pairs with the device's release of the used index.
        parallax_load_acquire_u16(used.base + 2) != nextUsed
    }

    /// The next request that the device has finished, or nil. The slot is free again afterwards,
    /// its buffer unchanged until the slot is reserved again.
    package mutating func reap() throws(GuestError) -> Completion? {
        guard hasCompletion else { return nil }
        let element = used.base + 4 + 8 * Int(nextUsed & mask)
        let head = parallax_load_relaxed_u32(element)
        let writtenByteCount = parallax_load_relaxed_u32(element + 4)
        guard let slot = slot(ofHead: head), slots[slot].isInFlight else {
            throw GuestError(
                .violation,
                "the device finished descriptor \(head) of queue \(index), which is not in flight")
        }
        nextUsed &+= 1
        slots[slot].isInFlight = false
        freeSlots[freeCount] = UInt16(slot)
        freeCount += 1
        let state = slots[slot]
        return Completion(
            tag: state.tag, slot: slot, operation: state.operation,
            status: parallax_load_relaxed_u8(state.status),
            writtenByteCount: writtenByteCount)
    }

    private func slot(ofHead head: UInt32) -> Int? {
        guard head < UInt32(layout.size) else { return nil }
        let step = layout.usesIndirect ? 1 : layout.descriptorsPerSlot
        let slot = Int(head) / step
        guard Int(head) % step == 0, slot < layout.slotCount else { return nil }
        return slot
    }

    // MARK: Calls

    /// Asks for a call when the next request is used. Returns false when one already is: then
    /// there is nothing to wait for.
    package mutating func requestCall() -> Bool {
        if usesEventIndex {
            parallax_store_relaxed_u16(available.base + 4 + 2 * layout.size, nextUsed)
        } else {
            parallax_store_relaxed_u16(available.base, 0)
        }
        // ORDER: our wish must be visible before we look at the used index; the device does the
        // reverse. Otherwise it could skip the call for a completion that we do not see.
        parallax_fence_seq_cst()
        return !hasCompletion
    }

    /// While we look at the ring ourselves no call is needed. With EVENT_IDX there is nothing to
    /// do: the announced index falls behind by itself.
    package mutating func suppressCalls() {
        if !usesEventIndex { parallax_store_relaxed_u16(available.base, 1) }
    }
}
