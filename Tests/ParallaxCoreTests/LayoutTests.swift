// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("The layout of a disk")
struct LayoutTests {
    @Test("is in pieces after scattered writes, and in order again after cleaning")
    func healing() throws {
        let store = try SmallStore()
        try store.create("disk")
        // Each block is written by itself, so none lies behind its neighbour.
        for start in UInt64(0)..<7 {
            for block in stride(from: start, to: 700, by: 7) {
                try store.write("disk", block..<block + 1)
            }
        }
        // A quarter of the blocks once more, so that there is something to clean.
        for block in stride(from: UInt64(0), to: 700, by: 4) {
            try store.write("disk", block..<block + 1)
        }
        try store.checkpoint()
        let scattered = try store.layout("disk")
        #expect(scattered == DiskLayout(blockCount: 700, runCount: 700))
        try store.clean()
        let cleaned = try store.layout("disk")
        #expect(cleaned.blockCount == 700)
        #expect(cleaned.runCount < scattered.runCount / 2)
        let found = try store.compare(within: 0..<700)
        #expect(found == SmallStore.Comparison())
    }

    @Test("is counted piece by piece, and holes end a run")
    func pieces() throws {
        let store = try SmallStore()
        try store.create("disk")
        let empty = try store.layout("disk")
        #expect(empty == DiskLayout())
        try store.write("disk", 0..<3)
        try store.write("disk", 2000..<2002)
        let whole = try store.layout("disk")
        #expect(whole == DiskLayout(blockCount: 5, runCount: 5))
        let piecewise = try store.layout("disk", leaves: 1)
        #expect(piecewise == whole)
    }
}
