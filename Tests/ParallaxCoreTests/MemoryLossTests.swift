// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// A guest's memory that turns to zeroes while the engine has requests whose data are in it.
@Suite("Memory that goes")
struct MemoryLossTests {
    private static let blocks: UInt64 = 600
    private static let old: UInt8 = 1
    private static let new: UInt8 = 2

    /// A disk of old bytes, and two kinds of memory: that of the requests, which can go, and our own.
    private final class Scene {
        let store: SmallStore
        let handle: UInt32
        let loss = MemoryLoss.allocate()
        private let guest = BlockBuffer(blocks: 4096)
        private let own = BlockBuffer(blocks: 4096)
        private let segments = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1024)
        private var used = 0
        private var tag = 0
        private(set) var answers: [Int: BlockStatus] = [:]

        init(chunksInFlight: Int = 4) throws {
            store = try SmallStore()
            store.configuration.maxChunksInFlight = chunksInFlight
            try store.open()
            try store.create("disk", blocks: 1024)
            handle = try store.handle("disk")
            _ = submit(.write, 0..<MemoryLossTests.blocks * 8, stamp: old, canGo: false)
            try finish()
            // From here on what is written anew is charged.
            try store.snapshot("disk", "before")
            try limit(to: 4096)
        }

        deinit {
            segments.deallocate()
            loss.deallocate()
        }

        private func limit(to blocks: UInt64) throws {
            let disk = try #require(store.vdis["disk"])
            let attributes = VDIAttributes(quotaBytes: blocks * UInt64(blockBytes))
            store.engines[0].engine.submit(change: .setAttributes(disk, attributes), ticket: 9999)
            for _ in 0..<100 {
                store.step()
                guard let reply = store.engines[0].engine.nextChangeReply() else { continue }
                _ = try reply.result.get()
                return
            }
            Issue.record("a change gets no answer")
        }

        func submit(
            _ operation: BlockRequest.Operation, _ sectors: Range<UInt64>, stamp: UInt8 = 0,
            canGo: Bool = true, loss: MemoryLoss? = nil
        ) -> Int {
            let bytes = sectors.count * sectorBytes
            let memory = (canGo ? guest.base : own.base) + used
            memset(memory, Int32(stamp), bytes)
            used += bytes
            precondition(used <= own.count, "no memory left")
            (segments + tag).initialize(to: DataSegment(base: memory, count: bytes))
            let hasData = operation == .read || operation == .write
            store.engines[0].engine.submit(
                BlockRequest(
                    operation: operation, vdi: handle, session: 1, tag: UInt32(tag),
                    firstSector: sectors.lowerBound, sectorCount: UInt64(sectors.count),
                    segments: hasData ? UnsafePointer(segments + tag) : nil,
                    segmentCount: hasData ? 1 : 0, memoryLoss: loss ?? (canGo ? self.loss : nil)))
            tag += 1
            return tag - 1
        }

        /// What the handler of the signal does.
        func lose() {
            loss.word.storeBytes(of: 1, as: UInt32.self)
            guest.zero()
        }

        func takeAnswers() {
            while let reply = store.engines[0].engine.nextReply() {
                answers[Int(reply.tag)] = reply.status
            }
        }

        func finish() throws {
            for _ in 0..<200 where answers.count < tag {
                store.step()
                takeAnswers()
            }
            try #require(answers.count == tag)
        }

        /// The first byte of each sector.
        func read() throws -> [UInt8] {
            let memory = own.base + used
            let tag = submit(.read, 0..<MemoryLossTests.blocks * 8, stamp: 9, canGo: false)
            try finish()
            #expect(answers[tag] == .ok)
            used -= Int(MemoryLossTests.blocks) * blockBytes
            return (0..<Int(MemoryLossTests.blocks) * 8).map {
                memory.load(fromByteOffset: $0 * sectorBytes, as: UInt8.self)
            }
        }

        /// With the store at rest.
        func openEmptyChunk() throws -> UnsafeMutableRawPointer {
            for _ in 0..<4 {
                try store.checkpoint()
                if let payload = store.engines[0].engine.openChunk() { return payload }
            }
            throw CatalogError.ioError
        }

