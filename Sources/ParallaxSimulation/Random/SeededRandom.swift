// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A replayable source of random numbers (xoshiro256**, seeded through splitmix64).
///
/// The same seed gives the same numbers on every machine and in every build. Not for secrets.
package struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    package init(seed: UInt64) {
        var splitter = seed
        state = (
            Self.split(&splitter), Self.split(&splitter), Self.split(&splitter),
            Self.split(&splitter)
        )
    }

    package mutating func next() -> UInt64 {
        let result = rotateLeft(state.1 &* 5, by: 7) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = rotateLeft(state.3, by: 45)
        return result
    }

    /// A number in `range`, which must not be empty. The tiny bias of the multiplication method
    /// does not matter here, and it draws exactly one number whatever the range.
    package mutating func integer(in range: ClosedRange<Int>) -> Int {
        let width = UInt64(bitPattern: Int64(range.upperBound &- range.lowerBound)) &+ 1
        guard width != 0 else { return Int(truncatingIfNeeded: next()) }
        let step = width.multipliedFullWidth(by: next()).high
        return range.lowerBound &+ Int(truncatingIfNeeded: step)
    }

    /// An index of a collection of `count` elements; `count` must not be 0.
    package mutating func index(below count: Int) -> Int {
        integer(in: 0...(count - 1))
    }

    /// True in `percent` of 100 draws.
    package mutating func chance(percent: Int) -> Bool {
        integer(in: 0...99) < percent
    }

    /// True once in `count` draws on average; never when `count` is 0.
    package mutating func oneIn(_ count: Int) -> Bool {
        guard count > 0 else { return false }
        return integer(in: 1...count) == 1
    }

    /// An index drawn with the given weights, which must not all be 0.
    package mutating func weightedIndex(_ weights: [Int]) -> Int {
        var remaining = integer(in: 1...weights.reduce(0, +))
        for (index, weight) in weights.enumerated() {
            remaining -= weight
            if remaining <= 0 { return index }
        }
        preconditionFailure("SeededRandom: weights add up to less than their sum")
    }

    /// A generator of its own, so that what one operation draws does not shift what others draw.
    package mutating func fork() -> SeededRandom {
        SeededRandom(seed: next())
    }

    private static func split(_ state: inout UInt64) -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return mix(state)
    }

    /// The finaliser of splitmix64: a bijection that spreads every input bit.
    package static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

private func rotateLeft(_ value: UInt64, by count: UInt64) -> UInt64 {
    (value << count) | (value >> (64 - count))
}
