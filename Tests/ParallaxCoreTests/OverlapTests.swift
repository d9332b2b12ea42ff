// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// Requests that are in flight over the same blocks, or beside a change of the disk.
@Suite("What overlaps")
struct OverlapTests {
    /// Memory that outlives the requests.
    private final class Guest {
        let store: SmallStore
        let handle: UInt32
        private let memory = BlockBuffer(blocks: 256)
        private let segments = UnsafeMutablePointer<DataSegment>.allocate(capacity: 4096)
        private var tag: UInt32 = 0
        private(set) var answered: Set<UInt32> = []
        private(set) var inFlight = 0
        private var chunks: [StoreCommand] = []

        init(_ store: SmallStore, _ vdi: String) throws {
            self.store = store
            handle = try store.handle(vdi)
        }

        deinit { segments.deallocate() }

        func submit(
            _ operation: BlockRequest.Operation, sectors: Range<UInt64>, stamp: UInt8 = 0
        ) -> UInt32 {
            let bytes = sectors.count * sectorBytes
            let hasData = operation == .read || operation == .write
            if hasData { memset(memory.base, Int32(stamp), bytes) }
            (segments + Int(tag)).initialize(to: DataSegment(base: memory.base, count: bytes))
            store.engines[0].engine.submit(
                BlockRequest(
                    operation: operation, vdi: handle, session: 1, tag: tag,
                    firstSector: sectors.lowerBound, sectorCount: UInt64(sectors.count),
                    segments: hasData ? UnsafePointer(segments + Int(tag)) : nil,
                    segmentCount: hasData ? 1 : 0))
            inFlight += 1
            tag += 1
            return tag - 1
        }

        func takeAnswers() {
            while let reply = store.engines[0].engine.nextReply() {
                #expect(reply.status == .ok)
                answered.insert(reply.tag)
                inFlight -= 1
            }
        }

        func step() {
            store.step()
            takeAnswers()
        }

        /// A turn on a device that ends what it had in flight only when there is more in the next chunk.
        func stepInPipeline() throws {
            try carryOutChunks()
            chunks = try store.turn(holding: { $0 == .chunk })
            let engine = store.engines[0]
            while engine.engine.wantedExtents > 0 {
                engine.engine.noteExtentRequested()
                engine.engine.supplyExtent(store.slots.allocate())
            }
            takeAnswers()
        }

        private func carryOutChunks() throws {
            for chunk in chunks { try store.carryOut(chunk) }
            chunks = []
        }

        func finish() throws {
            try carryOutChunks()
            for _ in 0..<100 where inFlight > 0 { step() }
            #expect(inFlight == 0)
        }

        /// The first byte of each sector.
        func read(block: UInt64) -> [UInt8] {
            let tag = submit(.read, sectors: block * 8..<block * 8 + 8)
            for _ in 0..<100 where !answered.contains(tag) { step() }
            #expect(answered.contains(tag))
            return (0..<8).map {
                memory.base.load(fromByteOffset: $0 * sectorBytes, as: UInt8.self)
            }
        }
    }

    @Test("a write of some sectors is answered, however many writes of its block follow it")
    func sectorsBesideBlocks() throws {
        let store = try SmallStore()
        try store.create("disk")
        let guest = try Guest(store, "disk")
        for _ in 0..<4 {
            _ = guest.submit(.write, sectors: 40..<48)
            try guest.stepInPipeline()
        }
        let sector = guest.submit(.write, sectors: 41..<42)
        for _ in 0..<200 where !guest.answered.contains(sector) {
            _ = guest.submit(.write, sectors: 40..<48)
            try guest.stepInPipeline()
        }
        #expect(guest.answered.contains(sector))
        try guest.finish()
    }

    /// With a log that is full all the time it waits for its place there, too.
    @Test(
        "a large write is answered, however many writes of some sectors go on within it",
        arguments: [false, true])
    func blocksBesideSectors(logIsFull: Bool) throws {
        let store = try SmallStore(sizeBytes: 100 << 20)
        store.configuration.maxChunksInFlight = 1
        try store.open()
        try store.create("disk")
        let guest = try Guest(store, "disk")
        var block: UInt64 = 0
        var others: Set<UInt32> = []
        func submitSector() throws {
            block = (block + 1) % 200
            _ = guest.submit(.write, sectors: block * 8 + 1..<block * 8 + 2)
            while logIsFull && others.subtracting(guest.answered).count < 4 {
                others.insert(guest.submit(.write, sectors: 4096..<6096))
            }
            try guest.stepInPipeline()
        }
        for _ in 0..<4 { try submitSector() }
        let large = guest.submit(.write, sectors: 0..<1600)
        for _ in 0..<40 where !guest.answered.contains(large) { try submitSector() }
        #expect(guest.answered.contains(large))
        try guest.finish()
    }

