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
    /// Chunks of one extent, one behind the other.
    struct Run {
        var slot: ExtentSlot
        var chunks: [(lsn: LogSequenceNumber, block: Int)]
        var end: Int
    }

    private(set) var runs: [Run] = []

    mutating func add(_ header: ChunkHeader, in slot: ExtentSlot) {
        prove(header.durableLSN)
        if runs.last?.slot != slot {
            runs.append(Run(slot: slot, chunks: [], end: header.block))
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
}

extension Engine {
    /// LIMIT: blocks that are written at a time.
    private static let renewedBlocks = 256

    func renew(_ tail: UnprovenTail, medium: some StoreMedium) throws(StoreError) {
        guard inspection == nil else { return }
        let buffer = BlockBuffer(blocks: Self.renewedBlocks)
        for run in tail.runs {
            var block = run.chunks.first?.block ?? run.end
            while block < run.end {
                let count = min(Self.renewedBlocks, run.end - block)
                let bytes = UnsafeMutableRawBufferPointer(
                    start: buffer.base, count: count * blockBytes)
                let offset = superblock.byteOffset(slot: run.slot, block: block)
                do throws(MediumError) {
                    try medium.read(at: offset, into: bytes)
                    try medium.write(at: offset, from: UnsafeRawBufferPointer(bytes))
                } catch { throw StoreError(error) }
                block += count
            }
        }
    }
}
