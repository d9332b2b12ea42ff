// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// Somebody has again and again made a snapshot, a clone of it, and deleted the snapshot.
///
/// ```
///   gold@first --- hidden --- hidden --- hidden ...
///                    \- clone   \- clone   \- clone
/// ```
@Suite("Lists of disks below very many deleted snapshots")
struct DescriptionTests {
    private let store: SmallStore
    private let first: SnapshotIdentifier
    /// From the oldest on.
    private let hidden: [SnapshotIdentifier]
    private let clones: [VDIIdentifier]

    init() throws {
        let store = try SmallStore()
        try store.create("gold")
        try store.snapshot("gold", "first")
        let first = try #require(store.snapshots["gold@first"])
        let gold = try #require(store.vdis["gold"])
        var chain = [first]
        var clones: [VDIIdentifier] = []
        try store.mislead { engine in
            for number in UInt64(0)..<20_000 {
                var version = Version()
                version.identifier = engine.catalog.versions.nextIdentifier(stream: 0)
                version.vdi = gold
                version.state = .deleted
                let isMade = engine.catalog.versions.insert(version, details: [])
                try #require(isMade)
                let parent = try #require(chain.last)
                engine.catalog.addChild(
                    .snapshot(version.identifier.row), to: Int32(parent.row))
                chain.append(version.identifier)
                var record = VDIRecord(
                    identifier: VDIIdentifier(1000 + number), name: "clone", sizeBytes: 1 << 20,
                    createdAtNanoseconds: 1)
                record.parent = version.identifier
                _ = engine.catalog.insert(record, page: nil)
                clones.append(record.identifier)
            }
        }
        self.store = store
        self.first = first
        self.clones = clones
        hidden = Array(chain.dropFirst())
    }

    /// The parents that are told, and in how many steps.
    private func describe(
        _ clones: [VDIIdentifier]
    ) throws -> (parents: [SnapshotIdentifier?], steps: Int) {
        var list = DescriptionList<VDIIdentifier, VDISummary>(clones)
        var steps = 0
        while !list.isComplete {
            store.mislead { $0.describe(&list) }
            steps += 1
            try #require(steps < 1000)
        }
        return (list.summaries.map(\.parent), steps)
    }

    @Test("a step passes over a bounded number, and what it has passed over is not again")
    func bounded() throws {
        let newest = try describe(clones.suffix(128).reversed())
        #expect(newest.parents == Array(repeating: first, count: 128))
        // Each hop leads past two. Ways of others are half as long, then a quarter, ...
        let least = clones.count / 2 / Engine.hopsPerStep
        #expect(newest.steps > least && newest.steps <= 2 * least + 3, "\(newest.steps)")
        var steps = 0
        for begin in stride(from: 0, to: clones.count, by: 128) {
            let batch = Array(clones[begin..<min(begin + 128, clones.count)])
            let found = try describe(batch)
            steps += found.steps
            #expect(found.parents == Array(repeating: first, count: batch.count))
        }
        #expect(steps < 200)
    }

    @Test("the same for snapshots, and for those that are gone")
    func snapshots() throws {
        let made: [SnapshotIdentifier] = try store.mislead { engine in
            var made: [SnapshotIdentifier] = []
            for parent in hidden.suffix(100).reversed() {
                var version = Version()
                version.identifier = engine.catalog.versions.nextIdentifier(stream: 0)
                version.vdi = clones[0]
                version.state = .visible
                let isMade = engine.catalog.versions.insert(
                    version, details: SnapshotDetails(name: "late").encoded)
                try #require(isMade)
                engine.catalog.addChild(
                    .snapshot(version.identifier.row), to: Int32(parent.row))
                made.append(version.identifier)
            }
            return made
        }
        var list = DescriptionList<SnapshotIdentifier, SnapshotSummary>(made + [hidden[5]])
        var steps = 0
        while !list.isComplete, steps < 100 {
            store.mislead { $0.describe(&list) }
            steps += 1
        }
        #expect(list.summaries.map(\.identifier) == made)
        #expect(list.summaries.map(\.parent) == Array(repeating: first, count: made.count))
        #expect(steps > 1 && steps < 10)
    }

    @Test(
        "a way past versions that are gone, and whose rows are used again, leads to the same place")
    func removedVersions() throws {
        // Every other one has a shortcut to the second above it now.
        _ = try describe(clones.suffix(1))
        for place in stride(from: 1, to: hidden.count, by: 3) {
            let row = hidden[place].row
            try store.mislead { engine in
                let found = engine.catalog.handle(of: clones[place])
                let handle = Int(try #require(found))
                engine.catalog.removeChild(.head(handle))
                let child = engine.catalog.versions[row].firstChild
                engine.catalog.removeChild(child)
                engine.catalog.replaceChild(.snapshot(row), with: child)
                engine.catalog.versions.free(row)
                var other = Version()
                other.identifier = SnapshotIdentifier(
                    stream: 0, row: row, sequence: UInt64(1_000_000 + place))
                other.vdi = engine.catalog.versions[first.row].vdi
                other.state = .visible
                let isMade = engine.catalog.versions.insert(other, details: [])
                try #require(isMade)
            }
        }
        let left = clones.indices.filter { $0 % 3 != 1 }.map { clones[$0] }
        let found = try describe(left.reversed())
        #expect(found.parents == Array(repeating: first, count: left.count))
        store.mislead { $0.catalog.versions[first.row].state = .deleted }
        #expect(try describe(left).parents == Array(repeating: nil, count: left.count))
    }

    @Test("the list of all, at the start, says the same")
    func all() throws {
        let summaries = store.mislead { $0.vdis() }
        let parents = summaries.filter { $0.name == "clone" }.map(\.parent)
        #expect(parents == Array(repeating: first, count: clones.count))
    }
}
