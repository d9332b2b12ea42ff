// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CChecksum

/// CRC32C of memory.
package enum Checksum {
    /// CRC32C of `bytes`, continuing from `previous` (0 to start).
    package static func crc32c(_ bytes: UnsafeRawBufferPointer, continuing previous: UInt32 = 0)
        -> UInt32
    {
        guard let base = bytes.baseAddress else { return previous }
        return parallax_crc32c(previous, base, bytes.count)
    }

    /// The table-driven version, for comparison in tests.
    package static func crc32cSoftware(
        _ bytes: UnsafeRawBufferPointer, continuing previous: UInt32 = 0
    ) -> UInt32 {
        guard let base = bytes.baseAddress else { return previous }
        return parallax_crc32c_software(previous, base, bytes.count)
    }

    /// Whether the processor's CRC instructions are in use.
    package static var isAccelerated: Bool { parallax_crc32c_is_accelerated() }

    /// CRC32C of one block.
    package static func ofBlock(_ block: UnsafeRawPointer) -> UInt32 {
        parallax_crc32c(0, block, blockBytes)
    }
}

/// Raw memory moves without bounds of their own; every caller states why its lengths hold.
enum Memory {
    static func copy(to: UnsafeMutableRawPointer, from: UnsafeRawPointer, count: Int) {
        parallax_copy(to, from, count)
    }

    static func zero(_ bytes: UnsafeMutableRawPointer, count: Int) {
        parallax_zero(bytes, count)
    }

    static func isZero(_ bytes: UnsafeRawPointer, count: Int) -> Bool {
        parallax_is_zero(bytes, count)
    }

    /// Page-aligned memory, as direct I/O wants it.
    static func allocatePages(byteCount: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: blockBytes)
    }
}
