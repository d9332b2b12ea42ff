// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

// For hostile tests: anything that a broken or malicious guest can put into its own memory. None
// of it keeps the slots' books, so do not mix it with `submit` on descriptors that slots use.
extension DriverQueue {
    /// Writes one element of the descriptor table.
    package func setDescriptor(_ position: Int, _ descriptor: Descriptor) {
        precondition(position >= 0 && position < layout.size, "DriverQueue: no such descriptor")
        descriptors.base.storeBytes(
            of: descriptor, toByteOffset: position * Descriptor.byteCount, as: Descriptor.self)
    }

    /// Appends a chain's head to the available ring; `publish` shows it to the device. Any number
    /// is taken, also one that is no descriptor.
    package mutating func pushAvailable(_ head: UInt16) {
        parallax_store_relaxed_u16(available.base + 4 + 2 * Int(nextAvailable & mask), head)
        nextAvailable &+= 1
    }

    /// Writes the available index, however wrong.
    package mutating func setAvailableIndex(_ value: UInt16) {
        nextAvailable = value
        publishedAvailable = value
        parallax_store_release_u16(available.base + 2, value)
    }

    /// Writes the used index, which belongs to the device.
    package func setUsedIndex(_ value: UInt16) {
        parallax_store_release_u16(used.base + 2, value)
    }

    /// The device's used index.
    package var usedIndex: UInt16 { parallax_load_acquire_u16(used.base + 2) }

    /// The `position`-th element of the used ring (modulo its size).
    package func usedElement(_ position: UInt16) -> (head: UInt32, writtenByteCount: UInt32) {
        let element = used.base + 4 + 8 * Int(position & mask)
        return (parallax_load_relaxed_u32(element), parallax_load_relaxed_u32(element + 4))
    }

    /// Guest addresses of a slot's parts, for chains built by hand.
    package func addresses(ofSlot slot: Int) -> (header: UInt64, status: UInt64, data: UInt64) {
        precondition(slot >= 0 && slot < layout.slotCount, "DriverQueue: no such slot")
        let state = slots[slot]
        return (state.headerAddress, state.headerAddress + 16, state.dataAddress)
    }

    /// Writes a slot's request header.
    package func setHeader(ofSlot slot: Int, _ operation: BlockOperation, firstSector: UInt64) {
        precondition(slot >= 0 && slot < layout.slotCount, "DriverQueue: no such slot")
        slots[slot].header.pointee = BlockRequestHeader(
            operation: operation, firstSector: firstSector)
        slots[slot].status.pointee = BlockStatusByte.unwritten
    }

    /// A slot's status byte as it is now.
    package func status(ofSlot slot: Int) -> UInt8 {
        precondition(slot >= 0 && slot < layout.slotCount, "DriverQueue: no such slot")
        return parallax_load_relaxed_u8(slots[slot].status)
    }
}
