// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// Stores in which the cleaner has hardly room to move to.
@Suite("Cleaning with little room")
struct CrowdedStoreTests {
    /// Survivors of many disks take more of a chunk's header than those of one, so that fewer fit. That
    /// no round counts on more is what `CleanerRoomTests` shows; here is the whole, at its narrowest.
    @Test("a store that is full of small disks can be overwritten", arguments: [1, 40, 200])
    func manyDisks(count: Int) throws {
        let store = try SmallStore(sizeBytes: 64 << 20, nodeFrames: 2048)
        let disks = (0..<count).map { "disk\($0)" }
        let blocks = UInt64(11_000 / count)
        for disk in disks { try store.create(disk, blocks: max(blocks, 256)) }
        for block in 0..<blocks {
            for disk in disks { try store.write(disk, block..<block + 1) }
        }
        try overwrite(disks, blocks: blocks, in: store)
        let found = try store.compare(within: 0..<blocks)
        #expect(found == SmallStore.Comparison())
    }

    /// An extent with a damaged block in it is kept, and what else was in it has been moved all the same:
    /// the room in the cold extents is gone, and no slot has come for it.
    @Test("damaged blocks do not keep the cleaner from others")
    func damagedBlocks() throws {
        let store = try SmallStore(sizeBytes: 64 << 20, nodeFrames: 2048)
        let blocks = UInt64(9_600)
        try store.create("gold", blocks: blocks)
        try store.create("disk", blocks: blocks)
        for block in 0..<blocks {
            try store.write("disk", block..<block + 1)
            if block % 160 == 0 { try store.write("gold", block / 160..<block / 160 + 1) }
        }
        try store.checkpoint()
        let damaged = stride(from: UInt64(0), to: blocks / 160, by: 8).map { $0 }
        for block in damaged {
            store.device.rot(at: try #require(store.offset(of: block, in: "gold")), bit: 3)
        }
        try overwrite(["disk"], blocks: blocks, in: store)
        #expect(store.statistics.cleanerDamagedBlocks > 0)
        let found = try store.compare(within: 0..<blocks)
        #expect(
            found
                == SmallStore.Comparison(
                    wrong: [], unreadable: damaged.map { "gold:\($0)" }, missing: []))
    }

    /// Where others have the slots, the log is the only one who can give the cleaner something.
    @Test("without any room to move to the cleaner gets an extent that the log holds in advance")
    func noRoom() throws {
        let store = try SmallStore(sizeBytes: 64 << 20, nodeFrames: 2048)
        let blocks = UInt64(7_000)
        try store.create("disk", blocks: blocks)
        try store.create("sparse", blocks: 600 * 256)
        for block in 0..<blocks { try store.write("disk", block..<block + 1) }
        // Many leaves, for which much is held back.
        for leaf in UInt64(0)..<600 { try store.write("sparse", leaf * 256..<leaf * 256 + 1) }
        try overwrite(["disk"], blocks: blocks, in: store)
        store.occupyFreeSlots()
        store.engines[0].engine.loseColdRoom()
        try overwrite(["disk"], blocks: blocks, in: store)
        let found = try store.compare(within: 0..<blocks)
        #expect(found == SmallStore.Comparison())
    }

    /// The log since the last checkpoint is cleaned only when somebody waits; all that is dead may be in it.
    @Test("a cold extent in which everything has died is given up for those who wait")
    func deadColdExtent() throws {
        let store = try SmallStore(sizeBytes: 64 << 20, nodeFrames: 2048)
        try store.create("disk", blocks: 4096)
        for block in UInt64(0)..<1024 { try store.write("disk", block..<block + 1) }
        for block in UInt64(0)..<1024 where block % 8 != 0 {
            try store.write("disk", block..<block + 1)
        }
        try store.clean()
        let before = store.look { $0.openColdExtent }
        #expect(before.map { $0.live > 0 } == true)
        try store.discard("disk", 0..<4096)
        #expect(store.look { $0.openColdExtent }?.live == 0)
        let isGivenUp = store.mislead { $0.cleanForWaiting() }
        #expect(isGivenUp)
        try store.checkpoint()
        let isThere = store.look { engine in
            before.map { engine.forest.extents.contains($0.number) } ?? true
        }
        #expect(!isThere)
        try store.write("disk", 0..<64)
        #expect(try store.compare(within: 0..<1024) == SmallStore.Comparison())
    }

