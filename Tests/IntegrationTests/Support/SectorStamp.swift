// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// What the load writes: each sector says which it is and how often it has been written. Cheaper to
/// make and to check in a debug build than `SectorPattern`.
///
///      0        8            16                              512
///     +--------+------------+----------------------------------+
///     | sector | generation | one byte, made of both, repeated |
///     +--------+------------+----------------------------------+
enum SectorStamp {
    static let bytes = 512

    private static func filler(_ sector: Int, _ generation: UInt32) -> UInt8 {
        // Never 0, so that zeroes are told from any generation.
        UInt8(truncatingIfNeeded: (sector &* 31) &+ Int(generation) &* 7) | 1
    }

    /// `memory` holds at least one sector.
    static func write(_ memory: UnsafeMutableRawPointer, sector: Int, generation: UInt32) {
        memory.storeBytes(of: UInt64(sector), as: UInt64.self)
        memory.storeBytes(of: UInt64(generation), toByteOffset: 8, as: UInt64.self)
        memset(memory + 16, Int32(filler(sector, generation)), bytes - 16)
    }

    /// The generation that a sector holds; 0 for zeroes, nil for anything else.
    static func read(_ memory: UnsafeRawPointer, sector: Int) -> UInt32? {
        let found = memory.loadUnaligned(as: UInt64.self)
        let generation = memory.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        let byte = memory.load(fromByteOffset: 16, as: UInt8.self)
        guard memcmp(memory + 16, memory + 17, bytes - 17) == 0 else { return nil }
        if found == 0, generation == 0, byte == 0 { return 0 }
        guard found == UInt64(sector), let number = UInt32(exactly: generation), number > 0,
            byte == filler(sector, number)
        else { return nil }
        return number
    }
}
