// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// An entry of a radix node: where a block or a child node is, what its checksum must be, and in
/// which epoch it was born.
///
/// ```
///  byte 0                8            12           16
///       +----------------+------------+------------+
///       | address  u64   | CRC32C u32 | birth u32  |   little-endian
///       +----------------+------------+------------+
/// ```
@frozen
package struct BlockReference: BitwiseCopyable, Equatable, Sendable {
    package var address: BlockAddress
    package var checksum: UInt32
    /// Epoch of the VDI's lineage in which the target was written.
    package var birth: UInt32

    @inlinable
    package init(address: BlockAddress, checksum: UInt32, birth: UInt32) {
        self.address = address
        self.checksum = checksum
        self.birth = birth
    }

    @inlinable
    package static var hole: BlockReference {
        BlockReference(address: .hole, checksum: 0, birth: 0)
    }

    @inlinable package var isHole: Bool { address.isHole }

    /// A hole in a version that has a parent remembers how it became one: a comparison with the
    /// parent tells it. In place of a checksum stands the kind.
    static func hole(_ kind: HoleKind, birth: UInt32) -> BlockReference {
        BlockReference(address: .hole, checksum: UInt32(kind.rawValue), birth: birth)
    }

    var holeKind: HoleKind { checksum == UInt32(HoleKind.zeroed.rawValue) ? .zeroed : .discarded }
}

/// How blocks came to read as zeros.
enum HoleKind: UInt8, BitwiseCopyable {
    /// By a discard, or because the disk was made smaller.
    case discarded = 1
    /// By a write of zeros.
    case zeroed = 2
}

/// Entries in one radix node.
package let radixFanout = blockBytes / 16

/// log2 of `radixFanout`.
package let radixBits = 8
