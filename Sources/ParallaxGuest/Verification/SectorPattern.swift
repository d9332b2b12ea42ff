// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The contents of a disk under test: each sector says what it is, so that a mismatch can say
/// what came instead.
///
///       0        8        16       24                            512
///      +--------+--------+--------+-----------------------------+
///      | seed   | sector | gener. | 61 words derived from them  |   words of 8 bytes
///      +--------+--------+--------+-----------------------------+
package struct SectorPattern: Sendable {
    package static var sectorBytes: Int { 512 }
    private static var wordCount: Int { 64 }
    private static var step: UInt64 { 0x9E37_79B9_7F4A_7C15 }

    package let seed: UInt64

    package init(seed: UInt64) { self.seed = seed }

    private func body(sector: UInt64, generation: UInt64) -> UInt64 {
        mixed(seed ^ mixed(sector ^ mixed(generation)))
    }

    /// Fills a buffer (whole sectors) that is to be written at `firstSector`.
    package func fill(
        _ buffer: UnsafeMutableRawBufferPointer, firstSector: UInt64, generation: UInt32
    ) {
        let words = buffer.assumingMemoryBound(to: UInt64.self)
        let number = UInt64(generation)
        var sector = firstSector
        var start = 0
        while start + Self.wordCount <= words.count {
            var word = body(sector: sector, generation: number)
            words[start] = seed
            words[start + 1] = sector
            words[start + 2] = number
            for position in start + 3..<start + Self.wordCount {
                words[position] = word
                word &+= Self.step
            }
            sector += 1
            start += Self.wordCount
        }
    }

    /// Nil when the buffer holds what belongs at `firstSector`; else what is wrong.
    /// `generation` 0: any generation is right, as long as it is this seed's and this place's.
    package func check(
        _ buffer: UnsafeRawBufferPointer, firstSector: UInt64, generation: UInt32
    ) -> SectorMismatch? {
        let words = buffer.assumingMemoryBound(to: UInt64.self)
        var sector = firstSector
        var start = 0
        while start + Self.wordCount <= words.count {
            let expected = generation == 0 ? words[start + 2] : UInt64(generation)
            let sectorWords = UnsafeBufferPointer(rebasing: words[start..<start + Self.wordCount])
            guard isIntact(sectorWords, sector: sector, generation: expected), expected != 0
            else {
                return SectorMismatch(
                    sector: sector, expectedGeneration: generation,
                    found: describe(sectorWords, sector: sector))
            }
            sector += 1
            start += Self.wordCount
        }
        return nil
    }

    private func isIntact(
        _ words: UnsafeBufferPointer<UInt64>, sector: UInt64, generation: UInt64
    ) -> Bool {
        var difference = words[0] ^ seed | words[1] ^ sector | words[2] ^ generation
        var word = body(sector: sector, generation: generation)
        for position in 3..<Self.wordCount {
            difference |= words[position] ^ word
            word &+= Self.step
        }
        return difference == 0
    }

    private func describe(_ words: UnsafeBufferPointer<UInt64>, sector: UInt64) -> String {
        if words.allSatisfy({ $0 == 0 }) { return "zeroes" }
        let other = SectorPattern(seed: words[0])
        guard other.isIntact(words, sector: words[1], generation: words[2]) else {
            return words[0] == seed && words[1] == sector
                ? "generation \(words[2]) with damaged contents" : "bytes that are no pattern"
        }
        if words[0] != seed { return "the pattern of seed \(words[0])" }
        if words[1] != sector { return "sector \(words[1]), generation \(words[2])" }
        return "generation \(words[2])"
    }
}

/// A sector that does not hold what it should.
package struct SectorMismatch: Equatable, Sendable, CustomStringConvertible {
    package var sector: UInt64
    package var expectedGeneration: UInt32
    package var found: String

    package var description: String {
        let expected =
            expectedGeneration == 0
            ? "a pattern of this seed" : "generation \(expectedGeneration)"
        return "verification failed at byte \(sector * 512) (sector \(sector)): expected "
            + "\(expected), found \(found)"
    }
}
