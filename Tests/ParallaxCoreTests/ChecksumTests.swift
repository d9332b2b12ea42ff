// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("Checksum")
struct ChecksumTests {
    struct Vector: Sendable {
        var bytes: [UInt8]
        var checksum: UInt32
    }

    /// RFC 3720, appendix B.4.
    static let vectors = [
        Vector(bytes: Array(repeating: 0, count: 32), checksum: 0x8A91_36AA),
        Vector(bytes: Array(repeating: 0xFF, count: 32), checksum: 0x62A8_AB43),
        Vector(bytes: Array(0..<32), checksum: 0x46DD_794E),
        Vector(bytes: (0..<32).reversed(), checksum: 0x113F_DB5C),
    ]

    @Test("the vectors of RFC 3720 come out", arguments: vectors)
    func knownVectors(vector: Vector) {
        vector.bytes.withUnsafeBytes { raw in
            #expect(Checksum.crc32c(raw) == vector.checksum)
            #expect(Checksum.crc32cSoftware(raw) == vector.checksum)
        }
    }

    @Test("instructions and tables agree on every length and alignment")
    func pathsAgree() {
        var generator = SeededRandom(seed: 7)
        let bytes = (0..<20_000).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
        bytes.withUnsafeBytes { raw in
            for length in Array(0..<300) + [4079, 4080, 4081, 4096, 8160, 8191, 12_289] {
                for start in 0..<9 {
                    let piece = UnsafeRawBufferPointer(rebasing: raw[start..<(start + length)])
                    #expect(Checksum.crc32c(piece) == Checksum.crc32cSoftware(piece))
                }
            }
        }
    }

    @Test("pieces in order give the checksum of the whole")
    func piecewise() {
        let bytes = (0..<9000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        bytes.withUnsafeBytes { raw in
            let whole = Checksum.crc32c(raw)
            for cut in [0, 1, 511, 4096, 8999, 9000] {
                let first = Checksum.crc32c(UnsafeRawBufferPointer(rebasing: raw[..<cut]))
                let both = Checksum.crc32c(
                    UnsafeRawBufferPointer(rebasing: raw[cut...]), continuing: first)
                #expect(both == whole)
            }
        }
    }
}
