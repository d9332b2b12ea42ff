// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The durable end of a checkpoint: where its tables are, and from where the log is replayed.
///
/// Each stream has two, written in turn, each only after all that it points to is durable; the
/// valid one with the higher sequence counts. Each is in two places, for nothing else would tell of a
/// newest root that has rotted: what the older one needs has been given away.
///
/// ```
///  offset size  field
///       0    8  magic "PLXCHKPT"
///       8   16  store UUID
///      24    4  stream
///      28    4  levels of the tables' tree (0: the root is the only block)
///      32    8  sequence of this checkpoint
///      40    8  generation that wrote it
///      48    8  bytes of the tables
///      56   16  reference of the root of the tables' tree (hole: empty store)
///      72    8  LSN of the first chunk to replay
///      80    8  extent of that chunk
///      88    4  block of that chunk in its extent
///      92    4  node frames that a replay may dirty
///      96    8  next extent number
///     104    8  next VDI number
///     112    8  next snapshot sequence
///     120 3972  zeros
///    4092    4  CRC32C of bytes 0 to 4091
/// ```
package struct CheckpointRoot: Equatable, Sendable {
    static let sequenceOffset = 32
    static let magic: UInt64 = 0x5450_4B48_4358_4C50  // "PLXCHKPT"

    package var uuid: StoreUUID
    package var stream: Int
    package var tableLevels = 0
    package var sequence: UInt64
    package var generation: UInt64
    package var tableBytes: Int = 0
    package var table = BlockReference.hole
    package var replayLSN: LogSequenceNumber
    package var replayExtent: ExtentNumber
    package var replayBlock: Int
    package var nodeFrames: Int
    package var nextExtent: ExtentNumber
    package var nextVDI: UInt64
    package var nextSnapshot: UInt64
    /// Rows of the table of versions that were ever used; 0: not known.
    package var versionRows = 0

    /// Where in the store it belongs: two places, either of which is enough.
    package var byteOffsets: [UInt64] {
        Superblock.checkpointRootOffsets(stream: stream, copy: Int(sequence & 1))
    }

    /// Node frames that a replay needs. A checkpoint must have found room for all nodes that were
    /// dirty, and a quarter of the frames never is: more than this it is not, whatever a damaged root
    /// says.
    func replayFrames(_ superblock: Superblock) -> Int {
        min(nodeFrames, Self.mostFrames(superblock))
    }

    static func mostFrames(_ superblock: Superblock) -> Int {
        2 * Int(superblock.slotCount) * superblock.extentBlocks
    }

    package func encode(to block: UnsafeMutableRawPointer) {
        var writer = ByteWriter(block, capacity: blockBytes)
        writer.put(Self.magic)
        writer.put(uuid.high)
        writer.put(uuid.low)
        writer.put(UInt32(stream))
        writer.put(UInt32(tableLevels))
        writer.put(sequence)
        writer.put(generation)
        writer.put(UInt64(tableBytes))
        writer.put(reference: table)
        writer.put(replayLSN.rawValue)
        writer.put(replayExtent.rawValue)
        writer.put(UInt32(replayBlock))
        writer.put(UInt32(nodeFrames))
        writer.put(nextExtent.rawValue)
        writer.put(nextVDI)
        writer.put(nextSnapshot)
        writer.put(UInt32(versionRows))
        writer.pad(to: blockBytes - 4)
        writer.put(Checksum.crc32c(UnsafeRawBufferPointer(start: block, count: blockBytes - 4)))
    }

    /// nil when the block is no valid root of this stream of this store.
    package static func decode(from block: UnsafeRawPointer, uuid: StoreUUID, stream: Int)
        -> CheckpointRoot?
    {
        var trailer = ByteReader(block, count: blockBytes, at: blockBytes - 4)
        let body = UnsafeRawBufferPointer(start: block, count: blockBytes - 4)
        guard trailer.take(UInt32.self) == Checksum.crc32c(body) else { return nil }
        var reader = ByteReader(block, count: blockBytes)
        guard reader.take(UInt64.self) == magic, reader.take(UInt64.self) == uuid.high,
            reader.take(UInt64.self) == uuid.low, reader.take(UInt32.self) == UInt32(stream),
            let levels = reader.take(UInt32.self), levels <= 3,
            let sequence = reader.take(UInt64.self), let generation = reader.take(UInt64.self),
            let tableBytes = reader.take(UInt64.self), tableBytes <= 1 << 40,
            let table = reader.takeReference(), let lsn = reader.take(UInt64.self), lsn > 0,
            lsn < Limits.logSequenceNumbers,
            let extent = reader.take(UInt64.self), let replayBlock = reader.take(UInt32.self),
            let frames = reader.take(UInt32.self), let nextExtent = reader.take(UInt64.self),
            let nextVDI = reader.take(UInt64.self), let nextSnapshot = reader.take(UInt64.self),
            let versionRows = reader.take(UInt32.self)
        else { return nil }
        // What counts on from here must have room to do so.
        guard sequence < Limits.generations, generation < Limits.generations,
            !ExtentNumber(extent).isCold, !ExtentNumber(nextExtent).isCold, nextVDI < 1 << 48,
            nextSnapshot <= SnapshotIdentifier.lastSequence + 1,
            versionRows <= Limits.snapshotsPerStream
        else { return nil }
        return CheckpointRoot(
            uuid: uuid, stream: stream, tableLevels: Int(levels), sequence: sequence,
            generation: generation, tableBytes: Int(tableBytes), table: table,
            replayLSN: LogSequenceNumber(lsn), replayExtent: ExtentNumber(extent),
            replayBlock: Int(replayBlock), nodeFrames: Int(frames),
            nextExtent: ExtentNumber(nextExtent), nextVDI: nextVDI, nextSnapshot: nextSnapshot,
            versionRows: Int(versionRows))
    }
}
