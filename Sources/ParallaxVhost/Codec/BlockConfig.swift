// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The configuration space of a virtio-blk device (virtio 1.2, 5.2.4), little-endian.
///
/// ```
///    0  u64 capacity (sectors)            34  u16 num_queues
///    8  u32 size_max                      36  u32 max_discard_sectors
///   12  u32 seg_max                       40  u32 max_discard_seg
///   16  geometry, not offered             44  u32 discard_sector_alignment
///   20  u32 blk_size                      48  u32 max_write_zeroes_sectors
///   24  u8 physical_block_exp             52  u32 max_write_zeroes_seg
///   25  u8 alignment_offset               56  u8 write_zeroes_may_unmap
///   26  u16 min_io_size (logical blocks)  57  padding to 60
///   28  u32 opt_io_size (logical blocks)
///   32  u8 writeback, 33 unused
/// ```
package struct BlockConfig: BitwiseCopyable, Sendable {
    package static let byteCount = 60
    /// The one byte that the guest may write.
    package static let writebackOffset: UInt32 = 32

    private var bytes: InlineArray<60, UInt8>

    package init(sectors: UInt64, isWriteback: Bool, readOnly: Bool) {
        bytes = InlineArray(repeating: 0)
        put(sectors, at: 0)
        put(VhostLimits.segmentBytesMax, at: 8)
        put(VhostLimits.segmentCountMax, at: 12)
        put(UInt32(512), at: 20)
        put(UInt8(3), at: 24)  // physical blocks of 512 << 3 bytes: the store's block
        put(UInt16(8), at: 26)  // 4 KiB
        put(UInt32(2048), at: 28)  // 1 MiB
        put(UInt8(isWriteback ? 1 : 0), at: 32)
        put(UInt16(VhostLimits.queueCountMax), at: 34)
        guard !readOnly else { return }
        put(VhostLimits.rangeSectorsMax, at: 36)
        put(UInt32(VhostLimits.rangesMax), at: 40)
        put(UInt32(8), at: 44)
        put(VhostLimits.rangeSectorsMax, at: 48)
        put(UInt32(VhostLimits.rangesMax), at: 52)
        put(UInt8(1), at: 56)
    }

    /// Bytes past the end read as zero, as front ends ask for as much as they know of.
    package func byte(at offset: UInt64) -> UInt8 {
        offset < UInt64(Self.byteCount) ? bytes[Int(offset)] : 0
    }

    private mutating func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        for index in 0..<(Value.bitWidth / 8) {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
        }
    }
}