    @Test("what has died since the last checkpoint is won back before a write is refused")
    func youngDead() throws {
        let store = try SmallStore(sizeBytes: 64 << 20, nodeFrames: 2048)
        try store.create("disk", blocks: 16_384)
        try store.write("disk", 0..<8_000)
        try store.checkpoint()
        let buffer = BlockBuffer()
        var status = BlockStatus.ok
        var block = UInt64(8_000)
        // Two of three are written again at once: in each extent of the log some live.
        while status == .ok, block < 16_384 {
            for target in [block, 0, 1] where status == .ok {
                store.engines[0].engine.cleaner.pacing.credit = -1 << 40
                status = try store.transfer(
                    .write, vdi: "disk", handle: store.handle("disk"), target, buffer.base)
            }
            block += 1
        }
        #expect(status == .noSpace, "the store does not become full")
        let prospect = store.engines[0].engine.prospectRefused
        #expect(prospect <= 0)
    }

    /// However long it takes: that is a matter of the device and of how large extents are.
    @Test("a stream without slots waits as long as another says that some are on their way")
    func waitsForPeers() throws {
        let store = try SmallStore(streamCount: 2)
        let second: UInt64 = 1_000_000_000
        #expect(store.mislead { $0.timeUntilFull { time in time < 10 * second } } > 10 * second)
        #expect(store.mislead { $0.timeUntilFull { time in time < 10 * second } } < 11 * second)
        // One that is always at work is not waited for without an end.
        #expect(store.mislead { $0.timeUntilFull { _ in true } } > 10 * second)
        #expect(store.mislead { $0.timeUntilFull { _ in false } } < second)
    }

    @Test("a stream that is asked for space says so until the slots are back")
    func tellsPeers() throws {
        let store = try SmallStore(sizeBytes: 64 << 20, streamCount: 2)
        try store.create("disk")
        for _ in 0..<3 { try store.write("disk", 0..<1200) }
        for block in UInt64(0)..<1200 where block % 8 != 0 {
            try store.write("disk", block..<block + 1)
        }
        try store.checkpoint()
        let extents = store.look { $0.forest.extents.count }
        let isGaining = store.look { $0.isGainingSpace }
        #expect(!isGaining)
        store.mislead { $0.giveBackSpace() }
        var command = try store.turn { _ in true }
        #expect(store.look { $0.isAskedForSpace && $0.isGainingSpace })
        for _ in 0..<10_000 where store.look({ $0.isGainingSpace }) {
            for held in command { try store.carryOut(held) }
            command = try store.turn { _ in true }
        }
        #expect(store.look { $0.forest.extents.count } < extents)
        #expect(store.look { !$0.isGainingSpace })
    }

    /// Each round gives a little, and may take a checkpoint.
    @Test("cleaning for writes leaves deletions their room")
    func poorVictims() throws {
        let store = try SmallStore()
        try store.create("disk", blocks: 8192)
        let buffer = BlockBuffer()
        var status = BlockStatus.ok
        var block = UInt64(0)
        while status == .ok {
            store.engines[0].engine.cleaner.pacing.credit = -1 << 40
            status = try store.transfer(
                .write, vdi: "disk", handle: store.handle("disk"), block % 12 == 0 ? 0 : block,
                buffer.base)
            block += 1
        }
        let engine = store.engines[0]
        engine.engine.cleaner.pacing.isUrgent = true
        let cleanedBefore = engine.engine.chooseVictims()
        engine.engine.useUp(leaving: 20)
        let cleanedAfter = engine.engine.chooseVictims()
        #expect(!cleanedBefore.isEmpty && cleanedAfter.isEmpty)
    }

