// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Goes through the payload of a chunk, block by block, beside what the chunk's header says of it.
///
/// SAFETY: `records` points into the header's copy, which the owner keeps while it is in the chunk.
struct ChunkCursor {
    /// Payload blocks of the present chunk that are still to come; 0: in no chunk.
    private(set) var payloadLeft = 0
    /// Which block of its record the next one is.
    private(set) var indexInRecord = 0
    private var records: ChunkRecordReader?
    private var record: ChunkRecord?

    /// Enters the chunk that `content`, the block at `place`, is the header of; it is copied to
    /// `header`. False: it is none, and this is in no chunk.
    mutating func enter(
        _ content: UnsafeRawPointer, at place: BlockAddress,
        header: UnsafeMutableRawPointer, superblock: borrowing Superblock, stream: Int
    ) -> Bool {
        leave()
        guard content.load(as: UInt64.self) == ChunkHeader.magic else { return false }
        Memory.copy(to: header, from: content, count: blockBytes)
        guard
            let chunk = ChunkHeader.decode(from: header, uuid: superblock.uuid, stream: stream),
            chunk.extent == place.extent, chunk.block == place.block,
            place.block + 1 + chunk.payloadBlocks <= superblock.extentBlocks
        else { return false }
        payloadLeft = chunk.payloadBlocks
        records = ChunkRecordReader(header: header, recordBytes: chunk.recordBytes)
        return true
    }

    mutating func leave() { self = ChunkCursor() }

    /// What the chunk says of its next payload block; nil: nothing, it is malformed.
    mutating func recordOfNextBlock() -> ChunkRecord? {
        while true {
            if let record, indexInRecord < record.payloadBlocks { return record }
            guard let next = records?.next() else { return nil }
            record = next
            indexInRecord = 0
        }
    }

    /// Goes on behind the next payload block.
    mutating func advance() {
        payloadLeft -= 1
        indexInRecord += 1
    }
}
