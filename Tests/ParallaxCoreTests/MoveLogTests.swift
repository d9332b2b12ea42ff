// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("Moves in the log")
struct MoveLogTests {
    /// Half of what was written is dead, in extents that a checkpoint knows.
    private func makeStore() throws -> SmallStore {
        let store = try SmallStore()
        try store.create("disk")
        try store.write("disk", 0..<600)
        try store.snapshot("disk", "kept")
        for block in stride(from: UInt64(0), to: 600, by: 2) {
            try store.write("disk", block..<block + 1)
        }
        try store.checkpoint()
        return store
    }

    @Test("what was moved, and given up, between checkpoints is found after a loss of power")
    func powerLoss() throws {
        let store = try makeStore()
        let checkpoints = store.statistics.checkpoints
        store.startCleaning()
        for _ in 0..<3000 where store.statistics.droppedExtents == 0 { store.step() }
        #expect(store.statistics.droppedExtents > 0)
        try store.flush("disk")
        #expect(store.statistics.checkpoints == checkpoints)
        store.device.crash(.powerLoss)
        try store.open()
        #expect(store.statistics.forwardedBlocks > 0)
        let found = try store.compare()
        #expect(found == SmallStore.Comparison())
    }

    @Test("a loss of power at any turn of the cleaner loses nothing", arguments: 1...40)
    func powerLossAtTurn(turn: Int) throws {
        let store = try makeStore()
        store.startCleaning()
        for _ in 0..<turn { store.step() }
        store.device.crash(.powerLoss)
        try store.open()
        let found = try store.compare()
        #expect(found == SmallStore.Comparison())
        try store.clean()
        let cleaned = try store.compare()
        #expect(cleaned == SmallStore.Comparison())
    }

    /// Begins a round of the cleaner; the first two chunks that it writes into one extent.
    private func coldChunks(_ store: SmallStore) throws -> [StoreCommand] {
        store.startCleaning()
        var chunks: [StoreCommand] = []
        for _ in 0..<100 where chunks.count < 2 {
            let commands = try store.turn(holding: { $0 == .clean })
            for command in commands where command.operation != .write {
                try store.carryOut(command)
            }
            if commands.isEmpty, let last = chunks.popLast() { try store.carryOut(last) }
            chunks += commands.filter { $0.operation == .write }
        }
        try #require(chunks.count == 2 && chunks[0].offset < chunks[1].offset)
        return chunks
    }

    /// A checkpoint while chunks are held.
    private func checkpointBeside(_ store: SmallStore) throws {
        let checkpoints = store.statistics.checkpoints
        store.mislead { $0.requestCheckpoint() }
        for _ in 0..<100 where store.statistics.checkpoints == checkpoints {
            _ = try store.turn(holding: { $0 == .clean })
        }
        let isWritten = store.statistics.checkpoints == checkpoints + 1
        #expect(isWritten && store.statistics.movedBlocks == 0)
    }

    private func room(_ store: SmallStore) -> Int {
        store.look { $0.cleaner.room(extentBlocks: $0.superblock.extentBlocks) }
    }

    /// The device refuses the chunk for good.
    private func fail(_ chunk: StoreCommand, in store: SmallStore) throws {
        var left: StoreCommand? = chunk
        while let failing = left {
            store.engines[0].engine.complete(StoreCompletion(tag: failing.tag, result: -5))
            left = try store.turn(holding: { $0 == .clean }).first { $0.offset == chunk.offset }
        }
        let isBroken = store.statistics.isCleanerBroken
        #expect(isBroken)
    }

    /// With no other room to move to, a full store could not be cleaned any more.
    @Test(
        "what a crash leaves of a round has the room that it was begun with",
        arguments: [false, true])
    func roomAfterCrash(firstFails: Bool) throws {
        let store = try makeStore()
        let before = room(store)
        let chunks = try coldChunks(store)
        if firstFails {
            try fail(chunks[0], in: store)
        } else {
            // The second overtakes the first.
            try store.carryOut(chunks[1])
        }
        try checkpointBeside(store)
        store.device.crash(.processLoss)
        try store.open()
        #expect(room(store) >= before)
        try store.clean()
        let cleaned = try store.compare()
        #expect(cleaned == SmallStore.Comparison() && store.statistics.movedBlocks > 0)
    }

