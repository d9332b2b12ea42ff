// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("Checkpoint roots")
struct RootTests {
    /// The sync behind the root's write fails, so the host will never write what it shows from then on.
    /// The daemon ends, and the next one believes the root and lets go of what the one before needs.
    @Test("a root that only the host's cache has is durable after the next opening")
    func rootInCache() throws {
        var dropped = 0
        for seed in UInt64(1)...16 {
            let store = try SmallStore()
            try store.create("disk")
            try store.write("disk", 0..<300)
            store.device.random = SeededRandom(seed: seed)
            let written = try store.failBehindRoot()
            guard store.device.statistics.dropped > 0 else { continue }
            dropped += 1
            store.device.crash(.processLoss)
            try store.open()
            store.device.crash(.powerLoss)
            let root = store.rootOnDevice(written & 1)
            #expect(root?.sequence == written, "seed \(seed)")
            try store.open()
            let found = try store.compare()
            #expect(found == SmallStore.Comparison(), "seed \(seed)")
        }
        #expect(dropped > 0)
    }

    /// What the first of two openings has written may be in the host's cache only.
    @Test("a superblock is left when one opening dies, and the power fails during the next")
    func superblocks() throws {
        for seed in UInt64(1)...64 {
            for (first, second) in (0..<64).map({ ($0 / 8, $0 % 8) }) {
                let device = try SmallStore().device
                device.random = SeededRandom(seed: seed)
                device.commandsUntilStop = first
                _ = try? Store.open(medium: device)
                device.crash(.processLoss)
                device.commandsUntilStop = second
                _ = try? Store.open(medium: device)
                device.crash(.powerLoss)
                device.commandsUntilStop = nil
                let generation = try? Store.inspect(medium: device).superblock.generation
                #expect(generation != nil, "seed \(seed), stops after \(first) and \(second)")
            }
        }
    }

    /// What the newer checkpoint has forgotten, the older still knows. A snapshot must not have taken its
    /// place by then, or a replay from the older one has no place for it.
    @Test("snapshots are whole in a replay from the older root, when the newer has rotted")
    func olderRoot() throws {
        let store = try storeWithSnapshot()
        // Again after an opening, which finds free rows.
        for name in ["first", "second"] {
            try store.deleteSnapshot(name == "first" ? "disk@old" : "disk@first")
            try store.checkpoint()
            if name == "second" { try store.open() }
            try store.snapshot("disk", name)
            try store.write("disk", 100..<120)
            try store.flush("disk")
            try expectWhole(store, "\(name)")
            try store.checkpoint()
        }
    }

    /// The last row has nothing in it when the store is opened, so that no record says that there is one.
    @Test("a row is not used again after an opening while the root before knows something in it")
    func lastRow() throws {
        let store = try storeWithSnapshot()
        try store.deleteSnapshot("disk@old")
        try store.checkpoint()
        try store.open()
        try store.snapshot("disk", "new")
        try store.flush("disk")
        try expectWhole(store, "new")
    }

    /// What the root before needs has been given away: nothing may lead back to it.
    @Test(
        "a newest root that has rotted in one of its places is still the newest", arguments: [0, 1])
    func twin(place: Int) throws {
        let store = try storeWithSnapshot()
        let root = store.look { $0.checkpoint.root }
        store.device.crash(.powerLoss)
        store.device.rot(at: root.byteOffsets[place] + 100, bit: 3)
        try store.open()
        #expect(store.look { $0.checkpoint.root.sequence } == root.sequence)
        // It is whole again.
        store.device.crash(.powerLoss)
        store.device.rot(at: root.byteOffsets[1 - place] + 100, bit: 3)
        try store.open()
        #expect(store.look { $0.checkpoint.root.sequence } == root.sequence)
        #expect(try store.compare() == SmallStore.Comparison())
    }

    @Test("a root that the device does not read is not taken for one that was never written")
    func unreadable() throws {
        let store = try storeWithSnapshot()
        let root = store.look { $0.checkpoint.root }
        store.device.crash(.powerLoss)
        for offset in root.byteOffsets { store.device.spoil(at: offset) }
        #expect(throws: StoreError.self) { try store.open() }
    }

    /// A disk with the snapshot `old`, in a checkpoint.
    private func storeWithSnapshot() throws -> SmallStore {
        let store = try SmallStore()
        try store.create("disk")
        try store.write("disk", 0..<100)
        try store.snapshot("disk", "old")
        try store.write("disk", 0..<100)
        try store.checkpoint()
        return store
    }

    /// Opens the store after a loss of power and the rot of its newest root, and compares it with the model.
    private func expectWhole(_ store: SmallStore, _ comment: Comment) throws {
        let root = store.look { $0.checkpoint.root }
        store.device.crash(.powerLoss)
        for offset in root.byteOffsets { store.device.rot(at: offset + 100, bit: 3) }
        try store.open()
        #expect(store.look { $0.checkpoint.root.sequence } == root.sequence - 1, comment)
        #expect(try store.compare() == SmallStore.Comparison(), comment)
    }
}

extension SmallStore {
    /// Makes a checkpoint of which the last sync fails. Its sequence.
    fileprivate func failBehindRoot() throws -> UInt64 {
        let engine = engines[0]
        engine.engine.requestCheckpoint()
        for _ in 0..<300 where engine.engine.checkpoint.phase != .rootDurable { step() }
        let phase = engine.engine.checkpoint.phase
        try #require(phase == .rootDurable)
        device.faults.syncErrorOneIn = 1
        for _ in 0..<300 where engine.engine.failure == nil { step() }
        device.faults = .none
        let failure = engine.engine.failure
        try #require(failure != nil)
        return engine.engine.checkpoint.next.sequence
    }

    fileprivate func rootOnDevice(_ copy: UInt64) -> CheckpointRoot? {
        let block = BlockBuffer()
        let offsets = Superblock.checkpointRootOffsets(stream: 0, copy: Int(copy))
        device.peek(at: offsets[0], into: block.bytes)
        return CheckpointRoot.decode(
            from: block.base, uuid: StoreUUID(high: 7, low: 9), stream: 0)
    }
}
