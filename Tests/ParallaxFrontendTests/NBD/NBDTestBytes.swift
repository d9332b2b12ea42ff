// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import Testing

/// Bytes that tell where they come from: 4 KiB of noise again and again, each with its number in
/// front. Made and compared by the C library, because tests run unoptimised.
func pattern(_ count: Int, seed: Int = 0) -> [UInt8] {
    var random = SplitMix(seed: UInt64(truncatingIfNeeded: seed))
    let noise = (0..<512).map { _ in random.next() }
    return [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
        var offset = 0
        while offset < count, let base = bytes.baseAddress {
            memcpy(base + offset, noise, min(4096, count - offset))
            if offset + 8 <= count {
                UnsafeMutableRawPointer(base + offset).storeBytes(of: offset, as: Int.self)
            }
            offset += 4096
        }
        initialized = count
    }
}

func isSame(_ left: [UInt8]?, _ right: [UInt8]) -> Bool {
    guard let left, left.count == right.count else { return false }
    return memcmp(left, right, left.count) == 0
}

/// `#expect` would print every byte of what was compared.
func expect(_ isTrue: Bool, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(isTrue, sourceLocation: sourceLocation)
}

/// A small generator that gives the same numbers for the same seed everywhere.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
