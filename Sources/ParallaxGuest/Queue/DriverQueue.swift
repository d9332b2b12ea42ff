// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// One split virtqueue from the driver's side: builds descriptor chains in guest memory, makes
/// them available, and takes back what the device has used.
///
/// Owned by one thread. After `init` it allocates nothing. Invariants:
/// I1 a slot is either in the free list or in flight, never both;
/// I2 `nextUsed` never runs ahead of the device's used index;
/// I3 what the device writes (used ring, status) is copied once and checked before use.
///
/// It does not decide when to notify or wait for more than this queue: `BlockDriver` does.
///
/// SAFETY: all pointers lie in the `GuestMemory` that it was made from, which `BlockDriver` keeps
/// alive as long as the queue; every index is checked or masked before it is used.
package struct DriverQueue: ~Copyable {
    struct Slot: BitwiseCopyable {
        var header: UnsafeMutablePointer<BlockRequestHeader>
        var headerAddress: UInt64
        var status: UnsafeMutablePointer<UInt8>
        /// Where the chain is built: the indirect table, or the slot's part of the ring's table.
        var chain: UnsafeMutablePointer<Descriptor>
        /// What `next` of the chain's first descriptor counts from: 0 in an indirect table.
        var firstIndex: UInt16
        var data: UnsafeMutableRawPointer
        var dataAddress: UInt64
        var tag: UInt64 = 0
        var operation: BlockOperation = .read
        var isInFlight = false
    }

    /// What a used element says, after checking.
    package struct Completion: BitwiseCopyable {
        package var tag: UInt64
        package var slot: Int
        package var operation: BlockOperation
        package var status: UInt8
        /// The number of bytes that the device claims to have written.
        package var writtenByteCount: UInt32
    }

    package let index: Int
    package let layout: QueueLayout
    package let usesEventIndex: Bool
    package let descriptors: GuestRange
    package let available: GuestRange
    package let used: GuestRange
    /// The eventfd that tells the device about new requests.
    package let kickFD: Int32
    /// The eventfd by which the device tells us about used ones.
    package let callFD: Int32

    let slots: UnsafeMutablePointer<Slot>
    let freeSlots: UnsafeMutablePointer<UInt16>
    var freeCount: Int
    let mask: UInt16
    /// Free-running; where the next chain goes in the available ring.
    var nextAvailable: UInt16 = 0
    /// What the device has been shown.
    var publishedAvailable: UInt16 = 0
    var nextUsed: UInt16 = 0
    /// Kicks that the device did not suppress.
    package var kickCount: UInt64 = 0

    /// The eventfds become the queue's own.
    init(
        index: Int, memory: QueueMemory, usesEventIndex: Bool,
        eventDescriptors: (kick: Int32, call: Int32)
    ) {
        let layout = memory.layout
        self.index = index
        self.layout = layout
        self.usesEventIndex = usesEventIndex
        descriptors = memory.descriptors
        available = memory.available
        used = memory.used
        kickFD = eventDescriptors.kick
        callFD = eventDescriptors.call
        mask = UInt16(layout.size - 1)
        freeCount = layout.slotCount
        slots = .allocate(capacity: layout.slotCount)
        freeSlots = .allocate(capacity: layout.slotCount)
        for slot in 0..<layout.slotCount {
            (slots + slot).initialize(to: Self.makeSlot(slot, memory))
            // The lowest slot is taken first: it is at the top of the stack.
            freeSlots[layout.slotCount - 1 - slot] = UInt16(slot)
        }
        suppressCalls()
    }

    deinit {
        slots.deallocate()
        freeSlots.deallocate()
        close(kickFD)
        close(callFD)
    }

    /// A queue by itself, with the first two regions of `memory` all for it; the caller keeps the
    /// memory alive. For tests: a driver lays out its own queues.
    package static func make(
        index: Int, layout: QueueLayout, usesEventIndex: Bool, in memory: borrowing GuestMemory
    ) throws(GuestError) -> DriverQueue {
        guard memory.regions.count >= 2 else {
            throw GuestError(.usage, "a queue needs two regions of guest memory")
        }
        var structures = GuestArena(memory.regions[0])
        var data = GuestArena(memory.regions[1])
        let places = try QueueMemory(layout, structures: &structures, data: &data)
        return DriverQueue(
            index: index, memory: places, usesEventIndex: usesEventIndex,
            eventDescriptors: try makeEventDescriptors())
    }

    static func makeEventDescriptors() throws(GuestError) -> (kick: Int32, call: Int32) {
        let kick = parallax_eventfd_create(0, 1)
        let call = parallax_eventfd_create(0, 1)
        guard kick >= 0, call >= 0 else {
            if kick >= 0 { close(kick) }
            if call >= 0 { close(call) }
            throw GuestError(.system, "cannot make an eventfd: \(errorText(min(kick, call)))")
        }
        return (kick, call)
    }

    private static func makeSlot(_ slot: Int, _ memory: QueueMemory) -> Slot {
        let layout = memory.layout
        let offset = slot * layout.slotBytes
        let base = memory.slots.base + offset
        let address = memory.slots.guestAddress + UInt64(offset)
        let tableIndex = slot * layout.descriptorsPerSlot
        let table =
            layout.usesIndirect
            ? base + 64 : memory.descriptors.base + tableIndex * Descriptor.byteCount
        if layout.usesIndirect {
            // The ring's own descriptor for the slot; only its length changes later.
            memory.descriptors.base.storeBytes(
                of: Descriptor(
                    guestAddress: address + 64, byteCount: 0, flags: Descriptor.indirectFlag),
                toByteOffset: slot * Descriptor.byteCount, as: Descriptor.self)
        }
        let dataOffset = slot * layout.bufferBytes
        return Slot(
            header: base.assumingMemoryBound(to: BlockRequestHeader.self),
            headerAddress: address,
            status: (base + 16).assumingMemoryBound(to: UInt8.self),
            chain: table.assumingMemoryBound(to: Descriptor.self),
            firstIndex: layout.usesIndirect ? 0 : UInt16(tableIndex),
            data: memory.data.base + dataOffset,
            dataAddress: memory.data.guestAddress + UInt64(dataOffset))
    }

    package var inFlightCount: Int { layout.slotCount - freeCount }
    package var hasFreeSlot: Bool { freeCount > 0 }

    /// The memory of a slot; for a write fill it before `submit`, after a read it holds the data
    /// until the slot is taken again.
    package func buffer(ofSlot slot: Int) -> UnsafeMutableRawBufferPointer {
        precondition(slot >= 0 && slot < layout.slotCount, "DriverQueue: no such slot")
        return UnsafeMutableRawBufferPointer(
            start: slots[slot].data, count: layout.bufferBytes)
    }
}
