// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("The repair of a store")
struct RepairTests {
    private func check(_ medium: some StoreMedium) -> CheckReport { SmallStore.check(medium) }

    private func repair(
        _ device: SimulatedDevice, of store: SmallStore
    ) throws -> SmallStore.Repaired { try store.repair(device) }

    /// What may remain: blocks and nodes that report an error.
    private func isClean(_ report: CheckReport) -> Bool {
        report.findings.allSatisfy { $0.structure == .data || $0.structure == .node }
    }

    @Test("a store without damage is left alone")
    func clean() throws {
        let store = try CheckTests.makeStore()
        let writes = store.device.statistics.writes
        let repair = try StoreRepair(medium: store.device, options: SmallStore.checkOptions)
        try repair.apply()
        #expect(!repair.isNeeded)
        #expect(store.device.statistics.writes == writes)
    }

    @Test(
        "whatever block is damaged: after a repair the check is clean, and what can be read is right",
        arguments: [false, true])
    func everyBlock(isCleaned: Bool) throws {
        let store = try CheckTests.makeStore()
        if isCleaned { try store.clean() }
        let superblock = try Store.inspect(medium: store.device).superblock
        let end = Superblock.firstExtentOffset + UInt64(superblock.slotCount) * (1 << 20)
        let offsets = store.device.touchedPages.map { $0 * 4096 }.filter { $0 < end }.sorted()
        var repaired = 0
        for offset in offsets {
            let device = store.device.copy()
            device.rot(at: offset + offset / 4096 * 37 % 4092, bit: 5)
            guard check(device).severity != nil else { continue }
            let result = try repair(device, of: store)
            repaired += 1
            #expect(isClean(result.after), "\(offset): \(result.after.findings)")
            #expect(result.found.wrong == [], "\(offset): \(result.before.findings)")
            #expect(result.found.missing == [], "\(offset): \(result.before.findings)")
            if result.after.severity == nil {
                #expect(result.found.unreadable == [], "\(offset): \(result.before.findings)")
            } else {
                #expect(result.found.unreadable != [], "\(offset): \(result.after.findings)")
                #expect(covers(result.after.losses, result.found.unreadable))
            }
        }
        #expect(repaired > 60)
    }

    /// Whether all of `unreadable` ("vdi@snapshot:block") is in the list of what is lost.
    private func covers(_ losses: [CheckLoss], _ unreadable: [String]) -> Bool {
        unreadable.allSatisfy { text in
            let parts = text.split(separator: ":")
            let block = UInt64(parts[1]) ?? 0
            return losses.contains { loss in
                let name = loss.vdiName + (loss.snapshotName.map { "@\($0)" } ?? "")
                return name == parts[0] && loss.firstBlock <= block
                    && block < loss.firstBlock + loss.blockCount
            }
        }
    }

    @Test("a damaged block of data is listed for every disk and snapshot that has it")
    func damagedData() throws {
        let store = try CheckTests.makeStore()
        // Block 2 was written once, before the snapshots and the clone.
        let clean = check(store.device)
        let offset = try #require(store.offset(of: 2, in: "gold"))
        store.device.rot(at: offset, bit: 1)
        let report = check(store.device)
        #expect(clean.severity == nil)
        #expect(report.severity == .loss)
        let names = report.losses.map { $0.vdiName + ($0.snapshotName.map { "@\($0)" } ?? "") }
        #expect(names.sorted() == ["copy", "gold", "gold@first", "gold@second"])
        #expect(report.losses.allSatisfy { $0.firstBlock == 2 && $0.blockCount == 1 })
        #expect(report.findings.map(\.structure) == [.data])
    }

