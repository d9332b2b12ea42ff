// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// One damage for each kind of finding: it is reported as that and nothing else, and the repair makes
/// of it what it says. Damage is either a flipped bit, or an engine that was made to write down what
/// is not so.
@Suite("The findings of a check")
struct CheckFindingTests {
    struct Damage: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var streamCount = 1
        var severity: CheckFinding.Severity
        var structures: Set<CheckFinding.Structure>
        var outcome = Outcome.whole
        var make: @Sendable (SmallStore) throws -> Void
    }

    enum Outcome: Equatable, Sendable {
        /// A repair leaves nothing to be found, and everything reads as it was written.
        case whole
        /// A repair leaves errors, of this kind, where something is lost.
        case errors(CheckFinding.Structure)
        /// There is no repair, and nothing is written.
        case refused
    }

    static let damages: [Damage] =
        [
            Damage(
                testDescription: "a superblock copy", severity: .repairable,
                structures: [.superblock]
            ) { $0.flip(Superblock.copyOffsets[1] + 90) },
            Damage(
                testDescription: "both superblocks", severity: .unreadable,
                structures: [.superblock], outcome: .refused
            ) { store in for offset in Superblock.copyOffsets { store.flip(offset + 90) } },
            Damage(
                testDescription: "a checkpoint root", severity: .repairable, structures: [.root]
            ) { $0.flip(Superblock.checkpointRootOffsets(stream: 0, copy: 0)[0] + 90) },
            Damage(
                testDescription: "the twin of a checkpoint root", severity: .repairable,
                structures: [.root]
            ) { $0.flip(Superblock.checkpointRootOffsets(stream: 0, copy: 1)[1] + 90) },
            Damage(
                testDescription: "both roots of a shard", severity: .unreadable,
                structures: [.root], outcome: .refused
            ) { store in
                for copy in 0..<2 {
                    for offset in Superblock.checkpointRootOffsets(stream: 0, copy: copy) {
                        store.flip(offset + 90)
                    }
                }
            },
            Damage(
                testDescription: "the newest tables, which are part of a chunk",
                severity: .repairable, structures: [.tables, .log]
            ) { $0.flip(try $0.offsetsOfTables()[0]) },
            Damage(
                testDescription: "the tables of both checkpoints", severity: .unreadable,
                structures: [.tables], outcome: .refused
            ) { store in for offset in try store.offsetsOfTables() { store.flip(offset) } },
        ] + pages + trees + books

    private static let pages = [
        Damage(
            testDescription: "a page of live bits, which is part of a chunk", severity: .repairable,
            structures: [.liveBits, .log]
        ) { store in
            let page = store.look { $0.forest.extents.livePages.references.first { !$0.isHole } }
            store.flip(try store.offset(of: #require(page)))
        },
        Damage(
            testDescription: "a page of forwards, which is part of a chunk", severity: .repairable,
            structures: [.forwards, .log]
        ) { store in
            try store.makeForwards()
            let page = store.look { $0.forest.forwards.pages.first?.reference }
            store.flip(try store.offset(of: #require(page)))
        },
        Damage(
            testDescription: "the header of a chunk in the log", severity: .loss,
            structures: [.log]
        ) { store in
            let offsets = try store.writeSingly("gold", 200..<206)
            store.flip(offsets[2])
            store.forget("gold", 202..<206)
        },
    ]

    private static let trees = [
        Damage(
            testDescription: "a radix node", severity: .loss, structures: [.node],
            outcome: .errors(.node)
        ) { store in
            let root = store.look { $0.catalog.vdis[0].root }
            store.flip(try store.offset(of: root))
        },
        Damage(
            testDescription: "a block of data", severity: .loss, structures: [.data],
            outcome: .errors(.data)
        ) { $0.flip(try #require($0.offset(of: 2, in: "gold"))) },
    ]

    private static let books = [
        Damage(
            testDescription: "a slot that two shards claim", streamCount: 2, severity: .loss,
            structures: [.extents], outcome: .refused
        ) { store in
            let slot = store.look { $0.forest.extents[0].slot }
            store.mislead(1) {
                $0.forest.extents.insert(ExtentNumber(1000), slot: slot, state: .leased)
            }
            try store.checkpoint()
        },
        Damage(
            testDescription: "a free block that is marked as used", severity: .repairable,
            structures: [.liveBits]
        ) { store in
            store.mislead { engine in
                for index in 0..<engine.forest.extents.count
                where engine.forest.extents[index].state == .leased
                    && !engine.forest.extents[index].number.isCold
                {
                    let number = engine.forest.extents[index].number
                    return engine.forest.extents.addLive(BlockAddress(extent: number, block: 200))
                }
            }
            try store.checkpoint()
        },
        Damage(
            testDescription: "two VDIs with one name", severity: .repairable, structures: [.records]
        ) { store in
            store.mislead { engine in
                engine.catalog.names[1] = engine.catalog.names[0]
                engine.catalog.touch(1)
            }
            try store.checkpoint()
        },
        Damage(
            testDescription: "two snapshots with one name", severity: .repairable,
            structures: [.records]
        ) { store in
            let second = try #require(store.snapshots["gold@second"])
            store.mislead { engine in
                guard let row = engine.catalog.versions.row(of: second) else { return }
                engine.catalog.setDetails(row: row, SnapshotDetails(name: "first").encoded)
                engine.catalog.touch(row: row)
            }
            try store.checkpoint()
        },
        Damage(
            testDescription: "a snapshot that is not younger than its parent",
            severity: .repairable, structures: [.versions]
        ) { store in
            try store.create("void")
            try store.snapshot("void", "nothing")
            try store.snapshot("void", "still nothing")
            let child = try #require(store.snapshots["void@still nothing"])
            store.mislead { engine in
                guard let row = engine.catalog.versions.row(of: child) else { return }
                engine.catalog.versions[row].epoch = 1
                engine.catalog.touch(row: row)
            }
            try store.checkpoint()
        },
        Damage(
            testDescription: "a wrong count of allocated blocks", severity: .repairable,
            structures: [.accounting]
        ) { store in
            store.mislead { engine in
                engine.catalog.vdis[0].allocatedBlocks += 3
                engine.catalog.touch(0)
            }
            try store.checkpoint()
        },
        Damage(
            testDescription: "a forward that nothing uses", severity: .repairable,
            structures: [.forwards]
        ) { store in
            store.mislead { engine in
                let number = engine.forest.extents[0].number
                engine.forest.restoreForward(
                    BlockAddress(extent: ExtentNumber(900), block: 7),
                    to: BlockAddress(extent: number, block: 255))
            }
            try store.checkpoint()
        },
    ]

    @Test(
        "are what the damage is, as grave as it is; and a repair keeps what it says",
        arguments: damages)
    func kinds(damage: Damage) throws {
        let store = try CheckTests.makeStore(streamCount: damage.streamCount)
        try damage.make(store)
        let report = SmallStore.check(store.device)
        #expect(Set(report.findings.map(\.structure)) == damage.structures, "\(report.findings)")
        #expect(report.severity == damage.severity, "\(report.findings)")
        guard damage.outcome != .refused else {
            let writes = store.device.statistics.writes
            #expect(throws: StoreError.self) {
                _ = try StoreRepair(medium: store.device, options: SmallStore.checkOptions)
            }
            #expect(store.device.statistics.writes == writes)
            return
        }
        let result = try store.repair(store.device)
        #expect(result.found.wrong == [], "\(report.findings)")
        #expect(result.found.missing == [], "\(report.findings)")
        let remaining = Set(result.after.findings.map(\.structure))
        if case .errors(let structure) = damage.outcome {
            #expect(remaining == [structure], "\(result.after.findings)")
            #expect(result.found.unreadable != [])
        } else {
            #expect(remaining == [], "\(result.after.findings)")
            #expect(result.found.unreadable == [])
        }
    }

    @Test(
        "a page of records costs what is on it, if no older checkpoint has it; then there is room")
    func lostRecords() throws {
        let store = try CheckTests.makeStore()
        let page = store.look { $0.catalog.pages.pages.first { !$0.reference.isHole }?.reference }
        store.flip(try store.offset(of: #require(page)))
        let older = SmallStore.check(store.device)
        #expect(older.severity == .repairable, "\(older.findings)")
        for offset in try store.offsetsOfOlderRoot() { store.flip(offset) }
        let report = SmallStore.check(store.device)
        let worst = report.findings.filter { $0.severity == .loss }.map(\.structure)
        #expect(worst == [.records], "\(report.findings)")
        let result = try store.repair(store.device)
        #expect(result.after.findings == [])
        #expect(result.found == SmallStore.Comparison(missing: store.model.keys.sorted()))
        let again = try SmallStore(device: store.device)
        try again.create("new")
        try again.write("new", 0..<4)
        #expect(try again.compare() == SmallStore.Comparison())
    }

    @Test("there is a damage for each kind")
    func isComplete() {
        let kinds: Set<CheckFinding.Structure> = [
            .superblock, .root, .tables, .extents, .liveBits, .forwards, .records, .versions,
            .accounting, .log, .node, .data,
        ]
        #expect(Set(Self.damages.flatMap(\.structures)) == kinds)
    }
}

/// Places of what a store is made of.
extension SmallStore {
    func flip(_ offset: UInt64) { device.rot(at: offset + 100, bit: 3) }

    /// Half of what a snapshot holds is moved: it keeps the names.
    func makeForwards() throws {
        try write("gold", 0..<280)
        for block in stride(from: UInt64(0), to: 280, by: 2) {
            try write("gold", block..<block + 1)
        }
        try snapshot("gold", "full")
        try checkpoint()
        try clean()
    }

    func offset(of reference: BlockReference) throws -> UInt64 {
        let slot = look {
            $0.forest.extents.slot(of: $0.forest.place(of: reference.address).extent)
        }
        let block = look { $0.forest.place(of: reference.address).block }
        return look { [slot = try #require(slot)] in
            $0.superblock.byteOffset(slot: slot, block: block)
        }
    }

    fileprivate func offsetsOfOlderRoot() throws -> [UInt64] {
        let roots = try roots()
        let isFirst = try #require(roots[0]).sequence < #require(roots[1]).sequence
        return Superblock.checkpointRootOffsets(stream: 0, copy: isFirst ? 0 : 1)
    }

    private func roots() throws -> [CheckpointRoot?] {
        let superblock = try Store.inspect(medium: device).superblock
        let check = StoreCheck(options: Self.checkOptions) { _ in }
        return check.roots(0, superblock, medium: device)
    }

    /// Of the first shard, the newest first. Tables are named by slot, since extents are read from
    /// them.
    fileprivate func offsetsOfTables() throws -> [UInt64] {
        let superblock = try Store.inspect(medium: device).superblock
        return try roots().compactMap { $0 }.sorted { $0.sequence > $1.sequence }.map { root in
            superblock.byteOffset(
                slot: ExtentSlot(UInt32(root.table.address.extent.rawValue - 1)),
                block: root.table.address.block)
        }
    }
}
