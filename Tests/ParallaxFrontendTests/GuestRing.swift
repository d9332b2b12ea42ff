// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxGuest

/// The smallest device: takes chains out of a queue's rings by hand and answers them, so that
/// the driver side can be tested alone.
struct GuestRing {
    let queue: (descriptors: GuestRange, available: GuestRange, used: GuestRange)
    let size: Int
    var nextAvailable: UInt16 = 0
    var usedIndex: UInt16 = 0

    init(_ queue: borrowing DriverQueue) {
        self.queue = (queue.descriptors, queue.available, queue.used)
        size = queue.layout.size
    }

    var availableIndex: UInt16 {
        queue.available.base.load(fromByteOffset: 2, as: UInt16.self)
    }

    var availableFlags: UInt16 { queue.available.base.load(as: UInt16.self) }

    /// virtio: used_event, where the driver says when it wants a call.
    var callEvent: UInt16 {
        queue.available.base.load(fromByteOffset: 4 + 2 * size, as: UInt16.self)
    }

    /// virtio: avail_event, where the device says when it wants a kick.
    func setKickEvent(_ value: UInt16) {
        queue.used.base.storeBytes(of: value, toByteOffset: 4 + 8 * size, as: UInt16.self)
    }

    func setUsedFlags(_ value: UInt16) {
        queue.used.base.storeBytes(of: value, as: UInt16.self)
    }

    /// The head of the next chain, or nil.
    mutating func takeHead() -> UInt16? {
        guard nextAvailable != availableIndex else { return nil }
        let offset = 4 + 2 * (Int(nextAvailable) % size)
        nextAvailable &+= 1
        return queue.available.base.load(fromByteOffset: offset, as: UInt16.self)
    }

    func descriptor(_ index: UInt16) -> Descriptor {
        queue.descriptors.base.load(
            fromByteOffset: Int(index) * Descriptor.byteCount, as: Descriptor.self)
    }

    /// The chain from `head` on, through an indirect table if it has one.
    func chain(from head: UInt16, in memory: borrowing GuestMemory) -> [Descriptor] {
        var current = descriptor(head)
        var table: UnsafeMutableRawPointer? = queue.descriptors.base
        if current.flags & Descriptor.indirectFlag != 0 {
            table = memory.pointer(
                to: current.guestAddress, byteCount: Int(current.byteCount))
            guard let first = table else { return [] }
            current = first.load(as: Descriptor.self)
        }
        var chain = [current]
        while current.flags & Descriptor.nextFlag != 0, chain.count < 1000, let table {
            current = table.load(
                fromByteOffset: Int(current.next) * Descriptor.byteCount, as: Descriptor.self)
            chain.append(current)
        }
        return chain
    }

    /// Puts a used element, whatever it says.
    mutating func use(head: UInt32, writtenByteCount: UInt32 = 1) {
        let offset = 4 + 8 * (Int(usedIndex) % size)
        queue.used.base.storeBytes(of: head, toByteOffset: offset, as: UInt32.self)
        queue.used.base.storeBytes(
            of: writtenByteCount, toByteOffset: offset + 4, as: UInt32.self)
        usedIndex &+= 1
        queue.used.base.storeBytes(of: usedIndex, toByteOffset: 2, as: UInt16.self)
    }

    /// Writes the status byte of a chain and uses it.
    mutating func finish(head: UInt16, status: UInt8, in memory: borrowing GuestMemory) {
        if let last = chain(from: head, in: memory).last {
            memory.pointer(to: last.guestAddress, byteCount: 1)?
                .storeBytes(of: status, as: UInt8.self)
        }
        use(head: UInt32(head))
    }
}
