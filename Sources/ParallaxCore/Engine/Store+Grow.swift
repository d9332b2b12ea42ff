// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A store that becomes larger while it is used.
///
/// ```
///   1 the medium is larger, durably      2 both superblock copies, one after the other, durably
///   3 every engine knows of the slots    4 the allocator hands them out
/// ```
/// G1 nothing names a slot before both copies of the superblock have it: a crash before that leaves
///    the old store or the larger, empty one, whichever copy is found.
extension Store {
    /// Makes a larger `storeBytes` durable in the superblock, which `medium` already has room for.
    /// The generation stays: the chunks of this opening go on. Throws `.invalidOptions` for a store
    /// that would become smaller or have too many extents, `.device` if it cannot be written; then
    /// the growth may be tried again.
    package static func grow(
        _ superblock: Superblock, to storeBytes: UInt64, medium: some StoreMedium
    ) throws(StoreError) -> Superblock {
        let larger = try layout(of: superblock, grownTo: storeBytes)
        guard storeBytes <= medium.byteCount else {
            throw StoreError(
                .truncated,
                "The store cannot grow to \(storeBytes) bytes: its file or device has only "
                    + "\(medium.byteCount); make that larger first.")
        }
        if larger != superblock { try writeSuperblock(larger, to: medium) }
        return larger
    }

    /// What the superblock of the grown store says.
    package static func layout(
        of superblock: Superblock, grownTo storeBytes: UInt64
    ) throws(StoreError) -> Superblock {
        guard storeBytes >= superblock.storeBytes else {
            throw StoreError(
                .invalidOptions,
                "A store cannot shrink: it has \(superblock.storeBytes) bytes, more than "
                    + "\(storeBytes); give a larger size, or copy its disks to a smaller store.")
        }
        let slots = (storeBytes - Superblock.firstExtentOffset) / superblock.extentBytes
        guard slots <= UInt64(UInt32.max) else {
            throw StoreError(
                .invalidOptions,
                "The store cannot have \(slots) extents; 4294967295 is the most.")
        }
        var larger = superblock
        larger.storeBytes = storeBytes
        larger.slotCount = UInt32(slots)
        return larger
    }
}

extension Engine {
    /// Takes slots for possible that the superblock on the medium already has (G1).
    package mutating func grow(to larger: Superblock) {
        precondition(
            larger.uuid == superblock.uuid && larger.slotCount >= superblock.slotCount
                && larger.extentBytes == superblock.extentBytes,
            "Engine: this is no growth of its store")
        superblock.storeBytes = larger.storeBytes
        superblock.slotCount = larger.slotCount
        forest.extents.grow(slotCount: Int(larger.slotCount))
    }

    /// The allocator has slots again that it had not when it was asked last: the next request is not
    /// refused for want of asking.
    package mutating func noteFreeSpace() {
        isStoreFull = false
        wasRefusedExtent = false
        hasRefusedData = false
    }
}
