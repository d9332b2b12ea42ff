// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("A fenced engine")
struct FenceTests {
    @Test("not even writes that wait for room in the device leave it; reads go on")
    func queued() throws {
        let store = try SmallStore()
        try store.create("disk")
        try store.write("disk", 0..<8)
        let running = store.engines[0]
        let handle = try store.handle("disk")
        let buffer = BlockBuffer()
        let segment = DataSegment(base: buffer.base, count: blockBytes)
        withUnsafePointer(to: segment) { segments in
            running.engine.submit(
                BlockRequest(
                    operation: .write, vdi: handle, session: 0, tag: 1, firstSector: 0,
                    sectorCount: 8, segments: segments, segmentCount: 1))
            running.engine.turn(nowNanoseconds: 1 << 40)
        }
        let hasQueued = (0..<running.engine.commands.count).contains {
            running.engine.commands[$0].operation == .write
        }
        try #require(hasQueued)
        running.engine.fence("another's")
        #expect(running.engine.failure?.message == "another's")
        let hasWrites = (0..<running.engine.commands.count).contains {
            running.engine.commands[$0].operation == .write
        }
        #expect(!hasWrites)
        let reply = running.engine.nextReply()
        #expect(reply?.tag == 1 && reply?.status == .ioError)
        // Reads find what was acknowledged.
        let comparison = try store.compare(within: 0..<16)
        #expect(comparison == SmallStore.Comparison())
    }
}
