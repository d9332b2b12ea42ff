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

    /// What is held back are seven times the tables, and the tables of a large store are large.
    @Test(
        "the log may hold as many leases as the reserves of the largest store take",
        arguments: [(1 << 20, 1 << 22), (4 << 20, 1 << 24), (64 << 20, 1 << 20), (1 << 20, 25)])
    func leaseCapacity(extentBytes: Int, slotCount: Int) throws {
        let extentBlocks = extentBytes / blockBytes
        let superblock = Superblock(
            uuid: StoreUUID(high: 1, low: 2), storeBytes: UInt64(slotCount) * UInt64(extentBytes),
            extentBytes: UInt64(extentBytes), slotCount: UInt32(slotCount), streamCount: 1,
            generation: 1, createdAtNanoseconds: 0)
        let frames = 65_536
        // One forward for each sixteenth live block, 16 bytes each, in pages that are half full.
        let forwards = slotCount * extentBlocks / 16 * 16 / (blockBytes / 2)
        let livePages = slotCount * extentBlocks / 8 / blockBytes
        let tables =
            CheckpointTables.blockCount(
                extents: slotCount, indexBlocks: 64, livePages: livePages, forwardPages: forwards)
            + livePages + forwards
        let blocks = 7 * tables + 3 * frames
        let leases = blocks / (extentBlocks - LogWriter.lostPerExtent) + 1
        #expect(Engine.leaseCapacity(superblock, frameCount: frames) / 2 >= leases)
    }
}
