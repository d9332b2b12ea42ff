// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("What the engine holds, and how long it waits")
struct EngineLimitTests {
    /// While a group is cut no answer goes out, and requests come in as others are carried out.
    @Test("answers that are held back have room, however many requests are in flight")
    func heldReplies() throws {
        let store = try SmallStore()
        try store.create("disk", blocks: 4096)
        let identifier = try #require(store.vdis["disk"])
        let handle = try store.handle("disk")
        let engine = store.engines[0]
        engine.engine.submit(
            change: .snapshot(
                identifier, SnapshotDetails(name: "cut"), createdAtNanoseconds: 1, group: 7),
            ticket: 99)
        for _ in 0..<20 where engine.engine.heldReplies.isEmpty {
            store.step()
            if engine.engine.nextCut() != nil { break }
        }
        let memory = BlockBuffer()
        let segment = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        segment.initialize(to: DataSegment(base: memory.base, count: blockBytes))
        defer { segment.deallocate() }
        var tag: UInt32 = 0
        func submit(_ operation: BlockRequest.Operation, block: UInt64) {
            tag += 1
            engine.engine.submit(
                BlockRequest(
                    operation: operation, vdi: handle, session: 1, tag: tag,
                    firstSector: block * 8, sectorCount: 8, segments: UnsafePointer(segment),
                    segmentCount: 1))
        }
        // Half of the slots wait for the device, the others are answered at once: holes are read.
        for block in UInt64(0)..<512 { submit(.write, block: block) }
        for turn in UInt64(1)..<40 {
            while engine.engine.freeRequestSlots > 0 { submit(.read, block: 2048) }
            engine.engine.turn(nowNanoseconds: turn << 40)
        }
        let requests = Int(tag)
        for _ in 0..<40 { store.step() }
        #expect(engine.engine.heldReplies.count == requests)
        #expect(requests > 1024)
        engine.engine.releaseGroup(7)
        var answers = 0
        for _ in 0..<40 {
            while engine.engine.nextReply() != nil { answers += 1 }
            store.step()
        }
        #expect(answers == requests)
    }

    @Test("a node that cannot be read does not stop a sweep, and is not read again and again")
    func brokenNodeInSweep() throws {
        let store = try CheckTests.makeStore()
        try store.makeForwards()
        store.configuration.leastNamesForSweep = 1
        try store.open()
        let handle = Int(try store.handle("gold"))
        let root = try store.offset(of: store.look { $0.catalog.vdis[handle].root })
        store.device.rot(at: root + 100, bit: 1)
        try #require(store.look { $0.forest.forwards.count } > 0)
        store.mislead { $0.forest.namesForwarded += 1 << 20 }
        for _ in 0..<500 { store.step() }
        let sweep = store.look { $0.renaming }
        #expect(sweep.handle == nil)
        #expect(sweep.namesAtStart >= 1 << 20)
        #expect(store.statistics.checksumFailures < 10)
    }

    @Test("a smaller node cache than before takes effect at the second opening")
    func smallerCache() throws {
        let store = try SmallStore(nodeFrames: 512)
        try store.create("disk")
        try store.write("disk", 0..<300)
        try store.checkpoint()
        store.configuration.nodeCacheBytes = 64 * blockBytes
        try store.open()
        #expect(store.statistics.nodeFrames == 512)
        try store.write("disk", 300..<400)
        try store.checkpoint()
        #expect(store.look { $0.checkpoint.root.nodeFrames } == 64)
        try store.open()
        #expect(store.statistics.nodeFrames == 64)
        #expect(try store.compare() == SmallStore.Comparison())
    }

    /// A crash came before the first checkpoint with the larger cache: no root speaks of it.
    /// Or one speaks of the smaller cache, and the leaves that the log changes were in the store before.
    @Test(
        "a log that was written with a larger node cache is replayed with a smaller one, and checked",
        arguments: [false, true])
    func smallerCacheAfterCrash(hasLeaves: Bool) throws {
        let store = try SmallStore(nodeFrames: hasLeaves ? 64 : 512)
        let leaves = UInt64(110)
        try store.create("disk", blocks: leaves * 256)
        if hasLeaves {
            for leaf in 0..<leaves { try store.write("disk", leaf * 256..<leaf * 256 + 1) }
            try store.checkpoint()
            store.configuration.nodeCacheBytes = 512 * blockBytes
            try store.open()
        }
        for leaf in 0..<leaves { try store.write("disk", leaf * 256 + 1..<leaf * 256 + 2) }
        try store.flush("disk")
        #expect(store.look { $0.checkpoint.root.nodeFrames } == (hasLeaves ? 64 : 0))
        #expect(store.look { $0.forest.cache.dirtyCount } > 64)
        store.configuration.nodeCacheBytes = 64 * blockBytes
        var options = StoreCheck.Options()
        options.nodeCacheBytes = 64 * blockBytes
        let report = StoreCheck.run(medium: store.device, options: options)
        #expect(report.findings.map(\.message) == [])
        try store.open()
        #expect(try store.compare(within: 0..<leaves * 256) == SmallStore.Comparison())
        try store.write("disk", 1..<3)
        try store.checkpoint()
        #expect(store.look { $0.checkpoint.root.nodeFrames } == 64)
    }

