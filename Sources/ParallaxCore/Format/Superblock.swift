// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The root of a store: what it is, how it is cut up, and how often it has been opened.
///
/// Two copies, in the first and in the last block of the first MiB. All integers little-endian.
///
/// ```
///  offset size  field
///       0    8  magic "PARALLAX"
///       8    4  format version
///      12    4  block size in bytes (4096)
///      16    8  incompatible features: an unknown bit forbids opening
///      24    8  read-only compatible features: an unknown bit forbids writing
///      32    8  compatible features: unknown bits are ignored; bit 0: preallocated
///      40   16  store UUID (high half, low half)
///      56    8  store size in bytes
///      64    8  extent size in bytes
///      72    8  offset of the first extent in bytes
///      80    4  extents (slots)
///      84    4  streams
///      88    8  generation: 1 at format, one more at each opening for writing
///      96    8  created at, ns since 1970
///     104 3988  zeros
///    4092    4  CRC32C of bytes 0 to 4091
/// ```
package struct Superblock: Equatable, Sendable {
    package static let magic: UInt64 = 0x5841_4C4C_4152_4150  // "PARALLAX"
    package static let currentVersion: UInt32 = 3
    package static let supportedIncompatibleFeatures: UInt64 = 0
    package static let supportedReadOnlyFeatures: UInt64 = 0
    /// Compatible feature: the space of the store's file was allocated once and is to stay so.
    package static let preallocatedFeature: UInt64 = 1

    /// Offsets of the two copies in bytes.
    package static let copyOffsets: [UInt64] = [0, (1 << 20) - UInt64(blockBytes)]

    /// Extents begin here: after the superblocks and the checkpoint roots.
    package static let firstExtentOffset: UInt64 = 1 << 20

    package var version = currentVersion
    package var incompatibleFeatures: UInt64 = 0
    package var readOnlyFeatures: UInt64 = 0
    package var compatibleFeatures: UInt64 = 0
    package var uuid: StoreUUID
    package var storeBytes: UInt64
    package var extentBytes: UInt64
    package var slotCount: UInt32
    package var streamCount: UInt32
    package var generation: UInt64
    package var createdAtNanoseconds: UInt64

    package var isPreallocated: Bool { compatibleFeatures & Self.preallocatedFeature != 0 }

    package var extentBlocks: Int { Int(extentBytes) / blockBytes }

    /// Offset in bytes of a block in a slot.
    package func byteOffset(slot: ExtentSlot, block: Int) -> UInt64 {
        Self.firstExtentOffset + UInt64(slot.rawValue) * extentBytes
            + UInt64(block) * UInt64(blockBytes)
    }

    /// Offsets in bytes of one of the two checkpoint roots of a stream: of the root, and of its twin,
    /// which lies behind the roots of all streams that there may be.
    package static func checkpointRootOffsets(stream: Int, copy: Int) -> [UInt64] {
        let index = stream * 2 + copy
        return [index, 2 * Limits.streams.upperBound + index].map {
            UInt64(64 << 10) + UInt64($0) * UInt64(blockBytes)
        }
    }
}

extension Superblock {
    /// Why one copy is not usable.
    package enum Fault: Error, Equatable, Sendable {
        case notAStore
        case badChecksum
        case otherVersion(UInt32)
        case unknownFeatures(UInt64)
        case inconsistent
    }

    package func encode(to block: UnsafeMutableRawPointer) {
        var writer = ByteWriter(block, capacity: blockBytes)
        writer.put(Self.magic)
        writer.put(version)
        writer.put(UInt32(blockBytes))
        writer.put(incompatibleFeatures)
        writer.put(readOnlyFeatures)
        writer.put(compatibleFeatures)
        writer.put(uuid.high)
        writer.put(uuid.low)
        writer.put(storeBytes)
        writer.put(extentBytes)
        writer.put(Self.firstExtentOffset)
        writer.put(slotCount)
        writer.put(streamCount)
        writer.put(generation)
        writer.put(createdAtNanoseconds)
        writer.pad(to: blockBytes - 4)
        writer.put(Checksum.crc32c(UnsafeRawBufferPointer(start: block, count: blockBytes - 4)))
    }

    /// Decodes and checks one copy. The magic is looked at first, the version before the
    /// checksum's meaning, so that a newer format is called newer and not damaged.
    package static func decode(from block: UnsafeRawPointer) throws(Fault) -> Superblock {
        var reader = ByteReader(block, count: blockBytes)
        guard reader.take(UInt64.self) == magic else { throw .notAStore }
        let body = UnsafeRawBufferPointer(start: block, count: blockBytes - 4)
        var trailer = ByteReader(block, count: blockBytes, at: blockBytes - 4)
        guard trailer.take(UInt32.self) == Checksum.crc32c(body) else { throw .badChecksum }
        guard let version = reader.take(UInt32.self), version == currentVersion else {
            throw .otherVersion(readVersion(block))
        }
        guard let blockSize = reader.take(UInt32.self),
            let incompatible = reader.take(UInt64.self),
            let readOnly = reader.take(UInt64.self), let compatible = reader.take(UInt64.self),
            let high = reader.take(UInt64.self), let low = reader.take(UInt64.self),
            let storeBytes = reader.take(UInt64.self), let extentBytes = reader.take(UInt64.self),
            let firstExtent = reader.take(UInt64.self), let slots = reader.take(UInt32.self),
            let streams = reader.take(UInt32.self), let generation = reader.take(UInt64.self),
            let createdAt = reader.take(UInt64.self)
        else { throw .inconsistent }
        let unknown =
            (incompatible & ~supportedIncompatibleFeatures)
            | (readOnly & ~supportedReadOnlyFeatures)
        guard unknown == 0 else { throw .unknownFeatures(unknown) }
        let superblock = Superblock(
            version: version, incompatibleFeatures: incompatible, readOnlyFeatures: readOnly,
            compatibleFeatures: compatible, uuid: StoreUUID(high: high, low: low),
            storeBytes: storeBytes, extentBytes: extentBytes, slotCount: slots,
            streamCount: streams, generation: generation, createdAtNanoseconds: createdAt)
        guard blockSize == blockBytes, firstExtent == firstExtentOffset,
            superblock.isConsistent
        else { throw .inconsistent }
        return superblock
    }

    private static func readVersion(_ block: UnsafeRawPointer) -> UInt32 {
        var reader = ByteReader(block, count: blockBytes, at: 8)
        return reader.take(UInt32.self) ?? 0
    }

    /// Whether the numbers fit each other; a valid checksum alone does not promise that.
    private var isConsistent: Bool {
        guard Limits.extentBytes.contains(extentBytes), extentBytes.nonzeroBitCount == 1,
            Limits.streams.contains(Int(streamCount)), slotCount > 0, generation > 0,
            generation < Limits.generations
        else { return false }
        let (extents, overflow) = UInt64(slotCount).multipliedReportingOverflow(by: extentBytes)
        return !overflow && storeBytes >= Self.firstExtentOffset
            && extents <= storeBytes - Self.firstExtentOffset
    }
}
