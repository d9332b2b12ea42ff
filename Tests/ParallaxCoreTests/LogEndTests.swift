// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("The end of the log")
struct LogEndTests {
    @Test("a chunk that a crash has torn does not come back when the next one is torn in its place")
    func tornTwice() throws {
        let store = try CheckTests.makeStore()
        // One of the blocks at which the comparison looks although nothing was written there.
        let chunk = try store.writeSingly("gold", 208..<209)[0]
        let rest = store.device.peek(at: chunk + 512, count: 7 * 512)
        try #require(rest.allSatisfy { $0 == 0 })
        // The first crash: only the first sector is what was written.
        try overwrite(store.device, chunk + 512, with: 0xAA)
        store.forget("gold", 208..<209)
        try store.open()
        #expect(try store.compare() == SmallStore.Comparison())
        // The second: of the next header, all but the first sector, which are zeros.
        try overwrite(store.device, chunk + 512, with: 0)
        try store.open()
        #expect(try store.compare() == SmallStore.Comparison())
    }

    @Test("a later chunk that was written into the missing one says that this had been durable")
    func misdirected() throws {
        let store = try CheckTests.makeStore()
        let chunks = try store.writeSingly("gold", 208..<210)
        let later = store.device.peek(at: chunks[1], count: blockBytes)
        for (offset, block) in [
            (chunks[0] + UInt64(blockBytes), later),
            (chunks[1], [UInt8](repeating: 0, count: blockBytes)),
        ] {
            try block.withUnsafeBytes { try store.device.write(at: offset, from: $0) }
        }
        try store.device.sync()
        let error = #expect(throws: StoreError.self) { try store.open() }
        #expect(error?.message.contains("breaks off") == true)
    }

    @Test("a rotten chunk is missed however much was written before that was known to be durable")
    func distantWitness() throws {
        let store = try SmallStore(sizeBytes: 513 << 20, extentBytes: 16 << 20)
        store.configuration.checkpointIntervalNanoseconds = 1 << 60
        try store.open()
        try store.create("disk")
        try store.write("disk", 0..<1)
        try store.checkpoint()
        let before = Set(store.device.touchedPages)
        try store.write("disk", 1..<2)
        let places = Set(store.device.touchedPages).subtracting(before)
        let handle = try store.handle("disk")
        store.mislead {
            $0.submit(
                BlockRequest(
                    operation: .flush, vdi: handle, session: 1, tag: 2, firstSector: 0,
                    sectorCount: 0, segments: nil, segmentCount: 0))
        }
        var sync: StoreCommand?
        for _ in 0..<10 where sync == nil { sync = try store.turn { $0 == .sync }.first }
        // 8 KiB each, with the header; and the sync takes all that time.
        try store.write("disk", 2..<1202)
        try store.carryOut(try #require(sync))
        store.step()
        let isFlushed = store.mislead { $0.nextReply() != nil }
        #expect(isFlushed)
        try store.write("disk", 1202..<1203)
        store.device.crash(.processLoss)
        store.device.rot(at: try #require(places.min()) * 4096 + 100, bit: 1)
        let error = #expect(throws: StoreError.self) { try store.open() }
        #expect(error?.message.contains("breaks off") == true)
    }

    /// Until the next loss of power a host may show what it will never write.
    @Test("what a failed sync may have lost is written again by the next process", arguments: 1...8)
    func failedSync(seed: UInt64) throws {
        let store = try SmallStore()
        store.device.random = SeededRandom(seed: seed)
        try store.create("disk")
        try store.write("disk", 0..<50)
        try store.flush("disk")
        try store.write("disk", 20..<90)
        try store.dieOfFailedSync("disk")
        try store.open()
        try store.write("disk", 90..<100)
        try store.flush("disk")
        store.device.crash(.powerLoss)
        try store.open()
        #expect(try store.compare() == SmallStore.Comparison())
    }

    /// The rest of the header's block.
    private func overwrite(
        _ device: SimulatedDevice, _ offset: UInt64, with byte: UInt8
    ) throws {
        let sectors = [UInt8](repeating: byte, count: 7 * 512)
        try sectors.withUnsafeBytes { try device.write(at: offset, from: $0) }
        try device.sync()
    }
}
