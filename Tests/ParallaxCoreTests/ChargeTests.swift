// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("Who is charged for blocks")
struct ChargeTests {
    /// While a version is given back its child's head frees what it had shared with it. A snapshot of that
    /// head is a child of the version, too, and the head is none any more.
    @Test("a snapshot made while its parent is given back forgets nothing of what was freed")
    func snapshotDuringDeletion() throws {
        let store = try SmallStore()
        let leaves = UInt64(64)
        try store.create("disk", blocks: leaves * 256)
        for leaf in 0..<leaves { try store.write("disk", leaf * 256..<leaf * 256 + 2) }
        try store.snapshot("disk", "old")
        for leaf in 0..<leaves { try store.write("disk", leaf * 256 + 1..<leaf * 256 + 2) }
        try store.checkpoint()
        // With nothing in memory a deletion goes through one leaf in a turn.
        try store.open()
        try store.deleteSnapshot("disk@old")
        let reached = { store.engines[0].engine.catalog.reclaim.job?.cursor ?? 0 }
        for _ in 0..<200 where reached() < 8 * 256 { store.step() }
        try #require(reached() >= 8 * 256)
        try store.overwriteAndSnapshot("disk")
        #expect(store.freedOfParents() == 0)
        try store.checkpoint()
        try store.open()
        let census = store.census()
        #expect(UInt64(census.dataBlocks) == census.bornBlocks)
        #expect(census.problems.isEmpty)
    }
}

extension SmallStore {
    /// Overwrites block 0 and makes a snapshot in one chunk of the log, so that the deletion gets no
    /// further in between. The model does not follow.
    fileprivate func overwriteAndSnapshot(_ vdi: String) throws {
        let engine = engines[0]
        let identifier = try #require(vdis[vdi])
        let handle = try handle(vdi)
        let buffer = BlockBuffer()
        let segment = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        segment.initialize(to: DataSegment(base: buffer.base, count: blockBytes))
        defer { segment.deallocate() }
        engine.engine.submit(
            BlockRequest(
                operation: .write, vdi: handle, session: 1, tag: 1, firstSector: 0,
                sectorCount: 8, segments: UnsafePointer(segment), segmentCount: 1))
        engine.engine.submit(
            change: .snapshot(
                identifier, SnapshotDetails(name: "new"), createdAtNanoseconds: 1, group: 0),
            ticket: 1 << 32)
        var isWritten = false
        var isMade = false
        for _ in 0..<100 where !isWritten || !isMade {
            step()
            isWritten = engine.engine.nextReply()?.status == .ok || isWritten
            isMade = engine.engine.nextChangeReply() != nil || isMade
        }
        try #require(isWritten && isMade)
    }

    fileprivate func freedOfParents() -> UInt64 {
        let engine = engines[0]
        return (0..<engine.engine.catalog.count).reduce(0) {
            $0 + engine.engine.catalog.vdis[$1].freedOfParent
        }
    }

    /// Of the first stream.
    func census() -> EngineCensus {
        engines[0].engine.census { offset, target in
            self.device.peek(
                at: offset, into: UnsafeMutableRawBufferPointer(start: target, count: blockBytes))
        }
    }
}
