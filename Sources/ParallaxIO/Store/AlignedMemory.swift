// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// Page-aligned memory for direct I/O, zeroed at first.
///
/// SAFETY: owns one mapping of `bytes.count` bytes, unmapped by `deinit`. Whoever keeps a pointer
/// into it keeps the owner alive, also while the kernel reads or writes there.
package struct AlignedMemory: ~Copyable, @unchecked Sendable {
    package let bytes: UnsafeMutableRawBufferPointer

    /// `byteCount` is rounded up to whole pages. `prefersHugePages` is advice to the kernel.
    package init(byteCount: Int, prefersHugePages: Bool = false) throws(OutOfMemory) {
        let pageBytes = 4096
        let mappedBytes = max(1, (byteCount + pageBytes - 1) / pageBytes) * pageBytes
        let address = mmap(
            nil, mappedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | Int32(MAP_ANONYMOUS), -1, 0)
        guard let address, address != MAP_FAILED else {
            throw OutOfMemory(byteCount: mappedBytes)
        }
        if prefersHugePages { _ = madvise(address, mappedBytes, PARALLAX_MADV_HUGEPAGE) }
        bytes = UnsafeMutableRawBufferPointer(start: address, count: mappedBytes)
    }

    deinit { munmap(bytes.baseAddress, bytes.count) }
}

package struct OutOfMemory: Error, Equatable, CustomStringConvertible {
    package var byteCount: Int

    package var description: String {
        "cannot map \(byteCount) bytes of memory: the system has not enough; configure less"
    }
}
