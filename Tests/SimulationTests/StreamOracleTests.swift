// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxSimulation
import Testing

@Suite struct StreamOracleTests {
    private let vdi: UInt64 = 7

    private func makeOracle() -> StreamOracle {
        let oracle = StreamOracle()
        oracle.addDisk(vdi, sectorCount: 1 << 20)
        return oracle
    }

    private func write(
        _ oracle: StreamOracle, _ sectors: Range<UInt64>, isZeroing: Bool = false
    ) -> Stamp {
        let stamp = oracle.beginMutation(
            vdi: vdi, sectors: sectors, isZeroing: isZeroing, waitsForSync: false)
        oracle.endMutation(stamp, outcome: .done)
        return stamp
    }

    /// What the oracle says of a read of one sector that returns `stamp`.
    private func read(
        _ oracle: StreamOracle, _ sector: UInt64, returning stamp: Stamp, submittedAt: Int? = nil
    ) -> String? {
        var bytes = [UInt8](repeating: 0, count: sectorBytes)
        return bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return "no memory" }
            SectorPattern.fill(base, stamp: stamp, vdi: vdi, sector: sector)
            let moment = submittedAt ?? oracle.beginRead()
            defer { oracle.endRead(submittedAt: moment) }
            return oracle.check(
                UnsafeRawBufferPointer(buffer), vdi: vdi, firstSector: sector,
                submittedAt: moment)
        }
    }

    private func resolve(
        _ oracle: StreamOracle, _ blocks: [UInt64: BlockValue], _ mode: CrashMode
    ) -> String? {
        oracle.crash()
        let observations = blocks.keys.sorted().map {
            Observation(vdi: vdi, block: $0, value: blocks[$0])
        }
        return oracle.resolve(observations, after: mode)
    }

    private func all(_ stamp: Stamp) -> BlockValue { BlockValue(repeating: stamp) }

    @Test("a sector's content names its write, its place and its VDI, to the last byte")
    func patterns() throws {
        var bytes = [UInt8](repeating: 0, count: sectorBytes)
        try bytes.withUnsafeMutableBytes { buffer in
            let base = try #require(buffer.baseAddress)
            SectorPattern.fill(base, stamp: 5, vdi: 1, sector: 9)
            #expect(SectorPattern.read(base, vdi: 1, sector: 9) == .stamp(5))
            #expect(SectorPattern.read(base, vdi: 2, sector: 9) == .garbage)
            #expect(SectorPattern.read(base, vdi: 1, sector: 8) == .garbage)
            for index in 0..<sectorBytes {
                buffer[index] ^= 1
                #expect(SectorPattern.read(base, vdi: 1, sector: 9) == .garbage)
                buffer[index] ^= 1
            }
        }
    }

    @Test("a read returns the last acknowledged write, never an older one")
    func lastWriteWins() {
        let oracle = makeOracle()
        let first = write(oracle, 0..<8)
        let second = write(oracle, 0..<8)
        #expect(read(oracle, 3, returning: second) == nil)
        #expect(read(oracle, 3, returning: first) != nil)
        #expect(read(oracle, 3, returning: 0) != nil)
        #expect(read(oracle, 8, returning: 0) == nil)
    }

    @Test("a read that overlaps a write in time may return either value")
    func concurrentRead() {
        let oracle = makeOracle()
        let first = write(oracle, 0..<8)
        let moment = oracle.beginRead()
        let second = write(oracle, 0..<8)
        #expect(read(oracle, 0, returning: first, submittedAt: moment) == nil)
        let third = oracle.beginMutation(
            vdi: vdi, sectors: 0..<8, isZeroing: false, waitsForSync: false)
        #expect(read(oracle, 0, returning: third) == nil)
        #expect(read(oracle, 0, returning: second) == nil)
        #expect(read(oracle, 0, returning: first) != nil)
    }

    @Test("after the loss of the process all that was acknowledged is there")
    func processLoss() {
        let oracle = makeOracle()
        let first = write(oracle, 0..<8)
        let second = write(oracle, 8..<16)
        #expect(resolve(oracle, [0: all(first), 1: all(second)], .processLoss) == nil)
        #expect(resolve(oracle, [0: all(first), 1: all(0)], .processLoss) != nil)
    }

    @Test("after power loss a prefix is there: the later without the earlier is wrong")
    func powerLossPrefix() {
        for (values, isRight) in [
            ([true, true], true), ([true, false], true), ([false, false], true),
            ([false, true], false),
        ] {
            let oracle = makeOracle()
            let first = write(oracle, 0..<8)
            let second = write(oracle, 8..<16)
            let found = [
                UInt64(0): all(values[0] ? first : 0), 1: all(values[1] ? second : 0),
            ]
            #expect((resolve(oracle, found, .powerLoss) == nil) == isRight)
        }
    }

    @Test("what a flush covers survives power loss")
    func flushed() {
        let oracle = makeOracle()
        let first = write(oracle, 0..<8)
        oracle.markSafe(through: oracle.beginFlush())
        _ = write(oracle, 8..<16)
        #expect(resolve(oracle, [0: all(first), 1: all(0)], .powerLoss) == nil)

        let other = makeOracle()
        _ = write(other, 0..<8)
        other.markSafe(through: other.beginFlush())
        #expect(resolve(other, [0: all(0)], .powerLoss) != nil)
    }

    @Test("a block is never torn, even by a write that was not acknowledged")
    func notTorn() {
        let oracle = makeOracle()
        let stamp = oracle.beginMutation(
            vdi: vdi, sectors: 0..<16, isZeroing: false, waitsForSync: false)
        #expect(resolve(oracle, [0: all(stamp), 1: all(0)], .powerLoss) == nil)

        let other = makeOracle()
        let torn = other.beginMutation(
            vdi: vdi, sectors: 0..<16, isZeroing: false, waitsForSync: false)
        var half = all(0)
        half.assign(torn, mask: 0x0F)
        #expect(resolve(other, [0: half, 1: all(0)], .powerLoss) != nil)
    }

    @Test("what was gone after a crash does not come back after the next")
    func noResurrection() {
        let oracle = makeOracle()
        let stamp = write(oracle, 0..<8)
        #expect(resolve(oracle, [0: all(0)], .powerLoss) == nil)
        #expect(resolve(oracle, [0: all(stamp)], .processLoss) != nil)
    }

    @Test("writes in flight together may come in either order, but keep their order for good")
    func concurrentWrites() {
        let oracle = makeOracle()
        let wide = oracle.beginMutation(
            vdi: vdi, sectors: 0..<64, isZeroing: false, waitsForSync: false)
        let narrow = write(oracle, 0..<8)
        oracle.endMutation(wide, outcome: .done)
        #expect(read(oracle, 0, returning: narrow) == nil)
        #expect(read(oracle, 0, returning: wide) == nil)
        let last = write(oracle, 0..<8)
        #expect(read(oracle, 0, returning: narrow) != nil)
        #expect(read(oracle, 0, returning: last) == nil)
    }

    @Test("a scribbled write may hold any mixture, but only one")
    func scribbled() {
        let oracle = makeOracle()
        let stamp = oracle.beginMutation(
            vdi: vdi, sectors: 0..<1, isZeroing: false, waitsForSync: false)
        oracle.noteScribble(stamp)
        oracle.endMutation(stamp, outcome: .done)
        func mixed(_ count: Int) -> String? {
            var bytes = [UInt8](repeating: 0, count: 2 * sectorBytes)
            return bytes.withUnsafeMutableBytes { buffer in
                guard let base = buffer.baseAddress else { return "no memory" }
                SectorPattern.fill(base, stamp: stamp, vdi: vdi, sector: 0)
                SectorPattern.fill(
                    base + sectorBytes, stamp: stamp, vdi: vdi, sector: 0, variant: .second)
                for index in 0..<count { buffer[index] = buffer[sectorBytes + index] }
                return oracle.check(
                    UnsafeRawBufferPointer(rebasing: buffer[..<sectorBytes]), vdi: vdi,
                    firstSector: 0, submittedAt: oracle.beginRead())
            }
        }
        #expect(mixed(100) == nil)
        #expect(mixed(100) == nil)
        #expect(mixed(200) != nil)
    }
}