    @Test("of more losses than can be listed the rest is counted; heads and snapshots apart")
    func manyLosses() throws {
        let store = try CheckTests.makeStore()
        for block in [2, 4, 6] as [UInt64] {
            store.device.rot(at: try #require(store.offset(of: block, in: "gold")), bit: 1)
        }
        let all = check(store.device).losses
        var options = SmallStore.checkOptions
        options.lossesKept = 2
        let report = StoreCheck.run(medium: store.device, options: options)
        #expect(report.losses.count(where: { $0.snapshotName == nil }) == 2)
        #expect(report.losses.count(where: { $0.snapshotName != nil }) == 2)
        #expect(report.lossesLeftOut == all.count - 4)
        #expect(report.losses.allSatisfy(all.contains))
    }

    @Test("a log whose middle is damaged is cut there, and what is lost is listed")
    func cutLog() throws {
        let store = try CheckTests.makeStore()
        let offsets = try store.writeSingly("gold", 200..<206)
        store.device.rot(at: offsets[2] + 100, bit: 3)
        let report = check(store.device)
        #expect(report.severity == .loss)
        #expect(report.findings.map(\.structure) == [.log])
        #expect(Set(report.losses.map(\.firstBlock)) == [203, 204, 205])
        #expect(report.losses.allSatisfy { $0.reason == .log && $0.vdiName == "gold" })
        let result = try repair(store.device, of: store)
        #expect(result.after.severity == nil)
        let lost = (202..<206).map { "gold:\($0)" }
        #expect(result.found == SmallStore.Comparison(wrong: lost))
    }

    @Test(
        "a cut with many flushed chunks behind it, in the next extent as well: repaired, and the log goes on",
        arguments: [(40, 2), (200, 2), (200, 100)])
    func cutLongLog(writes: UInt64, cut: UInt64) throws {
        let store = try CheckTests.makeStore()
        let first: UInt64 = 1000
        let offsets = try store.writeSingly("gold", first..<first + writes)
        store.device.rot(at: offsets[Int(cut)] + 100, bit: 3)
        store.forget("gold", first + cut..<first + writes)
        #expect(check(store.device).findings.map(\.structure) == [.log])
        let result = try repair(store.device, of: store)
        #expect(result.after.severity == nil, "\(result.after.findings)")
        // It serves, and what it writes now is found by the next opening.
        try store.open()
        try store.write("gold", first..<first + 20)
        try store.flush("gold")
        try store.open()
        #expect(check(store.device).findings == [])
        #expect(try store.compare(within: 0..<first + writes) == SmallStore.Comparison())
    }

    @Test("damaged data in the log cost those blocks, and nothing that was written later")
    func damagedPayload() throws {
        let store = try CheckTests.makeStore()
        let offsets = try store.writeSingly("gold", 200..<206)
        store.device.rot(at: offsets[2] + 4096 + 100, bit: 3)
        #expect(check(store.device).severity == .loss)
        let result = try repair(store.device, of: store)
        #expect(isClean(result.after))
        #expect(result.found == SmallStore.Comparison(unreadable: ["gold:202"]))
    }

    @Test("both superblocks, or both roots, damaged: not repaired, and said so")
    func beyondRepair() throws {
        let store = try CheckTests.makeStore()
        let roots = (0..<2).flatMap { Superblock.checkpointRootOffsets(stream: 0, copy: $0) }
        for pair in [Superblock.copyOffsets, roots] {
            let device = store.device.copy()
            for offset in pair { device.rot(at: offset + 90, bit: 0) }
            #expect(check(device).severity == .unreadable)
            let writes = device.statistics.writes
            #expect(throws: StoreError.self) {
                _ = try StoreRepair(medium: device, options: SmallStore.checkOptions)
            }
            #expect(device.statistics.writes == writes)
        }
    }

    @Test(
        "a sector that cannot be read where the log would go on is told, and a repair writes there")
    func unreadableEnd() throws {
        let store = try CheckTests.makeStore()
        let last = try store.writeSingly("gold", 208..<210)[1]
        store.device.crash(.processLoss)
        store.device.spoil(at: last + UInt64(2 * blockBytes))
        #expect(throws: StoreError.self) { try store.open() }
        let report = check(store.device)
        #expect(report.severity == .repairable && report.findings.map(\.structure) == [.log])
        let result = try repair(store.device, of: store)
        #expect(result.after.severity == nil)
        #expect(result.found == SmallStore.Comparison())
    }

    /// No later opening replays what is in front of the repair.
    @Test("what a failed sync may have lost is written again by a repair", arguments: 1...8)
    func failedSync(seed: UInt64) throws {
        let store = try SmallStore()
        store.device.random = SeededRandom(seed: seed)
        try store.create("disk")
        try store.write("disk", 0..<50)
        try store.checkpoint()
        try store.write("disk", 20..<90)
        try store.dieOfFailedSync("disk")
        let root = store.look { $0.checkpoint.root }
        store.device.rot(at: root.byteOffsets[0] + 100, bit: 3)
        #expect(check(store.device).severity == .repairable)
        #expect(try repair(store.device, of: store).found == SmallStore.Comparison())
        store.device.crash(.powerLoss)
        try store.open()
        #expect(try store.compare() == SmallStore.Comparison())
    }

    @Test("a crash at any moment of a repair leaves a store that can be repaired")
    func crash() throws {
        let store = try CheckTests.makeStore()
        let offset = Superblock.checkpointRootOffsets(stream: 0, copy: 0)[0]
        for commandCount in stride(from: 0, to: 60, by: 2) {
            let device = store.device.copy()
            device.rot(at: offset + 40, bit: 0)
            let repair = try StoreRepair(medium: device, options: SmallStore.checkOptions)
            device.commandsUntilStop = commandCount
            _ = try? repair.apply()
            device.crash(.powerLoss)
            device.commandsUntilStop = nil
            // What was repairable has not become a loss.
            let cut = check(device)
            #expect(
                cut.severity ?? .repairable == .repairable, "\(commandCount): \(cut.findings)")
            let result = try self.repair(device, of: store)
            #expect(result.after.severity == nil)
            #expect(result.found == SmallStore.Comparison())
        }
    }
}
