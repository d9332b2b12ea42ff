// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxSimulation
import Testing

/// What the model says of versions: mostly, what it does not let pass.
@Suite struct ModelSnapshotTests {
    private let vdi: UInt64 = 7
    private let snapshot: UInt64 = 1 << 63 | 5

    private func makeOracle(time: ModelClock = ModelClock()) -> StreamOracle {
        let oracle = StreamOracle(time: time)
        oracle.addDisk(vdi, sectorCount: 1 << 11)
        return oracle
    }

    private func begin(_ oracle: StreamOracle, _ block: UInt64, vdi: UInt64? = nil) -> Stamp {
        oracle.beginMutation(
            vdi: vdi ?? self.vdi, sectors: (block * 8)..<(block * 8 + 8), isZeroing: false,
            waitsForSync: false)
    }

    private func write(_ oracle: StreamOracle, _ block: UInt64, vdi: UInt64? = nil) -> Stamp {
        let stamp = begin(oracle, block, vdi: vdi)
        oracle.endMutation(stamp, outcome: .done)
        return stamp
    }

    private func take(_ oracle: StreamOracle, _ identifier: UInt64? = nil) -> ModelSnapshot? {
        end(oracle, oracle.beginSnapshot(), identifier)
    }

    private func end(
        _ oracle: StreamOracle, _ window: SnapshotWindow, _ identifier: UInt64? = nil
    ) -> ModelSnapshot? {
        let identifier = identifier ?? snapshot
        oracle.endSnapshot(window, identifier: identifier, vdi: vdi, sectorCount: 1 << 11)
        return oracle.snapshots[identifier]
    }

