// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

/// The three parts of a split virtqueue in our address space (virtio 1.2, 2.7).
///
/// ```
///   descriptor table   16 bytes x size
///   available ring     flags u16 | idx u16 | ring u16 x size | used_event u16
///   used ring          flags u16 | idx u16 | { id u32, len u32 } x size | avail_event u16
/// ```
///
/// SAFETY: the parts lie within mapped guest memory and are aligned. `VhostDevice` unmaps only when
/// nothing is in flight, and looks for each ring anew (`changeMemory`), or takes it away, before it
/// does anything else. The guest may change any byte at any time: each field is
/// read once, by an atomic load.
struct SplitRing: BitwiseCopyable {
    private let descriptors: UnsafeMutableRawPointer
    private let available: UnsafeMutableRawPointer
    private let used: UnsafeMutableRawPointer
    let size: UInt16

    /// nil where a part is not within one memory region or is not aligned.
    init?(_ addresses: QueueAddresses, size: UInt16, memory: borrowing GuestMemory) {
        let count = UInt64(size)
        guard size > 0,
            let descriptors = memory.pointer(
                userAddress: addresses.descriptorTable, byteCount: 16 * count),
            let available = memory.pointer(
                userAddress: addresses.availableRing, byteCount: 6 + 2 * count),
            let used = memory.pointer(userAddress: addresses.usedRing, byteCount: 6 + 8 * count),
            Self.isAligned(descriptors, to: 16), Self.isAligned(available, to: 2),
            Self.isAligned(used, to: 4)
        else { return nil }
        self.descriptors = descriptors
        self.available = available
        self.used = used
        self.size = size
    }

    private static func isAligned(_ pointer: UnsafeMutableRawPointer, to bytes: UInt) -> Bool {
        UInt(bitPattern: pointer) % bytes == 0
    }

    private func slot(_ counter: UInt16) -> Int { Int(counter & (size &- 1)) }

    func descriptor(at index: UInt16) -> Descriptor {
        let entry = descriptors + Descriptor.byteCount * Int(index)
        return Descriptor(
            decoding: parallax_load_relaxed_u64(entry), parallax_load_relaxed_u64(entry + 8))
    }

    /// virtio: avail.flags
    var interruptsAreUnwanted: Bool {
        UInt16(littleEndian: parallax_load_relaxed_u16(available)) & 1 != 0
    }

    /// virtio: avail.idx
    func availableIndex() -> UInt16 {
        // ORDER: pairs with the driver's write barrier before it raises the index, so that the
        // entries and descriptors below the index are visible.
        UInt16(littleEndian: parallax_load_acquire_u16(available + 2))
    }

    /// virtio: avail.ring[]
    func availableEntry(at counter: UInt16) -> UInt16 {
        UInt16(littleEndian: parallax_load_relaxed_u16(available + 4 + 2 * slot(counter)))
    }

    /// virtio: used_event, after the available ring: call when the used index passes it.
    func usedEvent() -> UInt16 {
        UInt16(littleEndian: parallax_load_relaxed_u16(available + 4 + 2 * Int(size)))
    }

    /// virtio: used.idx
    func usedIndex() -> UInt16 { UInt16(littleEndian: parallax_load_relaxed_u16(used + 2)) }

    /// virtio: used.ring[]
    func storeUsed(at counter: UInt16, head: UInt16, byteCount: UInt32) {
        let entry = used + 4 + 8 * slot(counter)
        parallax_store_relaxed_u32(entry, UInt32(head).littleEndian)
        parallax_store_relaxed_u32(entry + 4, byteCount.littleEndian)
    }

    func storeUsedIndex(_ counter: UInt16) {
        // ORDER: pairs with the driver's read barrier after it reads the index; data, status
        // bytes and used entries come before.
        parallax_store_release_u16(used + 2, counter.littleEndian)
    }

    /// virtio: used.flags: always 0, "kick me".
    func clearUsedFlags() { parallax_store_relaxed_u16(used, 0) }

    /// virtio: avail_event, after the used ring: kick when the available index passes it.
    func storeAvailableEvent(_ counter: UInt16) {
        parallax_store_relaxed_u16(used + 4 + 8 * Int(size), counter.littleEndian)
    }
}

/// Orders our writes before our reads of guest memory.
enum SharedMemoryFence {
    static func full() { parallax_fence_seq_cst() }
}