    /// The first chunk of a round cannot be written; of the second so many blocks are.
    private func breakColdExtent(_ store: SmallStore, hasSpare: Bool, blocks: Int? = nil) throws {
        let chunks = try coldChunks(store)
        if hasSpare { store.mislead { $0.cleaner.spares.append(ExtentNumber(1)) } }
        try fail(chunks[0], in: store)
        try store.carryOut(chunks[1], blocks: blocks)
        if hasSpare { store.mislead { _ = $0.cleaner.spares.removeLast() } }
    }

    @Test(
        "a cold extent that cannot be written is kept only if it is the last",
        arguments: [false, true])
    func failedColdExtent(isLast: Bool) throws {
        let store = try makeStore()
        let before = room(store)
        try breakColdExtent(store, hasSpare: !isLast)
        let isOpen = store.look { $0.cleaner.isColdOpen }
        #expect(isOpen == isLast)
        #expect(room(store) == (isLast ? before : 0))
    }

    /// From what is in its header nothing was moved; the blocks live where they were.
    @Test("what stands in a cold extent that was given up does not lead a repair astray")
    func unmovedChunk() throws {
        let store = try makeStore()
        try store.clean()
        try store.write("disk", 600..<1200)
        try store.snapshot("disk", "later")
        for block in stride(from: UInt64(600), to: 1200, by: 2) {
            try store.write("disk", block..<block + 1)
        }
        try store.checkpoint()
        try breakColdExtent(store, hasSpare: true, blocks: 10)
        try store.checkpoint()
        for page in store.look({ $0.forest.forwards.pages.map(\.reference) }) {
            store.flip(try store.offset(of: page))
        }
        let result = try store.repair(store.device, within: 0..<1200)
        #expect(result.before.findings.contains { $0.structure == .forwards })
        #expect(result.after.severity == .none && result.found == SmallStore.Comparison())
    }

    /// A replay behind the checkpoint would find the slot in use by somebody else.
    @Test("a cold extent that the checkpoint under way drops is not leased in the log any more")
    func leaseOfDropped() throws {
        let store = try makeStore()
        let isLogged = store.mislead { engine in
            let spare = engine.cleaner.spares[0]
            engine.moveLog.leases = [spare]
            return [[spare], []].map { droppable in
                engine.checkpoint.droppable = droppable
                engine.advanceMoveLog()
                return engine.moveLog.leases.isEmpty
            }
        }
        #expect(isLogged == [false, true])
    }

    @Test("an extent that is emptied again and again is listed once")
    func listedOnce() throws {
        let store = try SmallStore()
        try store.create("disk")
        for _ in 0..<200 {
            try store.write("disk", 0..<1)
            try store.discard("disk", 0..<1)
        }
        let listed = store.look { $0.forest.extents.emptied }
        #expect(Set(listed).count == listed.count)
    }

    @Test("a record that gives up the extent in which it stands is damage")
    func dropOfItself() throws {
        let store = try SmallStore()
        try store.mislead { engine in
            let extent = engine.log.extent.next
            engine.forest.extents.insert(extent, slot: ExtentSlot(20), state: .open)
            #expect(throws: StoreError.self) { try engine.replayDrop(extent, reading: extent) }
            try engine.replayDrop(extent, reading: extent.next)
            let isLeft = engine.forest.extents.contains(extent)
            #expect(!isLeft)
        }
    }

    /// Its lease may be in the log behind the freeze.
    @Test("no slot of a dropped extent is given back between a checkpoint's freeze and its tables")
    func releaseInFreeze() throws {
        let store = try makeStore()
        let isReleased = store.mislead { engine in
            engine.moveLog.drops.append(
                MoveLog.Drop(slot: ExtentSlot(20), lsn: LogSequenceNumber(0)))
            return [Checkpoint.Phase.nodes, .pages, .idle].map { phase in
                engine.checkpoint.phase = phase
                engine.advanceMoveLog()
                return engine.releasing.contains(ExtentSlot(20))
            }
        }
        #expect(isReleased == [false, false, true])
    }

    @Test("the scrub looks at an open cold extent as far as it is on the device")
    func writtenEnd() throws {
        let store = try makeStore()
        try store.clean()
        let ends = store.mislead { engine in
            let open = engine.cleaner.cold.newest
            var ends = [engine.cleaner.writtenEnd(of: open)]
            engine.cleaner.coldChunks[1].state = .writing
            engine.cleaner.coldChunks[1].place = BlockAddress(extent: open, block: 7)
            ends.append(engine.cleaner.writtenEnd(of: open))
            engine.cleaner.coldChunks[1].state = .free
            ends.append(engine.cleaner.writtenEnd(of: ExtentNumber(1)))
            return ends
        }
        let filled = store.look { $0.cleaner.cold.filled }
        #expect(filled > 7 && ends == [filled, 7, nil])
    }

