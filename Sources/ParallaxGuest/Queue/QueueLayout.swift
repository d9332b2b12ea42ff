// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// How one queue is laid out in guest memory. The first region holds what the queue is made of,
/// the second the data:
///
///     region 0, page aligned                       region 1
///     +---------------------------+                +----------------------+
///     | descriptors  16 x size    |                | data of slot 0       | bufferBytes
///     +---------------------------+                +----------------------+
///     | available    6 + 2 x size |                | data of slot 1       |
///     +---------------------------+                +----------------------+
///     | used         6 + 8 x size |                | ...                  |
///     +---------------------------+
///     | slot 0: header 0..15, status 16, pad to 64, indirect table |
///     | slot 1: ...                                                |
///     +------------------------------------------------------------+
///
/// A slot is one request that may be in flight. Its memory and its descriptors never change owner,
/// so that submitting is a few stores: with indirect descriptors slot `s` is descriptor `s`,
/// without it is the `descriptorsPerSlot` descriptors from `s * descriptorsPerSlot`.
package struct QueueLayout: Equatable, Sendable {
    package var size: Int
    package var slotCount: Int
    package var bufferBytes: Int
    /// The longest piece of data that one descriptor may name.
    package var dataSegmentBytes: Int
    package var usesIndirect: Bool

    /// LIMIT: virtio allows no queue larger than this (virtio 1.2, 2.7).
    package static let sizeMax = 32768

    package init(
        size: Int, slotCount: Int, bufferBytes: Int, dataSegmentBytes: Int, usesIndirect: Bool
    ) throws(GuestError) {
        guard size > 0, size <= Self.sizeMax, size & (size - 1) == 0 else {
            throw GuestError(.usage, "queue size \(size) is not a power of two up to 32768")
        }
        guard slotCount > 0, bufferBytes >= 512, bufferBytes <= 1 << 30, dataSegmentBytes > 0
        else {
            throw GuestError(
                .usage, "a queue needs one slot and 512 bytes of buffer (at most 1G) at least")
        }
        self.size = size
        self.slotCount = slotCount
        self.bufferBytes = roundUp(bufferBytes, toMultipleOf: GuestMemory.pageBytes)
        self.dataSegmentBytes = min(dataSegmentBytes, self.bufferBytes)
        self.usesIndirect = usesIndirect
        let needed = usesIndirect ? slotCount : slotCount * descriptorsPerSlot
        guard needed <= size else {
            throw GuestError(
                .usage,
                "\(slotCount) requests in flight need \(needed) descriptors, the queue has "
                    + "\(size): use a larger queue, or fewer requests")
        }
    }

    package var dataSegmentCount: Int { (bufferBytes + dataSegmentBytes - 1) / dataSegmentBytes }
    /// Header, data, status.
    package var descriptorsPerSlot: Int { dataSegmentCount + 2 }

    var descriptorTableBytes: Int { Descriptor.byteCount * size }
    var availableBytes: Int { 6 + 2 * size }
    var usedBytes: Int { 6 + 8 * size }
    var slotBytes: Int {
        let table = usesIndirect ? descriptorsPerSlot * Descriptor.byteCount : 0
        return roundUp(64 + table, toMultipleOf: 64)
    }

    /// What `DriverQueue` takes out of the first region.
    package var structureBytes: Int {
        let page = GuestMemory.pageBytes
        return roundUp(descriptorTableBytes, toMultipleOf: page)
            + roundUp(availableBytes, toMultipleOf: page) + roundUp(usedBytes, toMultipleOf: page)
            + roundUp(slotCount * slotBytes, toMultipleOf: page)
    }

    /// What `DriverQueue` takes out of the second.
    package var dataBytes: Int { slotCount * bufferBytes }
}

/// One queue's places in guest memory.
struct QueueMemory {
    let layout: QueueLayout
    let descriptors: GuestRange
    let available: GuestRange
    let used: GuestRange
    let slots: GuestRange
    let data: GuestRange

    init(
        _ layout: QueueLayout, structures: inout GuestArena, data dataArena: inout GuestArena
    ) throws(GuestError) {
        let page = GuestMemory.pageBytes
        self.layout = layout
        descriptors = try structures.allocate(
            byteCount: layout.descriptorTableBytes, alignment: page)
        available = try structures.allocate(byteCount: layout.availableBytes, alignment: page)
        used = try structures.allocate(byteCount: layout.usedBytes, alignment: page)
        slots = try structures.allocate(
            byteCount: layout.slotBytes * layout.slotCount, alignment: page)
        data = try dataArena.allocate(byteCount: layout.dataBytes, alignment: page)
    }
}
