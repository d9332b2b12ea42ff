// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore
internal import ParallaxSimulation

/// What each sector of the disk may hold, as its guest knows it, and which sectors are in use.
///
/// A version is a number that no two writes share; 0 is zeros. A sector has one possible version,
/// or more after a write whose answer was never seen.
struct SectorModel {
    private var possible: [[UInt64]]
    private var writers: [Bool]
    private var readers: [Int]
    private(set) var verified = 0

    init(capacity: Int) {
        possible = Array(repeating: [0], count: capacity)
        writers = Array(repeating: false, count: capacity)
        readers = Array(repeating: 0, count: capacity)
    }

    /// The bytes of a sector: its version first, then words that depend on version and place.
    static func fill(_ target: UnsafeMutableRawPointer, sector: Int, version: UInt64) {
        guard version != 0 else {
            memset(target, 0, sectorBytes)
            return
        }
        target.storeBytes(of: version, as: UInt64.self)
        let base = SeededRandom.mix(version ^ UInt64(sector) << 40)
        for word in 1..<(sectorBytes / 8) {
            target.storeBytes(of: base &* UInt64(word), toByteOffset: 8 * word, as: UInt64.self)
        }
    }

    /// False: the sector holds what it must not. What it holds is known from now on.
    mutating func check(_ bytes: UnsafeRawPointer, sector: Int) -> Bool {
        verified += 1
        let version = bytes.loadUnaligned(as: UInt64.self)
        guard possible[sector].contains(version) else { return false }
        let isWhole = withUnsafeTemporaryAllocation(byteCount: sectorBytes, alignment: 8) {
            expected -> Bool in
            guard let base = expected.baseAddress else { return false }
            Self.fill(base, sector: sector, version: version)
            return memcmp(base, bytes, sectorBytes) == 0
        }
        possible[sector] = [version]
        return isWhole
    }

    func describe(_ sector: Int) -> String {
        "sector \(sector), which may hold \(possible[sector])"
    }

    mutating func set(_ range: Range<Int>, version: UInt64) {
        for sector in range { possible[sector] = [version] }
    }

    mutating func mayBecome(_ range: Range<Int>, version: UInt64) {
        for sector in range where !possible[sector].contains(version) {
            possible[sector].append(version)
        }
    }

    /// Guests do not write where a request is under way.
    func isFree(_ range: Range<Int>, toWrite: Bool) -> Bool {
        range.allSatisfy { !writers[$0] && (!toWrite || readers[$0] == 0) }
    }

    mutating func occupy(_ range: Range<Int>, toWrite: Bool) {
        for sector in range {
            if toWrite { writers[sector] = true } else { readers[sector] += 1 }
        }
    }

    mutating func vacate(_ range: Range<Int>, toWrite: Bool) {
        for sector in range {
            if toWrite { writers[sector] = false } else { readers[sector] -= 1 }
        }
    }
}