    @Test("a discard of a huge disk goes on without waiting for anything")
    func hugeDiscard() throws {
        let store = try SmallStore()
        try store.create("disk", blocks: 64 << 16)
        // One leaf under each node of the level above.
        for node in UInt64(0)..<64 { try store.write("disk", node << 16..<(node << 16) + 1) }
        let guest = try Guest(store, "disk")
        let discard = guest.submit(.discard, sectors: 0..<64 << 19)
        var turns = 0
        for _ in 0..<1000 where !guest.answered.contains(discard) {
            _ = try store.turn(holding: { _ in false })
            if store.look({ !$0.unissued.isEmpty && $0.parts.freeCount > 0 }) {
                #expect(store.look { $0.wantsTurn })
                turns += 1
            }
            guest.takeAnswers()
        }
        #expect(guest.answered.contains(discard) && turns > 0)
    }

    /// The head has 512 blocks, the snapshot 1024, with something in the last 512.
    private func makeShrunk() throws -> (SmallStore, VDIIdentifier, SnapshotIdentifier) {
        let store = try SmallStore()
        try store.create("disk", blocks: 1024)
        try store.write("disk", 512..<1024)
        try store.snapshot("disk", "large")
        let disk = try #require(store.vdis["disk"])
        let snapshot = try #require(store.snapshots["disk@large"])
        try #require(try change(store, [.resize(disk, sizeBytes: 512 << 12)]))
        return (store, disk, snapshot)
    }

    private func change(_ store: SmallStore, _ changes: [CatalogChange]) throws -> Bool {
        let engine = store.engines[0]
        for (index, change) in changes.enumerated() {
            engine.engine.submit(change: change, ticket: UInt64(1000 + index))
        }
        var results: [Bool] = []
        for _ in 0..<1000 where results.count < changes.count {
            store.step()
            while let reply = engine.engine.nextChangeReply() {
                results.append((try? reply.result.get()) != nil)
            }
        }
        return results == changes.map { _ in true }
    }

    @Test("what lies behind the end goes, although the disk was made larger a moment before")
    func resizeBehindRollback() throws {
        let (store, disk, snapshot) = try makeShrunk()
        let isDone = try change(
            store,
            [
                .rollback(disk, to: snapshot, keeping: nil, createdAtNanoseconds: 5),
                .resize(disk, sizeBytes: 768 << 12), .resize(disk, sizeBytes: 1024 << 12),
            ])
        #expect(isDone)
        let guest = try Guest(store, "disk")
        #expect(guest.read(block: 767) != [UInt8](repeating: 0, count: 8))
        #expect(guest.read(block: 768) == [UInt8](repeating: 0, count: 8))
        #expect(guest.read(block: 1023) == [UInt8](repeating: 0, count: 8))
    }

    @Test("a write of some sectors beside a rollback changes what the rollback has brought")
    func sectorsBehindRollback() throws {
        let store = try SmallStore()
        try store.create("disk")
        let guest = try Guest(store, "disk")
        func write(_ stamp: UInt8) {
            _ = guest.submit(.write, sectors: 0..<8, stamp: stamp)
            for _ in 0..<100 where guest.inFlight > 0 { guest.step() }
        }
        write(1)
        try store.snapshot("disk", "old")
        write(2)
        let disk = try #require(store.vdis["disk"])
        let snapshot = try #require(store.snapshots["disk@old"])
        store.engines[0].engine.submit(
            change: .rollback(
                disk, to: snapshot, keeping: nil, createdAtNanoseconds: 5),
            ticket: 1000)
        var chunks: [StoreCommand] = []
        for _ in 0..<20 where chunks.isEmpty {
            chunks = try store.turn(holding: { $0 == .chunk })
        }
        try #require(chunks.count == 1)
        _ = guest.submit(.write, sectors: 3..<4, stamp: 3)
        for _ in 0..<5 { _ = try store.turn(holding: { $0 == .chunk }) }
        try store.carryOut(chunks[0])
        for _ in 0..<100 where guest.inFlight > 0 { guest.step() }
        #expect(guest.read(block: 0) == [1, 1, 1, 3, 1, 1, 1, 1])
    }
}
