// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

@testable import ParallaxCore

/// Blocks of a store. Checksums are put right first: what comes behind them must stand by itself, as
/// a valid checksum over nonsense means no more than that another program wrote it.
enum FormatBlocks {
    private static let uuid = StoreUUID(high: 0x1122_3344_5566_7788, low: 0x99aa_bbcc_ddee_ff00)
    private static let superblock = Superblock(
        uuid: uuid, storeBytes: 1 << 30, extentBytes: 1 << 20, slotCount: 1000, streamCount: 2,
        generation: 5, createdAtNanoseconds: 77)

    static func run(_ start: Input) {
        var input = start
        // SAFETY: one block, freed below; all decoders are given its size.
        let block = UnsafeMutableRawPointer.allocate(byteCount: blockBytes, alignment: blockBytes)
        defer { block.deallocate() }
        memset(block, 0, blockBytes)
        switch input.below(5) {
        case 0: superblock(block, &input)
        case 1: root(block, &input)
        case 2: chunk(block, &input)
        case 3: tables(block, &input)
        default: node(block, &input)
        }
    }

    private static func fill(_ block: UnsafeMutableRawPointer, at offset: Int, _ input: inout Input)
    {
        let bytes = input.take(blockBytes - offset)
        (block + offset).copyMemory(from: bytes, byteCount: bytes.count)
    }

    private static func seal(_ block: UnsafeMutableRawPointer) {
        let body = UnsafeRawBufferPointer(start: block, count: blockBytes - 4)
        block.storeBytes(
            of: Checksum.crc32c(body).littleEndian, toByteOffset: blockBytes - 4, as: UInt32.self)
    }

    private static func superblock(_ block: UnsafeMutableRawPointer, _ input: inout Input) {
        let keep = input.below(100)
        superblock.encode(to: block)
        fill(block, at: keep, &input)
        seal(block)
        guard let decoded = try? Superblock.decode(from: block) else { return }
        precondition(decoded.slotCount > 0 && decoded.streamCount > 0, "an impossible store")
        // What was decoded must be encoded to the same.
        decoded.encode(to: block)
        precondition((try? Superblock.decode(from: block)) == decoded, "it is not the same again")
    }

    private static func root(_ block: UnsafeMutableRawPointer, _ input: inout Input) {
        for value in [CheckpointRoot.magic, uuid.high, uuid.low].enumerated() {
            block.storeBytes(
                of: value.element.littleEndian, toByteOffset: 8 * value.offset, as: UInt64.self)
        }
        fill(block, at: 24, &input)
        seal(block)
        let stream = Int(UInt32(littleEndian: block.load(fromByteOffset: 24, as: UInt32.self)))
        _ = CheckpointRoot.decode(from: block, uuid: uuid, stream: stream)
    }

    private static func chunk(_ block: UnsafeMutableRawPointer, _ input: inout Input) {
        let records = input.take(3000)
        let header = ChunkHeader(
            uuid: uuid, stream: 1, payloadBlocks: input.below(257),
            lsn: LogSequenceNumber(input.word() % Limits.logSequenceNumbers), generation: 1,
            extent: ExtentNumber(3),
            block: input.below(256), recordBytes: min(records.count, ChunkHeader.recordCapacity),
            durableLSN: LogSequenceNumber(0))
        (block + ChunkHeader.recordsOffset).copyMemory(from: records, byteCount: header.recordBytes)
        header.encode(to: block)
        guard let decoded = ChunkHeader.decode(from: block, uuid: uuid, stream: 1) else {
            preconditionFailure("a header of our own is refused")
        }
        var reader = ChunkRecordReader(header: block, recordBytes: decoded.recordBytes)
        var count = 0
        while let record = reader.next() {
            precondition(record.payloadBlocks >= 0, "fewer than no blocks")
            if case .vdi(let change) = record { applyLengths(of: change) }
            count += 1
            precondition(count <= blockBytes, "more records than bytes")
        }
    }

    /// The longest of what changes may put together is still a record that fits on a page.
    private static func applyLengths(of change: CatalogRecord) {
        var record = VDIRecord(
            identifier: VDIIdentifier(1), name: String(repeating: "n", count: 255),
            sizeBytes: 1 << 20, createdAtNanoseconds: 0)
        switch change {
        case .create(let other): record = other
        case .rename(_, let name): record.name = name
        case .setAttributes(_, let attributes): record.attributes = attributes
        default: return
        }
        precondition(record.name.utf8.count <= 255, "a name that no record has room for")
        precondition(record.encodedBytes <= RecordPages.capacity, "larger than a page")
    }

    private static func tables(_ block: UnsafeMutableRawPointer, _ input: inout Input) {
        let bytes = input.take(blockBytes)
        block.copyMemory(from: bytes, byteCount: bytes.count)
        _ = CheckpointTables.decode(block, count: bytes.count, superblock: superblock)
    }

    /// References of a radix node: 256 entries of 16 bytes.
    private static func node(_ block: UnsafeMutableRawPointer, _ input: inout Input) {
        fill(block, at: 0, &input)
        var reader = ByteReader(block, count: blockBytes)
        var count = 0
        while reader.takeReference() != nil { count += 1 }
        precondition(count <= radixFanout, "more references than fit")
    }
}
