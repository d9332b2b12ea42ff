// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The first 16 bytes of each virtio-blk request, little-endian (virtio 1.2, 5.2.6).
///
/// ```
///   0        4          8              16
///   | type   | reserved | first sector |  data ...  | status u8 |
///   +--------- device-readable ----------- or writable ---------+
/// ```
package struct BlockRequestHeader: BitwiseCopyable, Equatable, Sendable {
    package static let byteCount = 16

    /// What the guest asks for.
    package enum Kind: UInt32, BitwiseCopyable, Sendable, CaseIterable {
        case read = 0  // VIRTIO_BLK_T_IN
        case write = 1  // VIRTIO_BLK_T_OUT
        case flush = 4  // VIRTIO_BLK_T_FLUSH
        case getID = 8  // VIRTIO_BLK_T_GET_ID
        case discard = 11  // VIRTIO_BLK_T_DISCARD
        case writeZeroes = 13  // VIRTIO_BLK_T_WRITE_ZEROES
    }

    /// nil: a type that we do not know.
    package var kind: Kind?
    package var firstSector: UInt64

    package init(kind: Kind?, firstSector: UInt64) {
        self.kind = kind
        self.firstSector = firstSector
    }

    /// From the two words of the header as they are in memory.
    package init(decoding first: UInt64, _ second: UInt64) {
        kind = Kind(rawValue: UInt32(truncatingIfNeeded: UInt64(littleEndian: first)))
        firstSector = UInt64(littleEndian: second)
    }
}

/// One range of a discard or write-zeroes request, 16 bytes: sector u64, sectors u32, flags u32.
package struct BlockRange: BitwiseCopyable, Equatable, Sendable {
    package static let byteCount = 16
    static let unmapFlag: UInt32 = 1

    package var firstSector: UInt64
    package var sectorCount: UInt32
    package var flags: UInt32

    package init(decoding first: UInt64, _ second: UInt64) {
        firstSector = UInt64(littleEndian: first)
        let rest = UInt64(littleEndian: second)
        sectorCount = UInt32(truncatingIfNeeded: rest)
        flags = UInt32(truncatingIfNeeded: rest >> 32)
    }

    /// What the range deserves before the engine sees it. Unknown flags, and unmap on a discard,
    /// are "unsupported" (5.2.6.2); the rest is a matter of length.
    package func check(isDiscard: Bool, capacitySectors: UInt64) -> VirtioBlockStatus {
        let allowedFlags = isDiscard ? 0 : Self.unmapFlag
        guard flags & ~allowedFlags == 0 else { return .unsupported }
        guard sectorCount <= VhostLimits.rangeSectorsMax,
            firstSector <= capacitySectors,
            UInt64(sectorCount) <= capacitySectors - firstSector
        else { return .ioError }
        return .ok
    }
}
