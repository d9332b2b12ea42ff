// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Testing

@testable import ParallaxCore

@Suite("The log's reserves")
struct SpaceReserveTests {
    /// What is held back for checkpoints lies in extents of which each loses a little at its end. With
    /// many of them that is more than an extent, and nobody else asks for more leases.
    @Test("writes do not wait for leases that nobody asks for", arguments: [0, 2])
    func leases(ahead: Int) throws {
        let store = try SmallStore(
            sizeBytes: 64 << 20, nodeFrames: 2048, leasesAhead: ahead)
        let leaves = UInt64(512)
        try store.create("disk", blocks: leaves * 256)
        // Each of them in a leaf of its own, so that the reserves are large; twice, so that the log
        // stands at many places of its extent.
        for round in UInt64(0)..<2 {
            for leaf in 0..<leaves {
                try store.write("disk", leaf * 256 + round..<leaf * 256 + round + 1)
            }
        }
        let held = store.statistics.reservedBlocks
        #expect(held > 6 * 256, "the reserves are too small to show anything: \(held)")
    }

    @Test("the log takes as many leases as it is given, in their order")
    func leaseRing() {
        var log = LogWriter(
            chunkCount: 2, extentBlocks: 256, nextLSN: LogSequenceNumber(1),
            extent: ExtentNumber(0), head: 0, nextExtent: ExtentNumber(1))
        var extents = ExtentTable(slotCount: 1000, extentBlocks: 256)
        for slot in UInt32(0)..<1000 { log.addLease(slot: ExtentSlot(slot), extents: &extents) }
        #expect(log.leases.count == 1000)
        #expect((0..<1000).allSatisfy { log.leases[$0].slot == ExtentSlot(UInt32($0)) })
    }
}
