// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

extension DriverQueue {
    /// Takes a free slot, or nil when all are in flight. Nothing is told to the device until
    /// `submit`; a slot that is not submitted goes back with `cancel`.
    package mutating func reserve() -> Int? {
        guard freeCount > 0 else { return nil }
        freeCount -= 1
        return Int(freeSlots[freeCount])
    }

    /// Gives back a reserved slot.
    package mutating func cancel(slot: Int) {
        precondition(!slots[slot].isInFlight, "DriverQueue I1: cancel of a slot in flight")
        freeSlots[freeCount] = UInt16(slot)
        freeCount += 1
    }

    /// Puts a request into the ring; the device sees it after `publish`. `byteCount` is the length
    /// of the data: 0 for flush, 16 for each range of a discard.
    package mutating func submit(
        slot: Int, _ operation: BlockOperation, firstSector: UInt64, byteCount: Int, tag: UInt64
    ) {
        precondition(slot >= 0 && slot < layout.slotCount, "DriverQueue: no such slot")
        precondition(!slots[slot].isInFlight, "DriverQueue I1: slot submitted twice")
        precondition(byteCount >= 0 && byteCount <= layout.bufferBytes, "DriverQueue: too long")
        slots[slot].tag = tag
        slots[slot].operation = operation
        slots[slot].isInFlight = true

        let state = slots[slot]
        state.header.pointee = BlockRequestHeader(operation: operation, firstSector: firstSector)
        state.status.pointee = BlockStatusByte.unwritten
        let count = buildChain(state, byteCount: byteCount)
        var head = state.firstIndex
        if layout.usesIndirect {
            head = UInt16(slot)
            let table = descriptors.base.assumingMemoryBound(to: Descriptor.self)
            table[slot].byteCount = UInt32(count * Descriptor.byteCount)
        }
        pushAvailable(head)
    }

    /// Header, data in pieces, status. Returns the number of descriptors.
    private func buildChain(_ slot: Slot, byteCount: Int) -> Int {
        let isFromDevice = slot.operation == .read || slot.operation == .identify
        let dataFlags =
            Descriptor.nextFlag | (isFromDevice ? Descriptor.deviceWritableFlag : 0)
        slot.chain[0] = Descriptor(
            guestAddress: slot.headerAddress, byteCount: 16, flags: Descriptor.nextFlag,
            next: slot.firstIndex &+ 1)
        var position = 1
        var offset = 0
        while offset < byteCount {
            let piece = min(layout.dataSegmentBytes, byteCount - offset)
            slot.chain[position] = Descriptor(
                guestAddress: slot.dataAddress &+ UInt64(offset), byteCount: UInt32(piece),
                flags: dataFlags, next: slot.firstIndex &+ UInt16(position + 1))
            offset += piece
            position += 1
        }
        slot.chain[position] = Descriptor(
            guestAddress: slot.headerAddress &+ 16, byteCount: 1,
            flags: Descriptor.deviceWritableFlag)
        return position + 1
    }

    /// Shows the device all that was submitted, and kicks it unless it said that it looks by
    /// itself. Returns whether it was kicked.
    @discardableResult
    package mutating func publish() -> Bool {
        guard nextAvailable != publishedAvailable else { return false }
        let old = publishedAvailable
        publishedAvailable = nextAvailable
        // ORDER: release, pairs with the device's acquiring load of the available index: it must
        // see the descriptors and ring entries that the index covers.
        parallax_store_release_u16(available.base + 2, nextAvailable)
        // ORDER: the index must be visible before we read whether the device wants a kick; the
        // device does the reverse (announces, fences, reads the index). Otherwise both could
        // decide to sleep.
        parallax_fence_seq_cst()
        guard deviceWantsKick(from: old, to: nextAvailable) else { return false }
        kick()
        return true
    }

    private func deviceWantsKick(from old: UInt16, to new: UInt16) -> Bool {
        if usesEventIndex {
            let event = parallax_load_relaxed_u16(used.base + 4 + 8 * layout.size)
            // virtio 1.2, 2.7.10: kick when the announced index lies in [old, new).
            return new &- event &- 1 < new &- old
        }
        return parallax_load_relaxed_u16(used.base) & 1 == 0
    }

    /// Writes the kick eventfd, wanted or not.
    package mutating func kick() {
        kickCount += 1
        // A full counter (EAGAIN) means that kicks are pending already.
        _ = parallax_eventfd_write(kickFD, 1)
    }
}
