// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("Room in cold extents")
struct CleanerRoomTests {
    /// Victims are chosen by the room there is. If it were less than promised, each of them would keep
    /// some of its blocks, and no slot would come back.
    @Test(
        "what the cleaner counts on fits, whosever the blocks are, and however they are batched",
        arguments: [(1, 192), (4, 192), (30, 192), (30, 300), (200, 600), (1 << 20, 8192)])
    func promise(disks: Int, batchBlocks: Int) throws {
        let store = try SmallStore()
        var random = SeededRandom(seed: UInt64(disks))
        for trial in 0..<60 {
            let cleaner = Cleaner(batchBlocks: batchBlocks)
            store.engines[0].engine.cleaner = cleaner
            let left = store.engines[0].engine.fillColdExtents(of: disks, &random)
            #expect(left == 0, "trial \(trial): \(left) blocks have no place")
        }
    }
}

extension Engine {
    /// Takes as many survivors as there is said to be room for, and lays them out. How many are left.
    fileprivate mutating func fillColdExtents(of disks: Int, _ random: inout SeededRandom) -> Int {
        let extentBlocks = superblock.extentBlocks
        cleaner.isColdOpen = random.oneIn(2)
        cleaner.cold.filled = cleaner.isColdOpen ? random.index(below: extentBlocks) : extentBlocks
        for _ in 0..<random.index(below: 4) { _ = cleaner.addSpare() }
        var left = cleaner.room(extentBlocks: extentBlocks)
        while left > 0 {
            let count = min(left, cleaner.batchBlocks)
            cleaner.forgetSurvivors()
            for _ in 0..<count { cleaner.survivors.append(.init(random.index(below: disks))) }
            cleaner.survivors.sort { $0.vdi < $1.vdi }
            while cleaner.stagedCount < count {
                if extentBlocks - cleaner.cold.filled < 2 {
                    guard !cleaner.spares.isEmpty else { return left - cleaner.stagedCount }
                    cleaner.cold.newest = cleaner.spares.removeFirst()
                    cleaner.cold.filled = 0
                }
                fillColdChunk(0)
            }
            left -= count
        }
        return left
    }
}

extension Cleaner.Survivor {
    fileprivate init(_ disk: Int) {
        self.init(
            place: BlockAddress(extent: ExtentNumber(5), block: 1), vdi: UInt64(disk),
            firstBlock: 0, checksum: 0, level: -1, buffer: 0)
    }
}
