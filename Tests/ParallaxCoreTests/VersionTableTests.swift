// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Testing

@testable import ParallaxCore

@Suite struct VersionTableTests {
    private func version(_ identifier: SnapshotIdentifier) -> Version {
        var version = Version()
        version.identifier = identifier
        version.state = .visible
        return version
    }

    @Test("a snapshot that was made later has the greater age number, whatever its row")
    func agesCount() {
        let older = SnapshotIdentifier(stream: 3, row: 900, sequence: 70_000)
        let younger = SnapshotIdentifier(stream: 3, row: 2, sequence: 70_001)
        #expect(older.age < younger.age)
        #expect(SnapshotIdentifier(age: older.age) == older)
        #expect(SnapshotIdentifier(age: younger.age) == younger)
    }

    @Test("a snapshot that is given up leaves its row to the next")
    func givenUp() {
        var table = VersionTable(nextSequence: 1)
        let first = table.nextIdentifier(stream: 0)
        table.giveUp(first)
        let second = table.nextIdentifier(stream: 0)
        #expect(second.row == first.row)
        #expect(second.sequence > first.sequence)
        let isMade = table.insert(version(second), details: [])
        #expect(isMade)
    }

    @Test("giving up, in a replay, what was never named here changes nothing")
    func givenUpInReplay() {
        var table = VersionTable(nextSequence: 1)
        table.giveUp(SnapshotIdentifier(stream: 0, row: 7, sequence: 3))
        #expect(table.count == 0)
        let other = SnapshotIdentifier(stream: 0, row: 7, sequence: 2)
        let isMade = table.insert(version(other), details: [])
        #expect(isMade)
        table.giveUp(SnapshotIdentifier(stream: 0, row: 7, sequence: 3))
        #expect(table.row(of: other) == 7)
        table.collectFreeRows(ofAll: 0)
        table.finishCheckpoint()
        // Each of the rows before it once, and then a new one.
        var rows: [Int] = []
        for _ in 0..<8 { rows.append(table.nextIdentifier(stream: 0).row) }
        #expect(rows == [0, 1, 2, 3, 4, 5, 6, 8])
    }

    @Test("a row is taken for all but the snapshot in it")
    func taken() {
        var table = VersionTable(nextSequence: 1)
        let first = table.nextIdentifier(stream: 0)
        let other = SnapshotIdentifier(stream: 0, row: first.row, sequence: 9)
        let isTakenBefore = table.isTaken(other)
        let isMade = table.insert(version(first), details: [])
        let isTaken = table.isTaken(other)
        let isTakenForItself = table.isTaken(first)
        #expect(isMade && isTaken && !isTakenBefore && !isTakenForItself)
    }

    @Test("a freed row is used again only when both durable checkpoints have forgotten it")
    func quarantine() {
        var table = VersionTable(nextSequence: 1)
        let first = table.nextIdentifier(stream: 0)
        let isMade = table.insert(version(first), details: [])
        #expect(isMade)
        table[first.row].state = .deleted
        table.free(first.row)
        let early = table.nextIdentifier(stream: 0)
        #expect(early.row != first.row)
        table.beginCheckpoint()
        let between = table.nextIdentifier(stream: 0)
        #expect(between.row != first.row)
        table.finishCheckpoint()
        let known = table.nextIdentifier(stream: 0)
        #expect(known.row != first.row)
        table.beginCheckpoint()
        table.finishCheckpoint()
        let late = table.nextIdentifier(stream: 0)
        #expect(late.row == first.row)
    }
}