    @Test("an extent is not given up in the log while a replay may need something in it")
    func held() throws {
        var table = ExtentTable(slotCount: 4, extentBlocks: 256)
        var root = CheckpointRoot(
            uuid: StoreUUID(high: 1, low: 2), stream: 0, sequence: 7, generation: 1,
            replayLSN: LogSequenceNumber(100), replayExtent: ExtentNumber(9), replayBlock: 0,
            nodeFrames: 0, nextExtent: ExtentNumber(10), nextVDI: 1, nextSnapshot: 1)
        table.nextCheckpoint = 8
        let number = ExtentNumber(3)
        func isDroppable(_ table: borrowing ExtentTable, _ root: CheckpointRoot) -> Bool {
            guard let extent = table.find(number) else { return false }
            return table.isDroppable(extent, afterCheckpoint: root)
        }
        table.insert(
            number, slot: ExtentSlot(0), state: .sealed, lastLSN: LogSequenceNumber(99))
        for block in 0..<2 { table.addLive(BlockAddress(extent: number, block: block)) }
        table.removeLive(BlockAddress(extent: number, block: 0), isReplayed: true)
        let isLive = isDroppable(table, root)
        #expect(!isLive)
        table.removeLive(BlockAddress(extent: number, block: 1), isReplayed: true)
        let isEmpty = isDroppable(table, root)
        #expect(isEmpty && table.emptied == [number])

        // A node: the checkpoint names it.
        table.addLive(BlockAddress(extent: number, block: 2))
        table.removeLive(BlockAddress(extent: number, block: 2))
        let isHeld = isDroppable(table, root)
        root.sequence = 8
        let isFree = isDroppable(table, root)
        #expect(!isHeld && isFree)

        // A deletion has ended.
        table.nextCheckpoint = 9
        table.holdAll()
        let isAnyFree = isDroppable(table, root)
        root.sequence = 9
        let isFreeAgain = isDroppable(table, root)
        #expect(!isAnyFree && isFreeAgain)

        // The replay goes through it.
        root.replayLSN = LogSequenceNumber(99)
        let isReplayed = isDroppable(table, root)
        #expect(!isReplayed)
    }

    @Test("the rate of decay follows what dies, and does not trust a first look")
    func decay() {
        var decay = ExtentTable.Decay()
        let first = decay.update(live: 1000, clock: 5000)
        #expect(first == .infinity)
        // One block in ten, for a while.
        var rate: Float = 0
        for step in 1...50 {
            rate = decay.update(live: UInt32(1000 - 10 * step), clock: UInt64(5000 + 100 * step))
        }
        #expect(rate > 0.08 && rate < 0.15)
        // Then nothing.
        rate = decay.update(live: 500, clock: 1_000_000)
        #expect(rate < 0.001)
    }

    @Test("records of moves and of extents that are given up come back as they were written")
    func records() {
        let block = BlockBuffer()
        var writer = ByteWriter(
            block.base, capacity: blockBytes, at: ChunkHeader.recordsOffset)
        let to = BlockAddress(extent: ExtentNumber(1 << 39), block: 17)
        writer.put(ChunkRecord.Kind.moves)
        writer.put(UInt8(0))
        writer.put(UInt16(2))
        writer.put(UInt32(0))
        writer.put(to.rawValue)
        writer.put(UInt64(0))
        writer.put(UInt64(99 << 24))
        writer.put(ChunkRecord.Kind.drop)
        writer.put(UInt8(0))
        writer.put(UInt16(0))
        writer.put(UInt32(0))
        writer.put(UInt64(99))
        let length = writer.count - ChunkHeader.recordsOffset
        #expect(length == ChunkRecord.movesFixedBytes + 16 + ChunkRecord.dropBytes)
        var records = ChunkRecordReader(header: block.base, recordBytes: length)
        guard case .moves(let place, let count, let offset) = records.next() else {
            Issue.record("no record of moves")
            return
        }
        #expect(place == to && count == 2)
        let second = block.base.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self)
        #expect(second == 99 << 24)
        guard case .drop(let extent) = records.next() else {
            Issue.record("no record of a drop")
            return
        }
        #expect(extent == ExtentNumber(99))
        let none = records.next()
        #expect(none == nil && !records.isMalformed)
        // Cut off in the middle.
        var short = ChunkRecordReader(
            header: block.base, recordBytes: ChunkRecord.movesFixedBytes + 8)
        let cut = short.next()
        #expect(cut == nil && short.isMalformed)
    }
}