    @Test("labels do not use up what deletions need")
    func labels() throws {
        let store = try SmallStore()
        for disk in ["disk", "other"] {
            try store.create(disk, blocks: 8192)
            try store.write(disk, 0..<1)
            try store.snapshot(disk, "held", holds: ["backup"])
            try store.snapshot(disk, "free")
        }
        try fill("disk", of: store)
        store.engines[0].engine.useUp(leaving: 20)
        #expect(throws: CatalogError.noSpace) {
            try store.setDetails("disk@free", SnapshotDetails(name: "again"))
        }
        try store.setDetails("disk@held", SnapshotDetails(name: "released"))
        try store.deleteSnapshot("disk@held")
        // What is kept for the cleaner helps nobody when there is nothing to clean.
        store.engines[0].engine.useUp(leaving: -20)
        try store.setDetails("other@held", SnapshotDetails(name: "released"))
        try store.delete("other")
    }

    /// A larger cache may hold more dirty nodes, for whose checkpoint more has to be kept.
    @Test("a full store takes discards after its node cache has been made larger")
    func largerCache() throws {
        let store = try SmallStore(sizeBytes: 40 << 20, nodeFrames: 64)
        try store.create("sparse", blocks: 1500 * 256)
        for leaf in UInt64(0)..<1500 { try store.write("sparse", leaf * 256..<leaf * 256 + 1) }
        try store.create("disk", blocks: 8192)
        try fill("disk", of: store)
        try store.checkpoint()
        store.configuration.nodeCacheBytes = 8192 * blockBytes
        try store.open()
        try store.discard("disk", 0..<100)
        #expect(store.look { $0.frameLimit } < 8192)
        // When there is space again, all of it is used.
        try store.delete("disk")
        for _ in 0..<8 { try finishReclaiming(store, thenWriting: "sparse") }
        #expect(store.look { $0.frameLimit } == 8192)
    }

    /// Each of their records is on a page that the next checkpoint writes anew.
    @Test("a full store gives back a disk with thousands of snapshots")
    func manyRecords() throws {
        let store = try SmallStore()
        try store.create("disk")
        try store.create("other", blocks: 8192)
        try store.write("disk", 0..<1)
        let comment = String(repeating: "c", count: 500)
        for snapshot in 0..<8_000 {
            try store.snapshot("disk", "\(snapshot)", comment: comment)
        }
        try fill("other", of: store)
        try store.delete("disk")
        try finishReclaiming(store, thenWriting: "other")
    }

    /// As before, but on each page there are records of another disk, so that all of them have to be
    /// written again, and nothing comes back for it.
    @Test("deletions that give nothing back leave room for those that do")
    func sharedPages() throws {
        let store = try SmallStore(sizeBytes: 48 << 20)
        try store.create("disk")
        try store.create("other", blocks: 16_384)
        try store.create("large", blocks: 16_384)
        for disk in ["disk", "other"] { try store.write(disk, 0..<1) }
        try store.write("large", 0..<2_000)
        let comment = String(repeating: "c", count: 500)
        for snapshot in 0..<6_000 {
            for disk in ["disk", "other"] {
                try store.snapshot(disk, "\(snapshot)", comment: comment)
            }
        }
        try fill("other", of: store)
        try store.delete("disk")
        for _ in 0..<20_000 { store.step() }
        let hasRoom = store.engines[0].engine.hasRoomForCheckpoint
        #expect(hasRoom)
        try store.discard("large", 0..<2_000)
        try finishReclaiming(store, thenWriting: "other")
    }

    @Test("that the store was full before a sleep is not believed after it")
    func staleRefusal() throws {
        for freeSlots in 0...1 {
            let store = try fullStore()
            let running = store.engines[0]
            let wasFull = running.engine.isStoreFull
            // Later, or with a slot that came back.
            let later = running.engine.now + (freeSlots == 0 ? 1_000_000_000 : 0)
            running.engine.wake(nowNanoseconds: later, freeSlots: freeSlots)
            let isFull = running.engine.isStoreFull
            #expect(wasFull && !isFull)
        }
    }

    /// Nothing is cleaned any more, so whether there would have been space is not known.
    @Test("a write that finds no space before the end gets no answer")
    func windingDown() throws {
        let store = try fullStore()
        store.engines[0].engine.windDown()
        let buffer = BlockBuffer()
        let segment = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        defer { segment.deallocate() }
        segment.initialize(to: DataSegment(base: buffer.base, count: blockBytes))
        store.engines[0].engine.submit(
            BlockRequest(
                operation: .write, vdi: try store.handle("disk"), session: 1, tag: 1,
                firstSector: 8 * 8191, sectorCount: 8, segments: UnsafePointer(segment),
                segmentCount: 1))
        for _ in 0..<2000 {
            store.step()
            let reply = store.engines[0].engine.nextReply()
            #expect(reply?.status == nil)
        }
    }

    private func fullStore() throws -> SmallStore {
        let store = try SmallStore()
        try store.create("disk", blocks: 8192)
        try fill("disk", of: store)
        return store
    }

    /// Written until there is no space.
    private func fill(_ disk: String, of store: SmallStore) throws {
        let buffer = BlockBuffer()
        for block in UInt64(0)..<8191 {
            let status = try store.transfer(
                .write, vdi: disk, handle: store.handle(disk), block, buffer.base)
            if status == .noSpace { return }
        }
        Issue.record("the store does not become full")
    }

    /// Afterwards there is room again.
    private func finishReclaiming(_ store: SmallStore, thenWriting disk: String) throws {
        for _ in 0..<20_000 where store.statistics.isReclaiming { store.step() }
        try store.checkpoint()
        let isReclaiming = store.statistics.isReclaiming
        #expect(!isReclaiming)
        try store.write(disk, 0..<400)
    }

    /// Nothing is cleaned before somebody waits for it, so that there is as little room as can be.
    private func overwrite(_ disks: [String], blocks: UInt64, in store: SmallStore) throws {
        var random = SeededRandom(seed: 7)
        var urgentWrites = 0
        for _ in 0..<20_000 {
            store.engines[0].engine.cleaner.pacing.credit = -1 << 40
            let block = UInt64(random.index(below: Int(blocks)))
            let before = store.statistics.cleanerRounds
            try store.write(disks[random.index(below: disks.count)], block..<block + 1)
            if store.statistics.cleanerRounds > before { urgentWrites += 1 }
        }
        #expect(urgentWrites > 20, "hardly anything was cleaned: \(urgentWrites)")
    }
}

