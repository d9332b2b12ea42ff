// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One write, discard or write-zeroes that a simulated guest asked for, and what became of it.
package struct Mutation {
    package enum State {
        case inFlight
        case acknowledged
        /// Answered with an error: it may have been executed, block by block, or not.
        case failed
        /// Not answered before a crash: as for `failed`.
        case interrupted
    }

    package var stamp: Stamp
    package var vdi: UInt64
    package var sectors: Range<UInt64>
    /// The sectors read as zeros afterwards.
    package var isZeroing: Bool
    /// The guest changed its buffer under way: any mixture of two contents is right, for good.
    package var isScribbled = false
    package var state = State.inFlight
    /// Model time; each submission and each answer has its own.
    package var submittedAt: Int
    package var answeredAt = Int.max
    /// Position in the stream's order of acknowledgements.
    package var sequence = Int.max
    /// Its answer does not tell its place in the log: it may be spread over several chunks, or it
    /// is answered only after a sync. So it may survive, or a part of it, although something
    /// acknowledged before it does not.
    package var isLoose: Bool

    /// Answered after a sync of its own: it survives whatever happens, even if something that was
    /// acknowledged a moment before it, but came behind it in the log, does not.
    package var isDurable = false

    /// What a sector holds once this mutation is the last that touched it.
    package var value: Stamp { isZeroing ? 0 : stamp }

    package var blocks: Range<UInt64> {
        let size = UInt64(sectorsPerBlock)
        return (sectors.lowerBound / size)..<((sectors.upperBound + size - 1) / size)
    }

    /// One bit for each sector of `block` that the mutation covers.
    package func mask(in block: UInt64) -> SectorMask {
        let size = UInt64(sectorsPerBlock)
        let start = max(sectors.lowerBound, block * size)
        let end = min(sectors.upperBound, (block + 1) * size)
        guard start < end else { return 0 }
        let width = end - start
        return SectorMask(truncatingIfNeeded: ((UInt64(1) << width) - 1) << (start - block * size))
    }

    /// Whether the log must have it in front of `other`, where both are there. Requests that were
    /// in flight together may come in any order, and the order of their answers need not tell
    /// unless each is a single block without a sync.
    package func isBefore(_ other: Mutation) -> Bool {
        if answeredAt < other.submittedAt { return true }
        // One that failed has no place in that order, wherever it is in the log.
        let isOrdered = !isLoose && !other.isLoose && other.state != .failed
        return isOrdered && sequence < other.sequence
    }

    /// Whether it must be there when exactly `cut.prefix` mutations are.
    package func isRequired(after cut: Cut) -> Bool {
        (isDurable && !cut.isSnapshot) || sequence <= cut.prefix
    }

    package func covers(_ sector: UInt64) -> Bool { sectors.contains(sector) }
}

/// A moment in the order of acknowledgements: what a crash has left, or what a snapshot holds.
package struct Cut {
    /// That many acknowledged mutations are in front of it.
    package var prefix: Int
    /// How many had been acknowledged when the machine stopped, or the snapshot was answered.
    package var whole: Int
    /// What became durable later is none of a snapshot's business.
    package var isSnapshot = false

    package init(prefix: Int, whole: Int, isSnapshot: Bool = false) {
        self.prefix = prefix
        self.whole = whole
        self.isSnapshot = isSnapshot
    }
}

/// One bit for each sector of a block.
package typealias SectorMask = UInt8

/// The stamps of the eight sectors of a block.
package typealias BlockValue = SIMD8<UInt32>

extension BlockValue {
    package mutating func assign(_ value: Stamp, mask: SectorMask) {
        for sector in 0..<sectorsPerBlock where mask & (1 << sector) != 0 {
            self[sector] = value
        }
    }

    /// The sectors in which the two differ.
    package func difference(from other: BlockValue) -> SectorMask {
        var mask: SectorMask = 0
        for sector in 0..<sectorsPerBlock where self[sector] != other[sector] {
            mask |= 1 << sector
        }
        return mask
    }
}
