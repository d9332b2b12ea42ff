// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The end of a log that is replayed: the chunks of which no later one says that they were durable.
///
/// When a sync has failed, a host may go on showing what it will never write. A process that ends then
/// leaves chunks that the next one finds whole, and that no sync of its own makes durable: so it writes
/// them once more. What is there is what is written, so that a crash in the middle changes nothing.
///
/// ```
///   | n, durable to n-9 | n+1, durable to n-2 | n+2, durable to n-2 |
///                       unproven: n-1, n, n+1, n+2
/// ```
struct UnprovenTail {
    /// Chunks one behind the other in one extent.
    private struct Run {
        var extent: ExtentNumber
        var slot: ExtentSlot
        var chunks: [(lsn: LogSequenceNumber, block: Int)]
        var end: Int
    }

    private let superblock: Superblock
    private let root: CheckpointRoot
    private var runs: [Run] = []

    init(superblock: Superblock, root: CheckpointRoot) {
        self.superblock = superblock
        self.root = root
    }

    mutating func add(_ header: ChunkHeader, in slot: ExtentSlot) {
        prove(header.durableLSN)
        let follows =
            runs.last.map {
                $0.slot == slot && $0.end == header.block && $0.chunks.last?.lsn.next == header.lsn
            } ?? false
        if !follows {
            runs.append(Run(extent: header.extent, slot: slot, chunks: [], end: header.block))
        }
        runs[runs.count - 1].chunks.append((header.lsn, header.block))
        runs[runs.count - 1].end = header.block + 1 + header.payloadBlocks
    }

    private mutating func prove(_ durable: LogSequenceNumber) {
        while let run = runs.first {
            guard let first = run.chunks.firstIndex(where: { $0.lsn > durable }) else {
                runs.removeFirst()
                continue
            }
            if first > 0 { runs[0].chunks.removeFirst(first) }
            return
        }
    }

    /// Not yet durable when it returns. `passesOverErrors`: as the log was read.
    func renew(
        on medium: some StoreMedium, passesOverErrors: Bool = false
    ) throws(StoreError) {
        for run in runs { try renew(run, passesOverErrors, on: medium) }
    }

    /// The same for the root that the replay began with, which a host may show and never write, too.
    func renewRoot(on medium: some StoreMedium) throws(StoreError) {
        let block = BlockBuffer()
        root.encode(to: block.base)
        do throws(MediumError) {
            for offset in root.byteOffsets {
                try medium.write(at: offset, from: UnsafeRawBufferPointer(block.bytes))
            }
        } catch { throw StoreError(error) }
    }

    /// Only what is found whole again is written: a bit may get lost on its way in, and must not get out.
    private func renew(
        _ run: Run, _ passesOverErrors: Bool, on medium: some StoreMedium
    ) throws(StoreError) {
        guard let first = run.chunks.first else { return }
        var reader = LogReader(superblock: superblock, root: root, slot: run.slot)
        reader.enter(run.extent, slot: run.slot)
        reader.block = first.block
        reader.lsn = first.lsn
        reader.generation = 0
        reader.passesOverErrors = passesOverErrors
        var start = first.block
        while reader.block < run.end {
            if !reader.holdsNextChunk { try write(&start, from: reader, run, on: medium) }
            var header = try reader.next(medium: medium)
            if header == nil {
                try write(&start, from: reader, run, on: medium)
                reader.readAgain()
                header = try reader.next(medium: medium)
            }
            guard let header else {
                throw Engine.damaged(
                    "chunk \(reader.lsn.rawValue) of the log of shard \(root.stream) could be read "
                        + "once, and not again")
            }
            reader.advance(header)
        }
        try write(&start, from: reader, run, on: medium)
    }

    /// What the reader has gone through since `start`.
    private func write(
        _ start: inout Int, from reader: borrowing LogReader, _ run: Run,
        on medium: some StoreMedium
    ) throws(StoreError) {
        guard start < reader.block else { return }
        let bytes = UnsafeRawBufferPointer(
            start: reader.place(start), count: (reader.block - start) * blockBytes)
        do throws(MediumError) {
            try medium.write(at: superblock.byteOffset(slot: run.slot, block: start), from: bytes)
        } catch { throw StoreError(error) }
        start = reader.block
    }
}
