// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("The scrub of a store")
struct ScrubTests {
    @Test("reads everything that lives once, at its rate, and finds nothing in a whole store")
    func whole() throws {
        let store = try CheckTests.makeStore()
        let live = store.liveOffsets().count
        store.startScrub(bytesPerSecond: 64 << 20)
        let status = try store.finishScrub()
        #expect(status.isFinished && status.passes == 1)
        #expect(status.damagedBlocks == 0)
        #expect(status.verifiedBlocks == UInt64(live))
        #expect(store.scrubFindings() == [])
    }

    @Test("never reads faster than it may")
    func rate() throws {
        let store = try CheckTests.makeStore()
        store.startScrub(bytesPerSecond: 1 << 20)
        // A turn is a millisecond.
        for _ in 0..<500 { store.step() }
        let read = store.scrubbedBytes
        #expect(read > 0)
        #expect(read <= (1 << 20) / 2 + UInt64(2 * Scrubber.pieceBlocks * blockBytes))
    }

    @Test("a slow one gets on however fast turns follow each other")
    func slow() throws {
        let store = try CheckTests.makeStore()
        store.startScrub(bytesPerSecond: 4096)
        // Ten seconds in turns of 20 microseconds, in each of which a twelfth of a byte may be read.
        for _ in 0..<500_000 { store.mislead { $0.turn(nowNanoseconds: $0.now + 20_000) } }
        store.step()
        store.step()
        #expect(store.scrubbedBytes > 0)
    }

    @Test("a damaged block that very many have is told with some of them, and how many there are")
    func manyOwners() throws {
        let store = try CheckTests.makeStore()
        for number in 0..<40 { try store.snapshot("gold", "s\(number)") }
        let offset = try #require(store.offset(of: 2, in: "gold"))
        store.device.rot(at: offset, bit: 1)
        store.startScrub(bytesPerSecond: 64 << 20)
        _ = try store.finishScrub()
        // gold, copy, two snapshots of before, and these.
        let text = store.scrubFindings().first ?? ""
        #expect(text.contains(" and 28 more is damaged"), "\(text)")
    }

    @Test("goes on from where it was interrupted, in another opening as well")
    func resumes() throws {
        let store = try CheckTests.makeStore()
        store.startScrub(bytesPerSecond: 64 << 20)
        for _ in 0..<6 { store.step() }
        store.stopScrub()
        for _ in 0..<3 { store.step() }
        let middle = store.scrubStatus
        #expect(!middle.isRunning && !middle.isFinished)
        try store.checkpoint()
        try store.open()
        store.startScrub(bytesPerSecond: 64 << 20, from: middle)
        let end = try store.finishScrub()
        #expect(end.isFinished)
        #expect(end.verifiedBlocks >= middle.verifiedBlocks)
        #expect(end.lastLog == middle.lastLog)
    }

    @Test("goes through the extents in the order of their numbers, each of them once")
    func order() throws {
        let store = try CheckTests.makeStore()
        try store.clean()
        try store.write("gold", 0..<40)
        let numbers = store.look { engine in
            (0..<engine.forest.extents.count).map { engine.forest.extents[$0].number.rawValue }
        }
        store.startScrub(bytesPerSecond: 256 << 20)
        var positions: [UInt64] = []
        while store.scrubStatus.isRunning {
            if positions.last != store.scrubStatus.position {
                positions.append(store.scrubStatus.position)
            }
            store.step()
            try #require(positions.count < 1000)
        }
        #expect(positions == [0] + numbers.sorted())
        #expect(numbers.count > 4)
    }

    @Test("none is missed, and none comes twice, whatever is removed while they are collected")
    func removedExtents() {
        var random = SeededRandom(seed: 5)
        for _ in 0..<50 {
            var table = ExtentTable(slotCount: 500, extentBlocks: 256)
            var old: [UInt64] = []
            for slot in UInt32(0)..<300 {
                let base = slot % 3 == 0 ? ExtentNumber.firstCold.rawValue : 1
                old.append(base + UInt64(slot) * 7_919 % 300)
                table.insert(ExtentNumber(old[Int(slot)]), slot: ExtentSlot(slot), state: .sealed)
            }
            var ahead = ScrubExtents()
            ahead.begin(table)
            var inserted = 0
            while ahead.isCollecting {
                ahead.collect(from: table, limit: 1 + random.index(below: 20)) {
                    $0.isCold || $0.rawValue <= 300
                }
                for _ in 0..<random.index(below: 20) where !old.isEmpty {
                    table.remove(ExtentNumber(old.remove(at: random.index(below: old.count))))
                }
                if random.index(below: 3) == 0, inserted < 200 {
                    let slot = ExtentSlot(UInt32(300 + inserted))
                    table.insert(ExtentNumber(UInt64(1000 + inserted)), slot: slot, state: .leased)
                    inserted += 1
                }
            }
            var popped: [UInt64] = []
            while let next = ahead.popLeast() { popped.append(next.rawValue) }
            #expect(popped == Set(popped).sorted())
            #expect(Set(popped).isSuperset(of: old))
            #expect(!popped.contains { (1000..<1200).contains($0) })
        }
    }

