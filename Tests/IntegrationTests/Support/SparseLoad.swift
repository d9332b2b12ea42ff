// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxGuest

/// Single blocks, far from each other, all over a disk.
struct SparseLoad {
    private let blocks: [UInt64]
    private var generation: UInt32 = 0
    private var random: RandomSource

    init(seed: UInt64, blockCount: UInt64, count: Int) {
        var source = RandomSource(seed: seed)
        // One in each of `count` equal stripes, so that no two are the same.
        let stripe = blockCount / UInt64(count)
        blocks = (0..<UInt64(count)).map { $0 * stripe + source.next(below: stripe) }
        random = source
    }

    mutating func write(_ disk: inout BlockDriver, generation: UInt32) throws {
        self.generation = generation
        try pass(&disk, .write)
        try disk.flush()
    }

    mutating func verify(_ disk: inout BlockDriver) throws { try pass(&disk, .read) }

    /// Goes over all blocks in a random order, with all of queue 0's slots in use.
    private mutating func pass(_ disk: inout BlockDriver, _ operation: BlockOperation) throws {
        var order = Array(blocks.indices)
        for last in stride(from: order.count - 1, to: 0, by: -1) {
            order.swapAt(last, Int(random.next(below: UInt64(last + 1))))
        }
        var next = 0
        var done = 0
        while done < order.count {
            while next < order.count, let slot = disk.reserve(queue: 0) {
                submit(&disk, slot: slot, operation, index: order[next])
                next += 1
            }
            disk.publish(queue: 0)
            _ = try disk.wait(timeoutMilliseconds: 1000)
            while let completion = try disk.reap(queue: 0) {
                guard completion.status == BlockStatusByte.ok else {
                    throw TestFailure(
                        "block \(blocks[Int(completion.tag)]): "
                            + BlockStatusByte.name(completion.status))
                }
                if operation == .read {
                    try check(&disk, slot: completion.slot, index: Int(completion.tag))
                }
                done += 1
            }
        }
    }

    private func submit(
        _ disk: inout BlockDriver, slot: Int, _ operation: BlockOperation, index: Int
    ) {
        let sector = blocks[index] * 8
        if operation == .write, let base = disk.buffer(queue: 0, slot: slot).baseAddress {
            for part in 0..<8 {
                SectorStamp.write(
                    base + part * SectorStamp.bytes, sector: Int(sector) + part,
                    generation: generation)
            }
        }
        disk.submit(
            queue: 0, slot: slot, operation, firstSector: sector, byteCount: 4096,
            tag: UInt64(index))
    }

    private func check(_ disk: inout BlockDriver, slot: Int, index: Int) throws {
        guard let base = disk.buffer(queue: 0, slot: slot).baseAddress else { return }
        for part in 0..<8 {
            let found = SectorStamp.read(
                base + part * SectorStamp.bytes, sector: Int(blocks[index]) * 8 + part)
            guard found == generation else {
                throw TestFailure(
                    "block \(blocks[index]), sector \(part): generation \(generation) belongs "
                        + "there, and it holds \(found.map(String.init) ?? "something else")")
            }
        }
    }
}
