// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// All that one block of a VDI may hold, now and after a crash.
///
///     base -- version -- version -- version = current
///      |       (in the order of acknowledgement)
///      +-- survives anything              maybes: may have been executed, nobody knows
package struct BlockHistory {
    package struct Version {
        package var stamp: Stamp
        package var mask: SectorMask
    }

    package var base = BlockValue(repeating: 0)
    package var versions: [Version] = []
    package var maybes: [Version] = []
    package var current = BlockValue(repeating: 0)
    /// Sectors of which nothing is known any more, except that they hold something that was once
    /// written to them: the device lied.
    package var unknown: SectorMask = 0
    /// Sectors of which that is true of `base`: a read that began before they were overwritten may
    /// still return it.
    package var unknownBase: SectorMask = 0

    /// Unacknowledged mutations that a crash of the process left below others, or not at all: they
    /// may come to light when the power fails, unless what covers them is safe.
    package var ghosts: [(version: Version, sequence: Int)] = []

    package init() {}

    /// Nobody has ever written here.
    package var isUntouched: Bool {
        versions.isEmpty && maybes.isEmpty && !isUncertain && base == BlockValue(repeating: 0)
    }

    package var isUncertain: Bool { unknown != 0 || unknownBase != 0 }
}

/// What is needed to judge a block: the table of mutations.
package struct MutationTable {
    private var mutations: [Mutation] = []

    package init() {}

    package var count: Int { mutations.count }

    package mutating func append(_ make: (Stamp) -> Mutation) -> Stamp {
        let stamp = Stamp(mutations.count + 1)
        mutations.append(make(stamp))
        return stamp
    }

    package func contains(_ stamp: Stamp) -> Bool { stamp > 0 && Int(stamp) <= mutations.count }

    package subscript(stamp: Stamp) -> Mutation {
        get { mutations[Int(stamp) - 1] }
        set { mutations[Int(stamp) - 1] = newValue }
    }
}

extension BlockHistory {
    /// Records that `stamp` was acknowledged as the newest.
    package mutating func acknowledge(_ stamp: Stamp, mask: SectorMask, in table: MutationTable) {
        let mutation = table[stamp]
        versions.append(Version(stamp: stamp, mask: mask))
        unknown &= ~mask
        current.assign(mutation.value, mask: mask)
    }

    /// Moves into the base what is safe and what no request in flight can still be mixed up with.
    package mutating func fold(safeSequence: Int, oldestInFlight: Int, in table: MutationTable) {
        func isPast(_ version: Version) -> Bool {
            let mutation = table[version.stamp]
            return mutation.sequence <= safeSequence && mutation.answeredAt < oldestInFlight
        }
        for version in versions where isPast(version) && !maybes.isEmpty {
            for index in maybes.indices
            where table[maybes[index].stamp].isBefore(table[version.stamp]) {
                maybes[index].mask &= ~version.mask
            }
        }
        maybes.removeAll { $0.mask == 0 }
        while let first = versions.first, isPast(first) {
            let mutation = table[first.stamp]
            let others = versions.dropFirst().filter { $0.mask & first.mask != 0 }
            let isCovered = others.contains {
                isPast($0) && first.mask & ~$0.mask == 0 && mutation.isBefore(table[$0.stamp])
            }
            // As long as another one may have come before it, nobody knows what is below which.
            guard isCovered || others.allSatisfy({ mutation.isBefore(table[$0.stamp]) }) else {
                return
            }
            // Nor may it be known what is below one that was perhaps never executed.
            let isMixed = maybes.contains {
                $0.mask & first.mask != 0 && !mutation.isBefore(table[$0.stamp])
            }
            guard isCovered || !isMixed else { return }
            if !isCovered {
                base.assign(mutation.value, mask: first.mask)
                unknownBase &= ~first.mask
            }
            versions.removeFirst()
        }
    }

    /// Whether a read that was submitted at `submittedAt` and ends now may return `observed` for
    /// `sector`, leaving aside what is still in flight.
    package func allows(
        _ observed: Stamp, sector: Int, submittedAt: Int, in table: MutationTable
    ) -> Bool {
        let bit = SectorMask(1) << sector
        let here = versions.filter { $0.mask & bit != 0 }.map { table[$0.stamp] }
        let past = here.filter { $0.answeredAt <= submittedAt }
        if past.isEmpty && base[sector] == observed { return true }
        let isVersion = here.contains { candidate in
            candidate.value == observed && !past.contains { candidate.isBefore($0) }
        }
        if isVersion { return true }
        return maybes.contains { maybe in
            let mutation = table[maybe.stamp]
            return maybe.mask & bit != 0 && mutation.value == observed
                && !past.contains { mutation.isBefore($0) }
        }
    }

