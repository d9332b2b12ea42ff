// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Reads a stream's log from a position on, chunk by chunk, up to the first that is not whole.
///
/// A chunk is believed when its header says that it is the expected one (store, stream, LSN,
/// place), when its generation is not older than the one before, and when every payload block has
/// its checksum. Anything else is the end of the log, unless a later chunk says that this one was
/// durable: then it is damage.
struct LogReader: ~Copyable {
    private static let windowBlocks = 1024

    let superblock: Superblock
    private let stream: Int
    private let window = BlockBuffer(blocks: Self.windowBlocks)
    private let headerCopy = BlockBuffer()
    /// Where in its extent the window begins, and how many blocks of it are filled.
    private var windowSlot: ExtentSlot?
    private var windowStart = 0
    private var windowCount = 0

    var lsn: LogSequenceNumber
    var extent: ExtentNumber
    var slot: ExtentSlot
    var block: Int
    var generation: UInt64
    /// For a check: what cannot be read is as good as zeros.
    var passesOverErrors = false
    /// Blocks of the window that cannot be read.
    private var unreadable: Set<Int> = []
    /// What was looked at last, and taken for the end, cannot be read.
    private(set) var endsUnreadable = false

    init(superblock: Superblock, root: CheckpointRoot, slot: ExtentSlot) {
        self.superblock = superblock
        stream = root.stream
        lsn = root.replayLSN
        extent = root.replayExtent
        self.slot = slot
        block = root.replayBlock
        generation = root.generation
    }

    /// Moves to the beginning of the extent that follows.
    mutating func enter(_ extent: ExtentNumber, slot: ExtentSlot) {
        self.extent = extent
        self.slot = slot
        block = 0
    }

    /// Whether the next chunk, however large, is in memory: else the window moves on to it.
    var holdsNextChunk: Bool {
        let end = min(superblock.extentBlocks, block + 1 + Limits.chunkPayloadBlocks)
        return windowSlot == slot && block >= windowStart && end <= windowStart + windowCount
    }

    /// What is looked at next comes from the medium once more.
    mutating func readAgain() { windowSlot = nil }

    /// The next chunk, if it is whole at the present position. Its header and payload are in
    /// memory until the next call; the position moves on with `advance`.
    mutating func next(medium: some StoreMedium) throws(StoreError) -> ChunkHeader? {
        guard let header = try header(at: block, medium: medium), header.lsn == lsn,
            header.generation >= generation
        else {
            noteEnd(blocks: 1)
            return nil
        }
        guard try isWhole(header, at: block, medium: medium) else {
            noteEnd(blocks: 1 + header.payloadBlocks)
            return nil
        }
        endsUnreadable = false
        return header
    }

    private mutating func noteEnd(blocks: Int) {
        guard windowSlot == slot else { return }
        endsUnreadable = endsUnreadable || !unreadable.isDisjoint(with: block..<block + blocks)
    }

    mutating func advance(_ header: ChunkHeader) {
        lsn = lsn.next
        block += 1 + header.payloadBlocks
        generation = header.generation
    }

    /// The header block of the chunk that `next` returned.
    var headerBlock: UnsafeRawPointer { UnsafeRawPointer(place(block)) }

    func place(_ block: Int) -> UnsafeMutableRawPointer {
        precondition(
            block >= windowStart && block < windowStart + windowCount,
            "LogReader: outside the window")
        return window.base + (block - windowStart) * blockBytes
    }

    /// A header of this store, stream and place, whatever its LSN and generation.
    mutating func header(at block: Int, medium: some StoreMedium) throws(StoreError)
        -> ChunkHeader?
    {
        guard let header = try anyHeader(at: block, medium: medium),
            isInPlace(header, at: block)
        else { return nil }
        return header
    }

    private func isInPlace(_ header: ChunkHeader, at block: Int) -> Bool {
        header.extent == extent && header.block == block
            && header.generation < superblock.generation
            && block + 1 + header.payloadBlocks <= superblock.extentBlocks
    }

    /// A header of this store and stream, which may have been left by another extent in this slot.
    private mutating func anyHeader(at block: Int, medium: some StoreMedium) throws(StoreError)
        -> ChunkHeader?
    {
        guard block < superblock.extentBlocks, try fill(block, count: 1, medium: medium) else {
            return nil
        }
        Memory.copy(to: headerCopy.base, from: place(block), count: blockBytes)
        return ChunkHeader.decode(from: headerCopy.base, uuid: superblock.uuid, stream: stream)
    }