    /// In each range its node differs from that of the head, and no leaf of it that is the snapshot's own does:
    /// to find that out for all takes more nodes than there is room for.
    @Test("a snapshot that has nothing alone in many places is given back")
    func nothingAlone() throws {
        let ranges = (UInt64(0)..<40).map { $0 * 65_536 }
        let store = try makeSimilar(ranges, in: SmallStore(nodeFrames: 64))
        try store.deleteSnapshot("disk@second")
        for _ in 0..<5_000 where store.statistics.isReclaiming { store.step() }
        let isReclaiming = store.statistics.isReclaiming
        #expect(!isReclaiming)
        for start in ranges { #expect(try store.compare(within: start..<start + 512) == .init()) }
    }

    /// Two snapshots and a head, with a change in each range between any two of them.
    private func makeSimilar(_ ranges: [UInt64], in store: SmallStore) throws -> SmallStore {
        try store.create("disk", blocks: UInt64(ranges.count) * 65_536)
        for start in ranges {
            for leaf in [start, start + 256] { try store.write("disk", leaf..<leaf + 1) }
        }
        try store.snapshot("disk", "first")
        for start in ranges { try store.write("disk", start..<start + 1) }
        try store.snapshot("disk", "second")
        for start in ranges { try store.write("disk", start + 256..<start + 257) }
        try store.checkpoint()
        return store
    }

    /// The 256 places of each range are looked at, and nothing is loaded.
    private func storeWithAllNodes() throws -> SmallStore {
        try SmallStore(sizeBytes: 200 << 20, nodeFrames: 4096)
    }

    /// While a guest's read is on its way to the device.
    @Test("a turn of a deletion passes over a bounded number of places that are the same")
    func samePlaces() throws {
        let ranges = (UInt64(0)..<600).map { $0 * 65_536 }
        let store = try makeSimilar(ranges, in: storeWithAllNodes())
        let handle = try store.handle("disk")
        let second = try #require(store.snapshots["disk@second"])
        let buffer = BlockBuffer()
        let segment = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        defer { segment.deallocate() }
        segment.initialize(to: DataSegment(base: buffer.base, count: blockBytes))
        store.mislead {
            $0.submit(
                BlockRequest(
                    operation: .read, vdi: handle, session: 1, tag: 1, firstSector: 0,
                    sectorCount: UInt64(sectorsPerBlock), segments: UnsafePointer(segment),
                    segmentCount: 1))
            $0.submit(change: .deleteSnapshot(second), ticket: 99)
        }
        var held: [StoreCommand] = []
        for _ in 0..<100 where store.look({ $0.catalog.reclaim.job == nil }) {
            held += try store.turn { $0 == .part }
        }
        var cursors: [UInt64] = []
        while let job = store.look({ $0.catalog.reclaim.job }), job.purpose == .free,
            job.level == 0
        {
            cursors.append(job.cursor)
            let wantsTurn = store.look { $0.wantsTurn }
            #expect(wantsTurn)
            try #require(cursors.count < 1000)
            held += try store.turn { $0 == .part }
        }
        #expect(cursors.first ?? 0 > 0 && cursors == Set(cursors).sorted())
        // 64 times 4 in a turn, and in the last one it comes to the next level.
        #expect(cursors.count >= ranges.count / 256)
        try #require(held.count == 1)
        try store.carryOut(held[0])
        store.step()
        let answer = store.mislead { $0.nextReply() }
        #expect(answer?.status == .ok)
        for _ in 0..<5_000 where store.statistics.isReclaiming { store.step() }
        let isReclaiming = store.statistics.isReclaiming
        #expect(!isReclaiming)
        let census = store.census()
        #expect(census.problems == [])
        var expected = SmallStore.Comparison()
        expected.missing = ["disk@second"]
        for start in [ranges[0], ranges[3], ranges[4], ranges[599]] {
            #expect(try store.compare(within: start..<start + 512) == expected)
        }
    }

    @Test("a turn of a comparison passes over a bounded number of places that are the same")
    func samePlacesOfComparison() throws {
        let ranges = (UInt64(0)..<200).map { $0 * 65_536 }
        let store = try makeSimilar(ranges, in: storeWithAllNodes())
        let old = VersionReference.snapshot(try #require(store.snapshots["disk@second"]))
        let new = VersionReference.head(try #require(store.vdis["disk"]))
        store.mislead { $0.submit(diff: DiffQuery(old: old, new: new), ticket: 1) }
        var turns = 0
        var reply: DiffReply?
        while reply == nil {
            store.step()
            turns += 1
            reply = store.mislead { $0.nextDiffReply() }
            let wantsTurn = store.look { $0.wantsTurn }
            #expect(wantsTurn == (reply == nil))
            try #require(turns < 1000)
        }
        let answer = try reply?.result.get()
        #expect(
            answer?.ranges
                == ranges.map { DiffRange(firstBlock: $0 + 256, blockCount: 1, kind: .changed) })
        #expect(answer?.nextBlock == nil)
        // Of each range one leaf differs, with a run of the same before it and one behind: 64 in a turn.
        #expect(turns >= ranges.count / 64)
    }

    /// With so few nodes in memory one request at a time may load what it needs.
    @Test("a comparison is answered while guests read what is not in memory")
    func diffBesideReads() throws {
        let store = try SmallStore(nodeFrames: 64)
        let leaves = UInt64(300)
        try store.create("disk", blocks: leaves * 256)
        for leaf in 0..<leaves { try store.write("disk", leaf * 256..<leaf * 256 + 1) }
        try store.checkpoint()
        let buffer = BlockBuffer()
        let segment = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        defer { segment.deallocate() }
        segment.initialize(to: DataSegment(base: buffer.base, count: blockBytes))
        let identifier = try #require(store.vdis["disk"])
        let handle = try store.handle("disk")
        var random = SeededRandom(seed: 3)
        store.mislead { $0.submit(diff: DiffQuery(old: nil, new: .head(identifier)), ticket: 1) }
        var reads = 0
        for turn in 0... {
            while store.look({ $0.requests.usedCount }) < 8 {
                let leaf = UInt64(random.index(below: Int(leaves)))
                store.mislead {
                    $0.submit(
                        BlockRequest(
                            operation: .read, vdi: handle, session: 1, tag: UInt32(reads),
                            firstSector: leaf * 256 * UInt64(sectorsPerBlock),
                            sectorCount: UInt64(sectorsPerBlock),
                            segments: UnsafePointer(segment), segmentCount: 1))
                }
                reads += 1
            }
            _ = try store.turn { _ in false }
            while store.mislead(0, { $0.nextReply() }) != nil {}
            if store.mislead(0, { $0.nextDiffReply() }) != nil { break }
            try #require(turn < 20_000, "no answer after \(reads) reads")
        }
        #expect(reads > 100)
    }

    /// The heads let go of the nodes that a checkpoint has written, and so do the snapshots.
    @Test("snapshots that are made during a checkpoint hold no nodes in memory after it")
    func snapshotsDuringCheckpoint() throws {
        let store = try SmallStore()
        let disks = (0..<20).map { "disk\($0)" }
        for disk in disks {
            try store.create(disk)
            try store.write(disk, 0..<1)
        }
        store.mislead { $0.requestCheckpoint() }
        var syncs: [StoreCommand] = []
        while store.look({ $0.checkpoint.phase != .durable }) {
            syncs += try store.turn { $0 == .sync }
        }
        for (index, disk) in disks.enumerated() {
            let identifier = try #require(store.vdis[disk])
            let change = CatalogChange.snapshot(
                identifier, SnapshotDetails(name: "now"), createdAtNanoseconds: 1, group: 0)
            store.mislead { $0.submit(change: change, ticket: UInt64(1000 + index)) }
        }
        for _ in 0..<20 { syncs += try store.turn { $0 == .sync } }
        #expect(store.look { $0.catalog.versions.count } >= disks.count)
        for sync in syncs { try store.carryOut(sync) }
        while store.look({ $0.checkpoint.phase != .idle }) { _ = try store.turn { _ in false } }
        #expect(store.census().problems == [])
    }

    @Test("a checkpoint takes two syncs, one for its blocks and one for its root")
    func syncs() throws {
        let store = try SmallStore()
        try store.create("disk")
        try store.write("disk", 0..<10)
        try store.flush("disk")
        let before = store.statistics
        try store.checkpoint()
        #expect(store.statistics.checkpoints == before.checkpoints + 1)
        #expect(store.statistics.syncs == before.syncs + 2)
    }

    @Test("cleaning to a goal ends when the engine has failed, and does not begin after it")
    func cleaningAfterFailure() throws {
        let store = try CheckTests.makeStore()
        store.startCleaning()
        #expect(store.look { $0.isCleaningToGoal })
        store.device.faults.syncErrorOneIn = 1
        try store.write("gold", 500..<501)
        try store.flush("gold")
        #expect(store.look { $0.failure != nil })
        #expect(store.look { !$0.isCleaningToGoal })
        store.startCleaning()
        #expect(store.look { !$0.isCleaningToGoal })
    }

    @Test("there is no room for the snapshots whose records are on their way")
    func namedSnapshots() {
        let table = VersionTable(nextSequence: 1)
        let hasRoomForOne = table.hasRoom(besides: Limits.snapshotsPerStream - 1)
        let hasRoomForMore = table.hasRoom(besides: Limits.snapshotsPerStream)
        #expect(hasRoomForOne && !hasRoomForMore)
    }
}
