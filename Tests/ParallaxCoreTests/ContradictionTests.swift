// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// Books that do not agree with the trees: by a fault of the program, or in a store that was tampered
/// with, checksums and all.
@Suite("Contradictions between books and trees")
struct ContradictionTests {
    enum Lie: CaseIterable { case dead, uncharged, unallocated }

    @Test(
        "the shard stops writing, answers reads, and nothing of it becomes durable",
        arguments: Lie.allCases)
    func stops(lie: Lie) throws {
        let store = try SmallStore()
        try store.create("disk", blocks: 1024)
        try store.write("disk", 0..<8)
        try store.checkpoint()
        let checkpoint = store.look { $0.checkpoint.root.sequence }
        let handle = Int(try store.handle("disk"))
        let offset = try #require(store.offset(of: 3, in: "disk"))
        store.mislead { engine in
            switch lie {
            case .dead: engine.forest.extents.removeLive(engine.address(at: offset))
            case .uncharged: engine.catalog.vdis[handle].bornBlocks = 0
            case .unallocated: engine.catalog.vdis[handle].allocatedBlocks = 0
            }
        }
        #expect(store.look { !$0.isContradicted })
        let buffer = BlockBuffer()
        SmallStore.fill(buffer.base, stamp: 1 << 20)
        _ = try store.transfer(.write, vdi: "disk", handle: UInt32(handle), 3, buffer.base)
        for _ in 0..<8 { store.step() }
        #expect(store.look { $0.failure?.kind } == .damaged)
        let refused = try store.transfer(
            .write, vdi: "disk", handle: UInt32(handle), 4, buffer.base)
        #expect(refused == .ioError)
        let read = try store.transfer(.read, vdi: "disk", handle: UInt32(handle), 5, buffer.base)
        #expect(read == .ok)
        try store.checkpoint()
        #expect(store.look { $0.checkpoint.root.sequence } == checkpoint)
        // What was written before is there, and the books are those of before.
        try store.open()
        #expect(store.census().problems.isEmpty)
        store.forget("disk", 3..<4)
        #expect(try store.compare() == SmallStore.Comparison())
    }

    @Test("an address behind the end of its extent is no place, and touches no bit")
    func outside() {
        var table = ExtentTable(slotCount: 2, extentBlocks: 256)
        let number = ExtentNumber(3)
        table.insert(number, slot: ExtentSlot(0), state: .sealed)
        table.addLive(BlockAddress(extent: number, block: 255))
        let isInside = table.contains(BlockAddress(extent: number, block: 255))
        #expect(isInside && !table.isContradicted)
        for block in [256, 257, 65535] {
            let place = BlockAddress(extent: number, block: block)
            let isKnown = table.contains(place) || table.isLive(place)
            #expect(!isKnown)
            table.removeLive(place)
            table.addLive(place)
            table.removeLivePage(place)
        }
        let liveTotal = table.liveTotal
        #expect(liveTotal == 1 && table.isContradicted)
    }

    @Test("more bits than are counted: the count does not go below nothing")
    func uncounted() {
        var table = ExtentTable(slotCount: 2, extentBlocks: 256)
        let place = BlockAddress(extent: ExtentNumber(3), block: 9)
        table.insert(place.extent, slot: ExtentSlot(0), state: .sealed)
        let isLoaded = table.loadPlace(ofLivePage: place)
        table.removeLive(place)
        let isContradicted = table.isContradicted
        #expect(isLoaded && isContradicted && table[0].live == 0)
    }

    @Test("an account that is overdrawn is empty")
    func account() {
        var left: UInt64 = 3
        let isTaken = left.takeOff(2)
        #expect(isTaken && left == 1)
        let isOverdrawn = !left.takeOff(2)
        #expect(isOverdrawn && left == 0)
    }
}

extension Engine {
    /// The address of the block at an offset of the store.
    fileprivate func address(at offset: UInt64) -> BlockAddress {
        let distance = offset - Superblock.firstExtentOffset
        let slot = ExtentSlot(UInt32(distance / UInt64(superblock.extentBytes)))
        let index = (0..<forest.extents.count).first { forest.extents[$0].slot == slot } ?? 0
        let block = Int(distance % UInt64(superblock.extentBytes)) / blockBytes
        return BlockAddress(extent: forest.extents[index].number, block: block)
    }
}
