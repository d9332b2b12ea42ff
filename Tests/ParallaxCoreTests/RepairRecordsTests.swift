// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// Records, books and names that are lost, and what hangs on them.
@Suite("The repair of records and books")
struct RepairRecordsTests {
    @Test(
        "a log that overwrites what the live bits, or an account, do not know of",
        arguments: [0, 1])
    func contradictedReplay(kind: Int) throws {
        let store = try CheckTests.makeStore()
        try store.write("gold", 40..<48)
        let handle = Int(try store.handle("gold"))
        let born = store.look { $0.catalog.vdis[handle].bornBlocks }
        if kind == 1 {
            store.mislead { engine in
                engine.catalog.vdis[handle].bornBlocks = 0
                engine.catalog.touch(handle)
            }
        }
        try store.checkpoint()
        // The engine itself knows better: it must not stop.
        store.engines[0].engine.catalog.vdis[handle].bornBlocks = born
        try store.write("gold", 40..<44)
        try store.flush("gold")
        let page = store.look { $0.forest.extents.livePages.references.first { !$0.isHole } }
        if kind == 0 { store.flip(try store.offset(of: #require(page))) }
        #expect(SmallStore.check(store.device).severity == .repairable)
        let result = try store.repair(store.device)
        #expect(result.after.findings == [])
        #expect(result.found == SmallStore.Comparison())
    }

    @Test(
        "disks whose common snapshot is lost would free each other's blocks: that is not repaired")
    func lostParent() throws {
        let store = try CheckTests.makeStore()
        try store.lose("gold@first")
        let report = SmallStore.check(store.device)
        #expect(report.severity == .loss)
        #expect(report.findings.contains { $0.severity == .loss && $0.structure == .versions })
        let writes = store.device.statistics.writes
        #expect(throws: StoreError.self) {
            _ = try StoreRepair(medium: store.device, options: SmallStore.checkOptions)
        }
        #expect(store.device.statistics.writes == writes)
    }

    @Test("a disk whose snapshot is lost stands alone, if nobody else has its blocks")
    func lostOnlyParent() throws {
        let store = try CheckTests.makeStore()
        try store.create("solo")
        try store.write("solo", 0..<16)
        try store.snapshot("solo", "only")
        try store.write("solo", 8..<12)
        try store.checkpoint()
        try store.lose("solo@only")
        let result = try store.repair(store.device)
        #expect(result.after.findings == [])
        #expect(result.found == SmallStore.Comparison(missing: ["solo@only"]))
        let again = try SmallStore(copying: store, device: store.device)
        try again.write("solo", 0..<16)
        try again.checkpoint()
        #expect(SmallStore.check(store.device).findings == [])
    }

    @Test("the snapshots of a disk whose record is lost get an empty one")
    func lostDisk() throws {
        let store = try CheckTests.makeStore()
        try store.lose("gold")
        // The log still writes to it.
        try store.write("gold", 64..<66)
        try store.flush("gold")
        let report = SmallStore.check(store.device)
        #expect(report.severity == .loss)
        #expect(report.losses.contains { $0.firstBlock == 64 && $0.reason == .log })
        #expect(report.findings.filter { $0.message.contains("not there") }.count == 1)
        store.forget("gold", 0..<320)
        let result = try store.repair(store.device)
        #expect(result.after.findings == [])
        #expect(result.found == SmallStore.Comparison())
        let again = try SmallStore(copying: store, device: store.device)
        let number = try #require(store.vdis["gold"]).rawValue
        #expect(again.mislead { $0.vdis().map(\.name) }.sorted() == ["copy", "lost-\(number)"])
        try again.clone("gold@second", as: "saved")
        try again.write("saved", 0..<4)
        try again.checkpoint()
        #expect(try again.compare() == SmallStore.Comparison())
        #expect(SmallStore.check(store.device).findings == [])
    }

    @Test(
        "what is beneath a damaged node is there when the node can be read again",
        arguments: [false, true])
    func lostNode(isCleaned: Bool) throws {
        let store = try CheckTests.makeStore()
        // In another extent than the node, which the cleaner leaves where it is.
        try store.write("gold", 100..<300)
        try store.checkpoint()
        if isCleaned { try store.clean() }
        let root = store.look { $0.catalog.vdis[0].root }
        let offset = try store.offset(of: root)
        store.flip(offset)
        #expect(Set(try store.repair(store.device).after.findings.map(\.structure)) == [.node])
        let repaired = try SmallStore(copying: store, device: store.device)
        try repaired.create("filler")
        for round in UInt64(0)..<12 {
            try repaired.write("filler", 0..<400)
            if round % 3 == 2 { try repaired.clean() }
        }
        try repaired.checkpoint()
        store.flip(offset)
        let again = try SmallStore(copying: repaired, device: store.device)
        #expect(try again.compare() == SmallStore.Comparison())
        let result = try again.repair(store.device)
        #expect(result.before.severity == .repairable)
        #expect(result.after.findings == [])
    }

    @Test("a page that is lost is known by its number among all, however they are read")
    func pageNumber() throws {
        let store = try CheckTests.makeStore()
        let device = store.device
        let lost = try store.mislead { engine in
            engine.inspection = Inspection()
            var reference = engine.catalog.pages.index[0]
            reference.checksum ^= 1
            _ = try engine.readBlocks(
                [engine.catalog.pages.index[0], reference], from: 5000, engine.checkpoint.root,
                .forwards, medium: device)
            defer { engine.inspection = nil }
            return engine.inspection?.lostForwardPages
        }
        #expect(lost == [5001])
    }

    /// A replay asks for it before it changes what is beneath it.
    @Test("a node whose extent is gone is a loss that a repair writes down")
    func nodeNowhere() throws {
        let store = try CheckTests.makeStore()
        try store.create("lost")
        try store.write("lost", 0..<8)
        try store.checkpoint()
        let handle = Int(try store.handle("lost"))
        let root = store.look { $0.catalog.vdis[handle].root }
        let nowhere = BlockAddress(extent: ExtentNumber(1 << 30), block: root.address.block)
        // In both roots, for a check takes the better one.
        for _ in 0..<2 {
            store.mislead { engine in
                engine.catalog.vdis[handle].root.address = nowhere
                engine.catalog.touch(handle)
            }
            try store.checkpoint()
        }
        store.mislead { $0.catalog.vdis[handle].root = root }
        try store.write("lost", 0..<1)
        try store.flush("lost")
        let result = try store.repair(store.device)
        #expect(result.before.severity == .loss)
        #expect(result.after.findings.map(\.structure) == [.node])
        let found = result.found
        #expect(found.wrong.isEmpty && found.missing.isEmpty)
        #expect(found.unreadable.contains("lost:0"))
        #expect(found.unreadable.allSatisfy { $0.hasPrefix("lost:") })
    }

    @Test("names that nothing uses any more do not come back with a lost page of forwards")
    func staleNames() throws {
        let store = try CheckTests.makeStore()
        try store.create("own")
        try store.makeForwards()
        try store.write("own", 0..<200)
        for block in stride(from: UInt64(0), to: 200, by: 2) {
            try store.write("own", block..<block + 1)
        }
        try store.checkpoint()
        try store.clean()
        // Copies the leaf, which takes up the new places as names.
        try store.write("own", 201..<202)
        try store.checkpoint()
        let page = store.look { $0.forest.forwards.pages.first?.reference }
        store.flip(try store.offset(of: #require(page)))
        let forwards = store.look { $0.forest.forwards.count }
        let result = try store.repair(store.device)
        #expect(result.after.findings == [])
        #expect(result.found == SmallStore.Comparison())
        let again = try SmallStore(copying: store, device: store.device)
        #expect(again.look { $0.forest.forwards.count } == forwards)
        for block in stride(from: UInt64(1), to: 200, by: 4) {
            try again.write("own", block..<block + 1)
        }
        try again.checkpoint()
        try again.clean()
        #expect(try again.compare() == SmallStore.Comparison())
        #expect(SmallStore.check(store.device).findings == [])
    }

    @Test("a name that is taken gets a number, and stays as short as names are")
    func uniqueNames() {
        var names = UniqueNames()
        let long = String(repeating: "ä", count: 50)
        let taken = [long, long, long, "a", "a", "a-7"].map { names.take($0, number: 7) }
        #expect(Set(taken).count == taken.count)
        #expect(taken.allSatisfy { Limits.vdiNameBytes.contains($0.utf8.count) })
        #expect(taken[0] == long && taken[4] == "a-7" && taken[5] == "a-7-7")
    }
}

extension SmallStore {
    /// Both checkpoints are written without the record of the disk, or of the snapshot "vdi@name".
    fileprivate func lose(_ name: String) throws {
        let snapshot = snapshots[name]
        let vdi = vdis[name]
        mislead { engine in
            var owner: RecordOwner?
            var place: (bytes: UInt16, page: UInt32) = (0, 0)
            if let row = snapshot.flatMap({ engine.catalog.versions.row(of: $0) }) {
                owner = .version(row)
                place = (
                    engine.catalog.versions[row].recordBytes, engine.catalog.versions[row].page
                )
            } else if let handle = vdi.flatMap({ engine.catalog.handle(of: $0) }).map({ Int($0) }) {
                owner = .vdi(handle)
                place = (engine.catalog.vdis[handle].recordBytes, engine.catalog.vdis[handle].page)
            }
            guard let owner else { return }
            engine.catalog.pages.remove(owner, bytes: Int(place.bytes), from: place.page)
        }
        try checkpoint()
        mislead { _ in }
        try checkpoint()
    }
}
