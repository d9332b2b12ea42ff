// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxGuest
import Testing

@Suite struct GuestPatternTests {
    private let pattern = SectorPattern(seed: 42)

    private func block(sectors: Int, firstSector: UInt64, generation: UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: sectors * 512)
        bytes.withUnsafeMutableBytes {
            pattern.fill($0, firstSector: firstSector, generation: generation)
        }
        return bytes
    }

    private func check(_ bytes: [UInt8], _ firstSector: UInt64, _ generation: UInt32) -> String? {
        bytes.withUnsafeBytes {
            pattern.check($0, firstSector: firstSector, generation: generation)?.description
        }
    }

    @Test("what was filled is right, at its place and generation only")
    func roundTrip() {
        let bytes = block(sectors: 8, firstSector: 80, generation: 3)
        #expect(check(bytes, 80, 3) == nil)
        #expect(check(bytes, 80, 0) == nil)
        #expect(check(bytes, 80, 4)?.contains("expected generation 4, found generation 3") == true)
        #expect(check(bytes, 81, 3)?.contains("found sector 80, generation 3") == true)
    }

    @Test("every single wrong byte is found")
    func wrongBytes() {
        let bytes = block(sectors: 2, firstSector: 7, generation: 1)
        for position in bytes.indices {
            var damaged = bytes
            damaged[position] ^= 0x10
            #expect(check(damaged, 7, 1) != nil)
            #expect(check(damaged, 7, 0) != nil)
        }
    }

    @Test("zeroes, foreign bytes and other seeds are told apart")
    func descriptions() {
        let zeroes = [UInt8](repeating: 0, count: 512)
        #expect(check(zeroes, 0, 0)?.contains("found zeroes") == true)
        #expect(check(zeroes, 0, 1)?.contains("found zeroes") == true)
        let foreign = [UInt8](repeating: 7, count: 512)
        #expect(check(foreign, 0, 1)?.contains("no pattern") == true)
        let other = SectorPattern(seed: 43)
        var bytes = zeroes
        bytes.withUnsafeMutableBytes { other.fill($0, firstSector: 0, generation: 1) }
        #expect(check(bytes, 0, 1)?.contains("seed 43") == true)
    }

    @Test("the generation table counts writes and bars a second request")
    func generations() throws {
        var table = try GenerationTable(count: 4)
        table.begin(2, isWrite: true)
        let whileBusy = (table[2], table.isBusy(2), table.isBusy(1))
        #expect(whileBusy == (1, true, false))
        table.end(2)
        table.begin(2, isWrite: false)
        table.end(2)
        let after = (table[2], table.isBusy(2), table[3])
        #expect(after == (1, false, 0))
    }

    @Test("the same seed gives the same numbers, and they stay below their limit")
    func random() {
        var first = RandomSource(seed: 1)
        var second = RandomSource(seed: 1)
        for _ in 0..<1000 {
            let number = first.next(below: 10)
            #expect(number < 10)
            #expect(number == second.next(below: 10))
        }
    }
}
