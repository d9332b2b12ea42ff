// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The first block of a chunk: what its payload blocks are and how to know that they are whole.
///
/// ```
///  offset size  field
///       0    8  magic "PLXCHUNK"
///       8   16  store UUID
///      24    4  stream
///      28    4  payload blocks that follow
///      32    8  LSN
///      40    8  generation of the store that wrote it
///      48    8  extent number
///      56    4  block of this header in its extent
///      60    4  bytes of records
///      64    8  every chunk up to this LSN was durable when this one was written
///      72   20  zeros
///      92    4  CRC32C of the whole header block with this field zero
///      96    n  records
/// ```
///
/// Why a generation: chunks are written several at a time, so after a crash a later one may be
/// on the device while an earlier one is not. The log ends at the gap, and the next writer fills
/// it. Without the generation a replay could then run on into the stale chunk behind it.
struct ChunkHeader: Equatable {
    static let magic: UInt64 = 0x4B4E_5548_4358_4C50  // "PLXCHUNK"
    static let recordsOffset = 96
    static let recordCapacity = blockBytes - recordsOffset
    private static let checksumOffset = 92

    var uuid: StoreUUID
    var stream: Int
    var payloadBlocks: Int
    var lsn: LogSequenceNumber
    var generation: UInt64
    var extent: ExtentNumber
    var block: Int
    var recordBytes: Int
    var durableLSN: LogSequenceNumber

    /// Writes the fields and the checksum; the records are already in `block`, zeros behind them.
    func encode(to header: UnsafeMutableRawPointer) {
        var writer = ByteWriter(header, capacity: Self.recordsOffset)
        writer.put(Self.magic)
        writer.put(uuid.high)
        writer.put(uuid.low)
        writer.put(UInt32(stream))
        writer.put(UInt32(payloadBlocks))
        writer.put(lsn.rawValue)
        writer.put(generation)
        writer.put(extent.rawValue)
        writer.put(UInt32(block))
        writer.put(UInt32(recordBytes))
        writer.put(durableLSN.rawValue)
        writer.pad(to: Self.recordsOffset)
        let checksum = Checksum.ofBlock(header)
        header.storeBytes(
            of: checksum.littleEndian, toByteOffset: Self.checksumOffset, as: UInt32.self)
    }

    /// Decodes a header that is to be a chunk of this store and stream; nil when it is not.
    ///
    /// `block` is private memory: the checksum field in it is zeroed.
    static func decode(from block: UnsafeMutableRawPointer, uuid: StoreUUID, stream: Int)
        -> ChunkHeader?
    {
        var reader = ByteReader(block, count: blockBytes)
        guard reader.take(UInt64.self) == magic, reader.take(UInt64.self) == uuid.high,
            reader.take(UInt64.self) == uuid.low, reader.take(UInt32.self) == UInt32(stream),
            let payloadBlocks = reader.take(UInt32.self), let lsn = reader.take(UInt64.self),
            lsn < Limits.logSequenceNumbers,
            let generation = reader.take(UInt64.self), let extent = reader.take(UInt64.self),
            let position = reader.take(UInt32.self), let recordBytes = reader.take(UInt32.self),
            let durable = reader.take(UInt64.self),
            payloadBlocks <= Limits.chunkPayloadBlocks, recordBytes <= recordCapacity
        else { return nil }
        let stored = block.loadUnaligned(fromByteOffset: checksumOffset, as: UInt32.self)
        block.storeBytes(of: 0, toByteOffset: checksumOffset, as: UInt32.self)
        guard UInt32(littleEndian: stored) == Checksum.ofBlock(block) else { return nil }
        return ChunkHeader(
            uuid: uuid, stream: stream, payloadBlocks: Int(payloadBlocks),
            lsn: LogSequenceNumber(lsn), generation: generation, extent: ExtentNumber(extent),
            block: Int(position), recordBytes: Int(recordBytes),
            durableLSN: LogSequenceNumber(durable))
    }
}
