// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// Names one mutation in the bytes of each sector that it wrote; 0 names "zeros".
package typealias Stamp = UInt32

/// The content that a simulated guest writes: each sector says which write it comes from and
/// where it belongs, and every byte of it can be recomputed.
///
///     one 32-byte unit, repeated 16 times in each sector
///     +--------+--------+----------------+----------------+----------------+
///     | stamp  | sector | mix of stamp,  | complement of  | product of     |
///     | 4      | 4      | VDI, sector  8 | the mix      8 | the mix      8 |
///     +--------+--------+----------------+----------------+----------------+
///
/// A guest that scribbles on its own buffer while the write is in flight replaces bytes of the
/// first variant by bytes of the second; both carry the same stamp.
package enum SectorPattern {
    package enum Variant: UInt64 {
        case first = 0
        case second = 0x5C81_BB1E
    }

    package static func fill(
        _ target: UnsafeMutableRawPointer, stamp: Stamp, vdi: UInt64, sector: UInt64,
        variant: Variant = .first
    ) {
        guard stamp != 0 else {
            memset(target, 0, sectorBytes)
            return
        }
        fillUnit(target, stamp: stamp, vdi: vdi, sector: sector, variant: variant)
        var filled = unitBytes
        while filled < sectorBytes {
            memcpy(target + filled, target, filled)
            filled *= 2
        }
    }

    private static let unitBytes = 32

    private static func fillUnit(
        _ target: UnsafeMutableRawPointer, stamp: Stamp, vdi: UInt64, sector: UInt64,
        variant: Variant
    ) {
        let disk = SeededRandom.mix(vdi &+ variant.rawValue)
        let mixed = SeededRandom.mix(disk ^ UInt64(stamp) &+ sector &* 0x9E37_79B9_7F4A_7C15)
        let place = UInt64(UInt32(truncatingIfNeeded: sector))
        target.storeBytes(of: UInt64(stamp) | place << 32, as: UInt64.self)
        target.storeBytes(of: mixed, toByteOffset: 8, as: UInt64.self)
        target.storeBytes(of: ~mixed, toByteOffset: 16, as: UInt64.self)
        target.storeBytes(of: mixed &* 0x2545_F491_4F6C_DD1D, toByteOffset: 24, as: UInt64.self)
    }

    /// What one sector holds.
    package enum Content: Equatable {
        case stamp(Stamp)
        /// Every byte is of one of the two variants; `hash` names the mixture.
        case scribbled(Stamp, hash: UInt64)
        /// No sector that was ever written looks like this.
        case garbage
    }

    package static func read(
        _ source: UnsafeRawPointer, vdi: UInt64, sector: UInt64
    ) -> Content {
        withUnsafeTemporaryAllocation(byteCount: sectorBytes * 2, alignment: 64) { scratch in
            guard let first = scratch.baseAddress else { return .garbage }
            let stamp = source.loadUnaligned(as: Stamp.self)
            if isPlain(source, stamp: stamp, vdi: vdi, sector: sector, first) {
                return .stamp(stamp)
            }
            fill(first, stamp: stamp, vdi: vdi, sector: sector)
            guard stamp != 0 else { return .garbage }
            let second = first + sectorBytes
            fill(second, stamp: stamp, vdi: vdi, sector: sector, variant: .second)
            return mixture(source, first, second, stamp: stamp)
        }
    }

    /// Whether all of the sector is of the first variant, as nearly all are: the unit is the right
    /// one, and each is like the one before it.
    private static func isPlain(
        _ source: UnsafeRawPointer, stamp: Stamp, vdi: UInt64, sector: UInt64,
        _ scratch: UnsafeMutableRawPointer
    ) -> Bool {
        if stamp == 0 {
            memset(scratch, 0, unitBytes)
        } else {
            fillUnit(scratch, stamp: stamp, vdi: vdi, sector: sector, variant: .first)
        }
        return memcmp(scratch, source, unitBytes) == 0
            && memcmp(source, source + unitBytes, sectorBytes - unitBytes) == 0
    }

    private static func mixture(
        _ source: UnsafeRawPointer, _ first: UnsafeMutableRawPointer,
        _ second: UnsafeMutableRawPointer, stamp: Stamp
    ) -> Content {
        var hash: UInt64 = 0
        for index in 0..<sectorBytes {
            let byte = source.load(fromByteOffset: index, as: UInt8.self)
            let isFirst = byte == first.load(fromByteOffset: index, as: UInt8.self)
            guard isFirst || byte == second.load(fromByteOffset: index, as: UInt8.self) else {
                return .garbage
            }
            hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
        }
        return .scribbled(stamp, hash: hash)
    }
}