    /// Makes sure that `count` blocks from `block` of this extent are in the window.
    mutating func fill(_ block: Int, count: Int, medium: some StoreMedium)
        throws(StoreError) -> Bool
    {
        guard block + count <= superblock.extentBlocks else { return false }
        if windowSlot == slot, block >= windowStart, block + count <= windowStart + windowCount {
            return true
        }
        windowStart = block
        windowCount = min(Self.windowBlocks, superblock.extentBlocks - block)
        windowSlot = nil
        unreadable = []
        do throws(MediumError) {
            try readWindow(medium: medium)
        } catch {
            if passesOverErrors {
                refillByBlock(medium: medium)
            } else {
                // A sector that nobody needs must not keep the store closed.
                guard windowCount > count else { throw StoreError(error) }
                windowCount = count
                do throws(MediumError) {
                    try readWindow(medium: medium)
                } catch { throw StoreError(error) }
            }
        }
        windowSlot = slot
        return true
    }

    private func readWindow(medium: some StoreMedium) throws(MediumError) {
        try medium.read(
            at: superblock.byteOffset(slot: slot, block: windowStart),
            into: UnsafeMutableRawBufferPointer(
                start: window.base, count: windowCount * blockBytes))
    }

    private mutating func refillByBlock(medium: some StoreMedium) {
        for index in 0..<windowCount {
            let target = window.base + index * blockBytes
            do throws(MediumError) {
                try medium.read(
                    at: superblock.byteOffset(slot: slot, block: windowStart + index),
                    into: UnsafeMutableRawBufferPointer(start: target, count: blockBytes))
            } catch {
                Memory.zero(target, count: blockBytes)
                unreadable.insert(windowStart + index)
            }
        }
    }

    private mutating func isWhole(
        _ header: ChunkHeader, at block: Int, medium: some StoreMedium
    ) throws(StoreError) -> Bool {
        guard try fill(block, count: 1 + header.payloadBlocks, medium: medium) else { return false }
        let headerBlock = UnsafeRawPointer(place(block))
        var payload = headerBlock + blockBytes
        var left = header.payloadBlocks
        var records = ChunkRecordReader(header: headerBlock, recordBytes: header.recordBytes)
        while let record = records.next() {
            guard record.payloadBlocks <= left else { return false }
            left -= record.payloadBlocks
            for index in 0..<record.payloadBlocks {
                if Checksum.ofBlock(payload) != record.checksum(index, in: headerBlock) {
                    return false
                }
                payload += blockBytes
            }
        }
        return !records.isMalformed && left == 0
    }

    /// Looks through this slot, from the position on, for chunks that are younger than the one which
    /// is missing there, and takes down the extents that they lease. Whether one of them was written
    /// when the missing one was already durable.
    ///
    /// What a chunk says was durable counts whatever extent it is of: where the slot has been used
    /// again meanwhile, a checkpoint had been durable that is not there any more; and what a device
    /// has put into a wrong place may be the very thing that damaged the missing one. So only what is
    /// whole is passed over, in which a guest may have written whatever it likes.
    mutating func isContradictedHere(
        _ leases: inout [ExtentNumber: ExtentSlot], medium: some StoreMedium
    ) -> Bool {
        // As long as there are chunks: any number of them may have been written during one sync.
        let reach = 8 * (Limits.chunkPayloadBlocks + 1)
        var end = min(superblock.extentBlocks, block + reach)
        var position = block
        while position < end {
            // What cannot be read says nothing.
            let header = try? anyHeader(at: position, medium: medium)
            position += 1
            guard let header else { continue }
            if header.durableLSN >= lsn { return true }
            guard isInPlace(header, at: position - 1), header.generation >= generation,
                header.lsn >= lsn
            else { continue }
            takeLeases(&leases, recordBytes: header.recordBytes)
            if (try? isWhole(header, at: position - 1, medium: medium)) == true {
                position += header.payloadBlocks
                end = min(superblock.extentBlocks, position + reach)
            }
        }
        return false
    }

    /// Those of the chunk whose header was looked at last.
    private func takeLeases(_ leases: inout [ExtentNumber: ExtentSlot], recordBytes: Int) {
        var records = ChunkRecordReader(header: headerCopy.base, recordBytes: recordBytes)
        while let record = records.next() {
            guard case .lease(let extent, let slot) = record,
                slot.rawValue < superblock.slotCount
            else { continue }
            leases[extent] = slot
        }
    }
}

extension ChunkRecord {
    /// Checksum of the record's payload block `index`.
    func checksum(_ index: Int, in header: UnsafeRawPointer) -> UInt32 {
        switch self {
        case .data(_, _, _, let offset), .table(_, let offset):
            UInt32(
                littleEndian: header.loadUnaligned(
                    fromByteOffset: offset + 4 * index, as: UInt32.self))
        case .node(_, _, _, let checksum): checksum
        case .moved(_, _, let offset):
            MovedBlock.read(header, offset: offset + index * MovedBlock.bytes).checksum
        case .hole, .lease, .vdi, .moves, .drop: 0
        }
    }
}