    private func block(
        _ stamp: Stamp, _ block: UInt64, writer: UInt64? = nil,
        _ body: (UnsafeRawBufferPointer) -> String?
    ) -> String? {
        var bytes = [UInt8](repeating: 0, count: blockBytes)
        return bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return "no memory" }
            for place in 0..<sectorsPerBlock {
                SectorPattern.fill(
                    base + place * sectorBytes, stamp: stamp, vdi: writer ?? vdi,
                    sector: block * 8 + UInt64(place))
            }
            return body(UnsafeRawBufferPointer(buffer))
        }
    }

    /// What the oracle says of a snapshot whose block holds `stamp`.
    private func read(
        _ oracle: StreamOracle, _ model: ModelSnapshot, _ block: UInt64, returning stamp: Stamp
    ) -> String? {
        self.block(stamp, block) { oracle.check($0, snapshot: model, firstSector: block * 8) }
    }

    private func readHead(
        _ oracle: StreamOracle, _ disk: UInt64, _ block: UInt64, returning stamp: Stamp,
        writer: UInt64? = nil
    ) -> String? {
        self.block(stamp, block, writer: writer) { bytes in
            let moment = oracle.beginRead()
            defer { oracle.endRead(submittedAt: moment) }
            return oracle.check(bytes, vdi: disk, firstSector: block * 8, submittedAt: moment)
        }
    }

    @Test("a snapshot holds what was answered before it, and nothing of what came after")
    func contains() throws {
        let oracle = makeOracle()
        let before = write(oracle, 3)
        let model = try #require(take(oracle))
        let after = write(oracle, 3)
        #expect(read(oracle, model, 3, returning: before) == nil)
        #expect(read(oracle, model, 3, returning: after) != nil)
        #expect(read(oracle, model, 3, returning: 0) != nil)
        #expect(read(oracle, model, 4, returning: 0) == nil)
        #expect(readHead(oracle, vdi, 3, returning: after) == nil)
    }

    @Test("a write that meets a snapshot is in it or not, and its first reading decides")
    func concurrent() throws {
        for isIn in [true, false] {
            let oracle = makeOracle()
            let before = write(oracle, 3)
            let window = oracle.beginSnapshot()
            let during = write(oracle, 3)
            let model = try #require(end(oracle, window))
            #expect(read(oracle, model, 3, returning: isIn ? during : before) == nil)
            #expect(read(oracle, model, 3, returning: isIn ? before : during) != nil)
        }
    }

    @Test("of the writes that meet a snapshot a prefix is in it")
    func prefix() throws {
        let oracle = makeOracle()
        let window = oracle.beginSnapshot()
        let first = write(oracle, 1)
        let second = write(oracle, 2)
        let model = try #require(end(oracle, window))
        #expect(read(oracle, model, 2, returning: second) == nil)
        #expect(read(oracle, model, 1, returning: 0) != nil)
        #expect(read(oracle, model, 1, returning: first) == nil)
    }

    @Test("a write in flight when the snapshot is answered may be in it, if all others are")
    func inFlight() throws {
        let oracle = makeOracle()
        let window = oracle.beginSnapshot()
        let early = write(oracle, 1)
        let late = begin(oracle, 2)
        let model = try #require(end(oracle, window))
        oracle.endMutation(late, outcome: .done)
        #expect(read(oracle, model, 2, returning: late) == nil)
        #expect(read(oracle, model, 1, returning: 0) != nil)
        #expect(read(oracle, model, 1, returning: early) == nil)
    }

    @Test("a snapshot outlives crashes as it is, and what it holds was durable")
    func crash() throws {
        let oracle = makeOracle()
        let window = oracle.beginSnapshot()
        let stamp = write(oracle, 3)
        let model = try #require(end(oracle, window))
        oracle.crash()
        #expect(read(oracle, model, 3, returning: stamp) == nil)
        let lost = [Observation(vdi: vdi, block: 3, value: BlockValue(repeating: 0))]
        #expect(oracle.resolve(lost, after: .powerLoss) != nil)
        let kept = [Observation(vdi: vdi, block: 3, value: BlockValue(repeating: stamp))]
        #expect(oracle.resolve(kept, after: .powerLoss) == nil)
        #expect(read(oracle, model, 3, returning: 0) != nil)
        #expect(read(oracle, model, 3, returning: stamp) == nil)
    }

    @Test("a clone begins as the snapshot; then each has its own writes")
    func clone() throws {
        let oracle = makeOracle()
        let inherited = write(oracle, 3)
        let model = try #require(take(oracle))
        oracle.addDisk(ModelDisk(identifier: 8, sectorCount: 1 << 11, from: model))
        #expect(readHead(oracle, 8, 3, returning: inherited, writer: vdi) == nil)
        let shared = write(oracle, 3)
        #expect(readHead(oracle, 8, 3, returning: shared, writer: vdi) != nil)
        let own = write(oracle, 3, vdi: 8)
        #expect(readHead(oracle, 8, 3, returning: own, writer: 8) == nil)
        #expect(readHead(oracle, 8, 3, returning: inherited, writer: vdi) != nil)
        #expect(readHead(oracle, vdi, 3, returning: own, writer: 8) != nil)
    }

    @Test("a read that began before a write may return what nobody knew; one after it may not")
    func undecidedClone() throws {
        let oracle = makeOracle()
        let doubtful = begin(oracle, 3)
        let model = try #require(take(oracle))
        oracle.endMutation(doubtful, outcome: .done)
        oracle.addDisk(ModelDisk(identifier: 8, sectorCount: 1 << 11, from: model))
        let moment = oracle.beginRead()
        _ = write(oracle, 3, vdi: 8)
        let early = block(doubtful, 3) {
            oracle.check($0, vdi: 8, firstSector: 24, submittedAt: moment)
        }
        #expect(early == nil)
        oracle.endRead(submittedAt: moment)
        #expect(readHead(oracle, 8, 3, returning: doubtful, writer: vdi) != nil)
    }

    @Test("after a rollback the head is the snapshot again")
    func rollback() throws {
        let oracle = makeOracle()
        let old = write(oracle, 3)
        let model = try #require(take(oracle))
        let undone = write(oracle, 3)
        oracle.rollBack(vdi, to: model)
        #expect(readHead(oracle, vdi, 3, returning: old) == nil)
        #expect(readHead(oracle, vdi, 3, returning: undone) != nil)
    }

    @Test("a cut that has the later of two writes, one after the other, but not the earlier")
    func groups() throws {
        for isAtomic in [true, false] {
            let time = ModelClock()
            let first = makeOracle(time: time)
            let second = makeOracle(time: time)
            let windows = [first.beginSnapshot(), second.beginSnapshot()]
            let early = write(first, 1)
            let late = write(second, 1)
            let one = try #require(end(first, windows[0]))
            let other = try #require(end(second, windows[1]))
            #expect(read(first, one, 1, returning: isAtomic ? early : 0) == nil)
            #expect(read(second, other, 1, returning: late) == nil)
            let before = first.moments(of: one).before
            #expect((second.moments(of: other).after < before) == isAtomic)
        }
    }
}
