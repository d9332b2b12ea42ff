// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// Repairs of a store whose forwards are lost, and in whose log the cleaner has gone on.
@Suite("Forwards that are lost under moves of the log")
struct RescueTests {
    /// Of the blocks that are moved once more some have kept their names, others have taken up their places as
    /// names before the checkpoint, or after it.
    @Test(
        "a block that was moved again after the checkpoint is found by the name that it has",
        arguments: [false, true])
    func movedAgain(isSlotReused: Bool) throws {
        let store = try CheckTests.makeStore(sizeBytes: 40 << 20)
        try store.create("kept")
        try store.create("own")
        try store.makeForwards()
        // Shared with a snapshot, so that they keep their names.
        try store.writeHalfDead("kept", 0..<240)
        try store.snapshot("kept", "full")
        try store.writeHalfDead("own", 0..<800)
        try store.checkpoint()
        try store.clean()
        // Copies all leaves but the last.
        for leaf in UInt64(0)..<3 { try store.write("own", leaf * 256..<leaf * 256 + 1) }
        try store.checkpoint()
        let pages = store.look { $0.forest.forwards.pages.map(\.reference) }
        let lost = try pages.map { try store.offset(of: $0) }
        let sequence = store.look { $0.checkpoint.root.sequence }
        let cold = store.look { $0.sealedCold }
        for block in stride(from: UInt64(1), to: 800, by: 2) where block % 8 != 1 {
            try store.write("own", block..<block + 1)
        }
        let dropped = try #require(store.cleanUntilDropped(cold))
        // The process dies at this moment.
        let device = store.device.copy()
        let isOld = store.look { $0.checkpoint.root.sequence == sequence }
        #expect(isOld)
        if isSlotReused { try store.wipe(dropped, on: device) }
        for offset in lost { device.rot(at: offset + 100, bit: 3) }
        let result = try store.repair(device, within: 0..<800)
        #expect(result.before.severity == .repairable)
        #expect(result.after.findings == [])
        #expect(result.found == SmallStore.Comparison())
    }
}

extension SmallStore {
    fileprivate func writeHalfDead(_ vdi: String, _ blocks: Range<UInt64>) throws {
        try write(vdi, blocks)
        for block in blocks where block % 2 == 0 { try write(vdi, block..<block + 1) }
    }

    /// Until the log has given up one of these extents.
    fileprivate func cleanUntilDropped(
        _ extents: [ExtentTable.Extent]
    ) -> ExtentTable.Extent? {
        startCleaning()
        for _ in 0..<3000 {
            step()
            // The log is to say it, and no checkpoint.
            mislead { engine in
                engine.checkpoint.isWanted = false
                let isEmpty = extents.contains {
                    engine.forest.extents.find($0.number)?.live == 0
                }
                if isEmpty { engine.cleaner.pacing.goal = nil }
            }
            let dropped = look { engine in
                extents.first { !engine.forest.extents.contains($0.number) }
            }
            if let dropped { return dropped }
        }
        return nil
    }

    /// As if something else had been written where the extent was.
    fileprivate func wipe(_ extent: ExtentTable.Extent, on device: SimulatedDevice) throws {
        let block = BlockBuffer()
        let count = look { $0.superblock.extentBlocks }
        for index in 0..<count {
            let offset = look { $0.superblock.byteOffset(slot: extent.slot, block: index) }
            try device.write(at: offset, from: UnsafeRawBufferPointer(block.bytes))
        }
    }
}

extension Engine {
    fileprivate var sealedCold: [ExtentTable.Extent] {
        (0..<forest.extents.count).map { forest.extents[$0] }
            .filter { $0.number.isCold && $0.state == .sealed }
    }
}
