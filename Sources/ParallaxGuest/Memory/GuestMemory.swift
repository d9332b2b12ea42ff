// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// The memory of a pretended guest: one memfd, mapped here region by region, that the device maps
/// as well. Regions may lie anywhere in the guest's physical address space, with holes between.
///
///     guest physical   0x0 ........ region 0 ...hole... 4 GiB ........ region 1
///                       |                                |
///     memfd            [ region 0 ][ region 1 ]          |
///                       |            \__________________/
///     this process     base 0 (any address)   base 1 (any other address)
///
/// SAFETY: owns the mappings; they end with the value, so pointers from `pointer` and `GuestRange`
/// must not outlive it. The device writes to the memory at any time.
package struct GuestMemory: ~Copyable {
    package struct Region: Equatable, Sendable {
        package var guestAddress: UInt64
        package var byteCount: Int
        package var fileOffset: UInt64
        /// Where it is mapped here; vhost-user's "user address".
        package var userAddress: UInt64
    }

    package static let pageBytes = 4096

    package let fileDescriptor: Int32
    package let regions: [Region]

    /// `byteCount`s are rounded up to whole pages. All memory starts as zeroes.
    package init(
        regions wanted: [(guestAddress: UInt64, byteCount: Int)]
    ) throws(GuestError) {
        let sizes = wanted.map { roundUp($0.byteCount, toMultipleOf: Self.pageBytes) }
        let total = sizes.reduce(0, +)
        let fd = parallax_memfd_create("parallax-guest", Int64(total))
        guard fd >= 0 else {
            throw GuestError(
                .system, "cannot make \(total) bytes of guest memory: \(errorText(fd))")
        }
        var mapped: [Region] = []
        var offset = 0
        for (index, size) in sizes.enumerated() {
            let flags = MAP_SHARED | MAP_POPULATE
            guard let base = mmap(nil, size, PROT_READ | PROT_WRITE, flags, fd, off_t(offset)),
                base != MAP_FAILED
            else {
                let text = errorText(-errno)
                for region in mapped { Self.unmap(region) }
                close(fd)
                throw GuestError(.system, "cannot map \(size) bytes of guest memory: \(text)")
            }
            mapped.append(
                Region(
                    guestAddress: wanted[index].guestAddress, byteCount: size,
                    fileOffset: UInt64(offset), userAddress: UInt64(UInt(bitPattern: base))))
            offset += size
        }
        fileDescriptor = fd
        regions = mapped
    }

    deinit {
        for region in regions { Self.unmap(region) }
        close(fileDescriptor)
    }

    private static func unmap(_ region: Region) {
        munmap(UnsafeMutableRawPointer(bitPattern: UInt(region.userAddress)), region.byteCount)
    }

    /// The memory at a guest physical range, or nil unless all of it lies in one region.
    package func pointer(
        to guestAddress: UInt64, byteCount: Int
    ) -> UnsafeMutableRawPointer? {
        for region in regions {
            guard guestAddress >= region.guestAddress else { continue }
            let offset = guestAddress - region.guestAddress
            guard offset <= UInt64(region.byteCount),
                byteCount <= region.byteCount - Int(offset)
            else { continue }
            return UnsafeMutableRawPointer(bitPattern: UInt(region.userAddress + offset))
        }
        return nil
    }
}

/// A piece of guest memory under both of its names.
///
/// SAFETY: valid while the `GuestMemory` it came from lives.
package struct GuestRange: BitwiseCopyable {
    package var base: UnsafeMutableRawPointer
    package var guestAddress: UInt64
    package var byteCount: Int

    package var userAddress: UInt64 { UInt64(UInt(bitPattern: base)) }
}

/// Hands out one region of guest memory from its start; nothing is ever given back.
package struct GuestArena {
    private let region: GuestMemory.Region
    private var used = 0

    package init(_ region: GuestMemory.Region) { self.region = region }

    package mutating func allocate(
        byteCount: Int, alignment: Int
    ) throws(GuestError) -> GuestRange {
        let start = roundUp(used, toMultipleOf: alignment)
        guard start + byteCount <= region.byteCount,
            let base = UnsafeMutableRawPointer(
                bitPattern: UInt(region.userAddress) + UInt(start))
        else {
            throw GuestError(.usage, "the guest memory region is too small")
        }
        used = start + byteCount
        return GuestRange(
            base: base, guestAddress: region.guestAddress + UInt64(start), byteCount: byteCount)
    }
}

package func roundUp(_ value: Int, toMultipleOf unit: Int) -> Int {
    (value + unit - 1) / unit * unit
}

/// The text for a negated errno.
package func errorText(_ result: Int32) -> String {
    guard let text = strerror(-result) else { return "error \(-result)" }
    return String(cString: text)
}
