// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("The check of a store")
struct CheckTests {
    /// Disks that share blocks in every way there is, in a clean checkpoint.
    static func makeStore(
        sizeBytes: UInt64 = 25 << 20, streamCount: Int = 1
    ) throws -> SmallStore {
        let store = try SmallStore(sizeBytes: sizeBytes, streamCount: streamCount)
        try store.create("gold")
        try store.write("gold", 0..<24)
        try store.write("gold", 300..<316)
        try store.snapshot("gold", "first")
        try store.write("gold", 8..<16)
        try store.snapshot("gold", "second")
        try store.discard("gold", 20..<22)
        try store.clone("gold@first", as: "copy")
        try store.write("copy", 4..<10)
        try store.snapshot("copy", "gone")
        try store.write("copy", 5..<7)
        try store.checkpoint()
        try store.deleteSnapshot("copy@gone")
        try store.checkpoint()
        if streamCount > 1 {
            try store.create("other", on: 1)
            try store.write("other", 0..<8)
        }
        try store.checkpoint()
        return store
    }

    private func check(_ medium: some StoreMedium, data: Bool = true) -> CheckReport {
        SmallStore.check(medium, data: data)
    }

    @Test("a store without damage has no findings, whatever was done with it")
    func clean() throws {
        let empty = try SmallStore()
        #expect(check(empty.device).findings == [])
        let store = try Self.makeStore(streamCount: 2)
        let report = check(store.device)
        #expect(report.findings == [])
        #expect(report.losses == [])
        #expect(report.statistics.vdis == 3)
        #expect(report.statistics.snapshots == 2)
        #expect(report.statistics.dataBlocks == report.statistics.verifiedBlocks)
        #expect(report.statistics.dataBlocks == 24 + 16 + 8 + 6 + 8)
        // With a log behind the checkpoint, and moved blocks.
        try store.write("gold", 2..<5)
        try store.snapshot("gold", "third")
        #expect(check(store.device).findings == [])
        #expect(check(store.device).statistics.replayedChunks > 3)
        try store.clean()
        #expect(check(store.device).findings == [])
        #expect(check(store.device, data: false).statistics.verifiedBlocks == 0)
    }

    @Test("a check writes nothing")
    func readOnly() throws {
        let store = try Self.makeStore()
        let writes = store.device.statistics.writes
        _ = check(store.device)
        #expect(store.device.statistics.writes == writes)
    }

    @Test("a flipped byte in any block that is used is found, and in no other", arguments: [1, 2])
    func everyBlock(streamCount: Int) throws {
        let store = try Self.makeStore(streamCount: streamCount)
        if streamCount == 2 { try store.clean() }
        let live = store.liveOffsets()
        let superblock = try Store.inspect(medium: store.device).superblock
        var offsets = Set(Superblock.copyOffsets)
        for stream in 0..<streamCount {
            for copy in 0..<2 {
                offsets.formUnion(Superblock.checkpointRootOffsets(stream: stream, copy: copy))
            }
        }
        let roots = offsets
        var found = 0
        let end = Superblock.firstExtentOffset + UInt64(superblock.slotCount) * (1 << 20)
        offsets.formUnion(store.device.touchedPages.map { $0 * 4096 }.filter { $0 < end })
        for offset in offsets.sorted() {
            let report = check(
                FlippedMedium(device: store.device, offset: offset + offset / 4096 * 37 % 4092))
            if live.contains(offset) || roots.contains(offset) {
                #expect(report.severity != nil, "a flip at \(offset) is not found")
                found += 1
            } else {
                // A table of the newest checkpoint, or the header of one of its chunks.
                let isExpected = report.findings.allSatisfy {
                    [.tables, .log].contains($0.structure)
                }
                #expect(isExpected, "\(offset): \(report.findings)")
            }
        }
        #expect(found == live.count + roots.count)
    }
}