extension SmallStore {
    /// Somebody else has all slots that are free now.
    fileprivate func occupyFreeSlots() { while slots.allocate() != nil {} }
}

extension Engine {
    /// How long after the first refusal the store counts as full.
    fileprivate mutating func timeUntilFull(isGaining: (UInt64) -> Bool) -> UInt64 {
        noteFreeSpace()
        // Long after what came before.
        now += 3_600_000_000_000
        let start = now
        while !isStoreFull {
            now += 6_000_000
            extentsRequested += 1
            supplyExtent(nil, peersAreGaining: isGaining(now - start))
        }
        return now - start
    }

    /// As if the log had gone on until so many blocks were left above what deletions need, or below.
    fileprivate mutating func useUp(leaving blocks: Int) {
        let usable = superblock.extentBlocks - LogWriter.lostPerExtent
        let surplus = usableBlocks - blocksToLeave(by: .deletion) - blocks
        for _ in 0..<surplus / usable { log.leases.dropLast() }
        log.head += surplus % usable
    }

    /// As if what was moved had filled the cold extents, and emptied nothing.
    fileprivate mutating func loseColdRoom() {
        for number in cleaner.spares { forest.extents.remove(number) }
        cleaner.spares.removeAll()
        if cleaner.isColdOpen { cleaner.cold.filled = superblock.extentBlocks - 1 }
    }
}

extension Engine {
    /// The one that the cleaner is filling.
    fileprivate var openColdExtent: ExtentTable.Extent? {
        cleaner.isColdOpen ? forest.extents.find(cleaner.cold.newest) : nil
    }
}
