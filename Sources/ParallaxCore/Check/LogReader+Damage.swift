// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Reading a log that is not whole.
extension LogReader {
    /// The chunk at the present position if its header is the expected one and its records make
    /// sense, whatever its payload is. Only to be believed of a chunk that is known to have been
    /// durable.
    mutating func nextDespitePayload(medium: some StoreMedium) throws(StoreError) -> ChunkHeader? {
        guard let header = try header(at: block, medium: medium), header.lsn == lsn,
            header.generation >= generation,
            try fill(block, count: 1 + header.payloadBlocks, medium: medium)
        else { return nil }
        var left = header.payloadBlocks
        var records = ChunkRecordReader(header: headerBlock, recordBytes: header.recordBytes)
        while let record = records.next() { left -= record.payloadBlocks }
        return records.isMalformed || left != 0 ? nil : header
    }

    /// Calls `body` with the records of every chunk in the rest of this extent that is later than
    /// the one that is missing.
    mutating func forEachLaterChunk(
        medium: some StoreMedium, _ body: (ChunkRecord, LogSequenceNumber) -> Void
    ) {
        for position in block..<superblock.extentBlocks {
            guard let found = try? header(at: position, medium: medium), found.lsn > lsn,
                found.generation >= generation
            else { continue }
            var records = ChunkRecordReader(
                header: UnsafeRawPointer(place(position)), recordBytes: found.recordBytes)
            while let record = records.next() { body(record, found.lsn) }
        }
    }

    /// The same for all of another extent. The position stays where it is.
    mutating func forEachLaterChunk(
        in other: ExtentNumber, slot otherSlot: ExtentSlot, medium: some StoreMedium,
        _ body: (ChunkRecord, LogSequenceNumber) -> Void
    ) {
        let position = (extent, slot, block)
        enter(other, slot: otherSlot)
        forEachLaterChunk(medium: medium, body)
        enter(position.0, slot: position.1)
        block = position.2
    }
}