        /// What requests have of the engine's. Without any it is always the same.
        var held: [Int] {
            store.look { engine in
                [
                    engine.requests.usedCount, engine.parts.usedCount, engine.bounces.usedCount,
                    engine.lockCount, engine.lockedParts.count, engine.partsBehindLocks.count,
                    engine.locked.count, engine.staging.count, engine.starved.count,
                    engine.stagedOperations, engine.loadPermits, engine.epochs.previousCount,
                    Int(engine.catalog.vdis[Int(handle)].pendingCharge),
                ]
            }
        }
    }

    @Test(
        "a request whose memory has gone changes nothing, and leaves nothing behind",
        arguments: [
            (BlockRequest.Operation.write, UInt64(0)..<8), (.write, 1..<3), (.write, 0..<64),
            (.write, 3..<4500), (.discard, 0..<64), (.writeZeroes, 0..<8), (.writeZeroes, 3..<5),
        ])
    func goneBefore(operation: BlockRequest.Operation, sectors: Range<UInt64>) throws {
        let scene = try Scene()
        let idle = scene.held
        scene.lose()
        let request = scene.submit(operation, sectors)
        try scene.finish()
        #expect(scene.answers[request] == .ioError)
        #expect(scene.held == idle)
        #expect(Set(try scene.read()) == [Self.old])

        scene.loss.clear()
        let next = scene.submit(.write, sectors, stamp: 3)
        try scene.finish()
        #expect(scene.answers[next] == .ok)
        let range = Int(sectors.lowerBound)..<Int(sectors.upperBound)
        #expect(try scene.read()[range].allSatisfy { $0 == 3 })
        #expect(scene.held == idle)
        try scene.store.checkpoint()
    }

    @Test("a write of which a part was in the log keeps that part, and has no zeroes in the rest")
    func goneBetween() throws {
        let scene = try Scene(chunksInFlight: 1)
        let idle = scene.held
        let request = scene.submit(.write, 0..<Self.blocks * 8, stamp: Self.new)
        let chunks = try scene.store.turn(holding: { $0 == .chunk })
        try #require(scene.store.look { !$0.staging.isEmpty && $0.stagedOperations > 0 })
        scene.lose()
        for chunk in chunks { try scene.store.carryOut(chunk) }
        try scene.finish()
        #expect(scene.answers[request] == .ioError)
        #expect(scene.held == idle)
        let after = try scene.read()
        #expect(Set(after) == [Self.old, Self.new])

        scene.loss.clear()
        let next = scene.submit(.write, 0..<Self.blocks * 8, stamp: 3)
        try scene.finish()
        #expect(scene.answers[next] == .ok)
        #expect(Set(try scene.read()) == [3])
    }

    @Test("who waits for the lock of one that fails gets it, in turn")
    func goneUnderLock() throws {
        let scene = try Scene()
        let idle = scene.held
        let first = scene.submit(.write, 1..<3, stamp: Self.new)
        let reads = try scene.store.turn(holding: { $0 == .part })
        try #require(reads.count == 1 && scene.store.look { $0.lockCount == 1 })
        let behind = scene.submit(.write, 0..<64, stamp: Self.new)
        let last = scene.submit(.write, 4..<5, stamp: 3, canGo: false)
        try #require(scene.store.look { $0.partsBehindLocks.count == 1 && $0.locked.count == 2 })
        scene.lose()
        try scene.store.carryOut(reads[0])
        try scene.finish()
        #expect(scene.answers[first] == .ioError)
        #expect(scene.answers[behind] == .ioError)
        #expect(scene.answers[last] == .ok)
        #expect(scene.held == idle)
        var expected = [UInt8](repeating: Self.old, count: Int(Self.blocks) * 8)
        expected[4] = 3
        #expect(try scene.read() == expected)
    }

    /// The word lies where the copy goes, so that the loss comes in the middle of it.
    @Test("memory that goes under a copy leaves a chunk with nothing in it, which nobody waits for")
    func goneDuringCopy() throws {
        let scene = try Scene()
        let idle = scene.held
        let payload = try scene.openEmptyChunk()
        memset(payload, 0, 2 * blockBytes)
        let request = scene.submit(
            .write, 0..<16, stamp: Self.new, loss: MemoryLoss(word: payload + blockBytes))
        scene.store.step()
        scene.takeAnswers()
        #expect(scene.answers[request] == .ioError)
        #expect(scene.held == idle)
        #expect(scene.store.look { $0.log.building >= 0 && $0.isIdle })
        #expect(Set(try scene.read()) == [Self.old])

        let next = scene.submit(.write, 0..<16, stamp: 3)
        try scene.finish()
        #expect(scene.answers[next] == .ok)
        #expect(try scene.read()[0..<17] == [UInt8](repeating: 3, count: 16) + [Self.old])
        try scene.store.checkpoint()
    }
}

extension Engine {
    /// The payload of a chunk that is being built and has no records yet; nil: it has leases.
    fileprivate mutating func openChunk() -> UnsafeMutableRawPointer? {
        guard case .open = log.openChunk(extents: &forest.extents),
            log.chunks[log.building].recordBytes == 0, log.chunks[log.building].payloadRoom > 1
        else { return nil }
        return log.chunks[log.building].payload(0)
    }
}