    /// Whether such a read may return what nobody knows.
    package func mayBeUnknown(sector: Int, submittedAt: Int, in table: MutationTable) -> Bool {
        let bit = SectorMask(1) << sector
        if unknown & bit != 0 { return true }
        return unknownBase & bit != 0
            && !versions.contains {
                $0.mask & bit != 0 && table[$0.stamp].answeredAt <= submittedAt
            }
    }

    /// The block after exactly the first `cut.prefix` acknowledged mutations.
    package func value(after cut: Cut, in table: MutationTable) -> BlockValue {
        var value = base
        for version in versions {
            let mutation = table[version.stamp]
            if mutation.isRequired(after: cut) {
                value.assign(mutation.value, mask: version.mask)
            }
        }
        return value
    }

    /// What a recovered block can be explained with, newest first; nil if it cannot.
    package struct Explanation {
        package var survivors: [Version]
    }

    /// Whether `observed` is the block after `cut.prefix` acknowledged mutations, with any of the
    /// candidates (each in whole) among them.
    package func explain(
        _ observed: BlockValue, after cut: Cut, in table: MutationTable,
        mayHaveSurvived: (Mutation) -> Bool
    ) -> Explanation? {
        if observed == value(after: cut, in: table) { return Explanation(survivors: []) }
        let required = versions.filter { table[$0.stamp].isRequired(after: cut) }
        let later = versions.filter { !table[$0.stamp].isRequired(after: cut) }
        let doubtful = ghosts.filter { $0.sequence > cut.prefix }.map(\.version)
        let candidates = (later + maybes + doubtful).filter { mayHaveSurvived(table[$0.stamp]) }
        for prefersCandidates in [false, true] {
            var peeling = Peeling(
                observed: observed, base: base, required: required, candidates: candidates)
            if peeling.run(table, prefersCandidates: prefersCandidates) {
                return Explanation(survivors: peeling.survivors)
            }
        }
        return nil
    }
}

/// Explains a block from its last writer down to its first. The last writer shows in all of its
/// sectors; whoever is below it, in all that nobody above covers. Those that are required come
/// each in its turn; candidates only where they show.
private struct Peeling {
    let observed: BlockValue
    let base: BlockValue
    var required: [BlockHistory.Version]
    var candidates: [BlockHistory.Version]
    var survivors: [BlockHistory.Version] = []
    private var peeled: [BlockHistory.Version] = []
    private var hidden: SectorMask = 0

    init(
        observed: BlockValue, base: BlockValue, required: [BlockHistory.Version],
        candidates: [BlockHistory.Version]
    ) {
        self.observed = observed
        self.base = base
        self.required = required
        self.candidates = candidates
    }

    mutating func run(_ table: MutationTable, prefersCandidates: Bool) -> Bool {
        while !isDone {
            let hasMoved =
                prefersCandidates
                ? peelCandidate(table) || peelRequired(table)
                : peelRequired(table) || peelCandidate(table)
            if !hasMoved { return false }
        }
        return true
    }

    private var isDone: Bool {
        required.isEmpty && observed.difference(from: base) & ~hidden == 0
    }

    private mutating func peelRequired(_ table: MutationTable) -> Bool {
        guard let index = required.lastIndex(where: { isTop($0, table) }) else { return false }
        peel(required.remove(at: index))
        return true
    }

    private mutating func peelCandidate(_ table: MutationTable) -> Bool {
        let tops = candidates.indices.filter { index in
            candidates[index].mask & ~hidden != 0 && isTop(candidates[index], table)
        }
        // Once a write that came before another is peeled, the other cannot be below it any more.
        let index = tops.last { index in
            let mutation = table[candidates[index].stamp]
            return !tops.contains { other in
                candidates[other].mask & candidates[index].mask != 0
                    && mutation.isBefore(table[candidates[other].stamp])
            }
        }
        guard let index else { return false }
        survivors.append(candidates[index])
        peel(candidates.remove(at: index))
        return true
    }

    private mutating func peel(_ version: BlockHistory.Version) {
        hidden |= version.mask
        peeled.append(version)
    }

    private func isTop(_ version: BlockHistory.Version, _ table: MutationTable) -> Bool {
        let mutation = table[version.stamp]
        let shown = version.mask & ~hidden
        for sector in 0..<sectorsPerBlock
        where shown & (1 << sector) != 0 && observed[sector] != mutation.value { return false }
        let isBelow = required.contains {
            $0.mask & version.mask != 0 && mutation.isBefore(table[$0.stamp])
        }
        let isAbove = peeled.contains {
            $0.mask & version.mask != 0 && table[$0.stamp].isBefore(mutation)
        }
        return !isBelow && !isAbove
    }
}