    @Test("every damaged block is found, moved ones too, and told with all who have it")
    func damage() throws {
        for isCleaned in [false, true] {
            let store = try CheckTests.makeStore()
            if isCleaned { try store.clean() }
            let offset = try #require(store.offset(of: 2, in: "gold"))
            store.device.rot(at: offset, bit: 1)
            store.startScrub(bytesPerSecond: 64 << 20)
            let status = try store.finishScrub()
            #expect(status.damagedBlocks == 1)
            let findings = store.scrubFindings()
            #expect(findings.count == 1)
            let text = findings.first ?? ""
            for name in ["gold", "gold@first", "gold@second", "copy"] {
                #expect(text.contains(name), "\(text)")
            }
            #expect(text.hasPrefix("block 2 "), "\(text)")
        }
    }

    @Test("a flip in any block that lives is found")
    func everyBlock() throws {
        let store = try CheckTests.makeStore()
        for offset in store.liveOffsets().sorted() {
            // A page that was found damaged has been written anew, and others with it.
            guard store.liveOffsets().contains(offset) else { continue }
            store.device.rot(at: offset + 8, bit: 2)
            store.startScrub(bytesPerSecond: 256 << 20)
            let status = try store.finishScrub()
            #expect(status.damagedBlocks == 1, "\(offset)")
            store.device.rot(at: offset + 8, bit: 2)
        }
    }

    @Test("a piece that is still being read when another pass begins is not taken for that pass's")
    func restart() throws {
        let store = try CheckTests.makeStore()
        store.startScrub(bytesPerSecond: 256 << 20)
        var held: StoreCommand?
        while held == nil {
            held = try store.turn { $0 == .scrub && store.scrubStatus.verifiedBlocks > 0 }.first
        }
        store.stopScrub()
        // It goes on with the beginning of the extent.
        store.startScrub(bytesPerSecond: 256 << 20, from: store.scrubStatus)
        try store.carryOut(try #require(held))
        let status = try store.finishScrub()
        #expect(status.damagedBlocks == 0)
        #expect(status.verifiedBlocks >= UInt64(store.liveOffsets().count))
        #expect(store.scrubFindings() == [])
    }

    @Test("nodes and pages that are on their way to the device are not taken for damage")
    func whileCheckpointing() throws {
        let store = try CheckTests.makeStore()
        try store.write("gold", 0..<4)
        store.mislead { $0.requestCheckpoint() }
        store.startScrub(bytesPerSecond: 256 << 20)
        var held: [StoreCommand] = []
        for _ in 0..<200 {
            for command in try store.turn(holding: { $0 == .chunk }) {
                held.append(command)
                // The device has come as far as the header.
                try store.carryOut(command, answers: false, blocks: 1)
            }
        }
        #expect(!held.isEmpty)
        #expect(!store.scrubStatus.isRunning)
        #expect(store.scrubStatus.damagedBlocks == 0)
        for command in held { try store.carryOut(command) }
        #expect(store.scrubFindings() == [])
    }

    @Test("ends with the engine, and does not begin with one that has failed")
    func failedEngine() throws {
        let store = try CheckTests.makeStore()
        store.startScrub(bytesPerSecond: 1 << 20)
        store.step()
        #expect(store.scrubStatus.isRunning)
        store.mislead { $0.fail(StoreError(.device, "The device is gone.")) }
        #expect(!store.scrubStatus.isRunning && !store.scrubStatus.isFinished)
        store.startScrub(bytesPerSecond: 1 << 20)
        #expect(!store.scrubStatus.isRunning)
    }

    @Test("does not take what is being written for damage")
    func whileWriting() throws {
        let store = try CheckTests.makeStore()
        store.startScrub(bytesPerSecond: 256 << 20)
        for round in UInt64(0)..<60 {
            try store.write("gold", round * 5..<round * 5 + 5)
            if round % 20 == 19 { try store.snapshot("gold", "r\(round)") }
        }
        let status = try store.finishScrub()
        #expect(status.damagedBlocks == 0)
        #expect(store.scrubFindings() == [])
    }
}
