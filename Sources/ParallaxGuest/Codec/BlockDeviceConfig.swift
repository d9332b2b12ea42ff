// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The virtio-blk configuration space (virtio 1.2, 5.2.4), little-endian:
///
///       0 capacity u64 (sectors)        36 max_discard_sectors u32
///       8 size_max u32                  40 max_discard_seg u32
///      12 seg_max u32                   44 discard_sector_alignment u32
///      16 cylinders u16, heads u8,      48 max_write_zeroes_sectors u32
///         sectors u8                    52 max_write_zeroes_seg u32
///      20 blk_size u32                  56 write_zeroes_may_unmap u8
///      24 physical_block_exp u8,        57 unused, 3 bytes
///         alignment_offset u8,          60 end of what we ask for
///         min_io_size u16, opt_io_size u32
///      32 writeback u8, unused u8, num_queues u16 (34)
///
/// Fields count only when the feature bit that governs them is negotiated.
package struct BlockDeviceConfig: Equatable, Sendable {
    package static let byteCount = 60

    package var capacitySectors: UInt64
    package var dataSegmentBytesMax: UInt32  // virtio: size_max
    package var dataSegmentCountMax: UInt32  // virtio: seg_max
    package var blockBytes: UInt32
    package var physicalBlockExponent: UInt8
    package var alignmentOffset: UInt8
    package var minimumIOBlocks: UInt16
    package var optimalIOBlocks: UInt32
    package var isWriteback: Bool
    package var queueCount: UInt16
    package var discardSectorsMax: UInt32
    package var discardRangesMax: UInt32  // virtio: max_discard_seg
    package var discardAlignmentSectors: UInt32
    package var writeZeroesSectorsMax: UInt32
    package var writeZeroesRangesMax: UInt32
    package var writeZeroesMayUnmap: Bool

    /// Bytes beyond the end of `bytes` count as 0.
    package init(decoding bytes: [UInt8]) {
        func number<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ type: T.Type) -> T {
            T(littleEndian: bytes.readNumber(at: offset, as: type))
        }
        capacitySectors = number(0, UInt64.self)
        dataSegmentBytesMax = number(8, UInt32.self)
        dataSegmentCountMax = number(12, UInt32.self)
        blockBytes = number(20, UInt32.self)
        physicalBlockExponent = number(24, UInt8.self)
        alignmentOffset = number(25, UInt8.self)
        minimumIOBlocks = number(26, UInt16.self)
        optimalIOBlocks = number(28, UInt32.self)
        isWriteback = number(32, UInt8.self) != 0
        queueCount = number(34, UInt16.self)
        discardSectorsMax = number(36, UInt32.self)
        discardRangesMax = number(40, UInt32.self)
        discardAlignmentSectors = number(44, UInt32.self)
        writeZeroesSectorsMax = number(48, UInt32.self)
        writeZeroesRangesMax = number(52, UInt32.self)
        writeZeroesMayUnmap = number(56, UInt8.self) != 0
    }

    package var capacityBytes: UInt64 { capacitySectors &* 512 }
}
