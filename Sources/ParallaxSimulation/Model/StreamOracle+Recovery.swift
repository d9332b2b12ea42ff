// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What a VDI's block turned out to hold after a crash.
package struct Observation {
    package var vdi: UInt64
    package var block: UInt64
    /// Nil if the block could not be read.
    package var value: BlockValue?

    package init(vdi: UInt64, block: UInt64, value: BlockValue?) {
        self.vdi = vdi
        self.block = block
        self.value = value
    }
}

extension StreamOracle {
    /// Judges what was found after `crash`, and takes it as the truth from now on.
    ///
    /// `observations` has every tracked block of every VDI once, in a fixed order. Returns what
    /// is wrong, or nil.
    package func resolve(_ observations: [Observation], after mode: CrashMode) -> String? {
        if hasLostTrust { return resolveWithoutTrust(observations) }
        let readable = observations.filter { $0.value != nil }
        let lowest = mode == .powerLoss ? safeSequence : sequence
        guard let prefix = longestPrefix(readable, from: lowest) else {
            return explainFailure(readable, from: lowest, mode: mode)
        }
        var survivors: Set<Stamp> = []
        for observation in readable {
            settle(observation, after: prefix, keepsHistory: mode == .processLoss, &survivors)
        }
        for observation in observations where observation.value == nil {
            disks[observation.vdi]?.blocks[observation.block]?.forget()
        }
        acknowledgeSurvivors(survivors)
        if mode == .powerLoss { markAllSafe() }
        return nil
    }

    /// The greatest prefix in `lowest...sequence` that explains every block.
    private func longestPrefix(_ observations: [Observation], from lowest: Int) -> Int? {
        var order = observations
        var prefix = sequence
        while prefix >= lowest {
            guard let failing = order.firstIndex(where: { explain($0, after: prefix) == nil })
            else {
                return prefix
            }
            // The same block will likely rule out the next candidate as well.
            order.swapAt(0, failing)
            prefix -= 1
        }
        return nil
    }

    private func explain(
        _ observation: Observation, after prefix: Int
    ) -> BlockHistory.Explanation? {
        guard let value = observation.value else { return BlockHistory.Explanation(survivors: []) }
        let history = disks[observation.vdi]?.blocks[observation.block] ?? BlockHistory()
        return explain(value, history, Cut(prefix: prefix, whole: sequence))
    }

    /// Whether a block with this history may hold `value` at `cut`.
    func explain(
        _ value: BlockValue, _ history: BlockHistory, _ cut: Cut
    ) -> BlockHistory.Explanation? {
        if history.isUncertain { return BlockHistory.Explanation(survivors: []) }
        let nextAnswer = answerTime(of: cut.prefix + 1)
        let isWhole = cut.prefix == cut.whole
        return history.explain(value, after: cut, in: table) { mutation in
            if isWhole && mutation.sequence > cut.whole { return true }
            let mayBePart = mutation.isLoose || mutation.state == .interrupted
            return mayBePart && mutation.submittedAt < nextAnswer
        }
    }

    /// Takes the block's content as the truth. After the loss of the process only, the versions
    /// that led to it stay on record, for they may still be lost with the power.
    private func settle(
        _ observation: Observation, after prefix: Int, keepsHistory: Bool,
        _ survivors: inout Set<Stamp>
    ) {
        guard let disk = disks[observation.vdi], let value = observation.value,
            var history = disk.blocks[observation.block]
        else { return }
        if keepsHistory, !history.isUncertain {
            let shown = explain(observation, after: prefix)?.survivors.reversed() ?? []
            let stamps = shown.map(\.stamp)
            survivors.formUnion(stamps)
            history.versions += shown
            if !shown.isEmpty {
                // Hidden below a survivor, others may come to light when that one is lost.
                history.ghosts += history.maybes.filter { !stamps.contains($0.stamp) }
                    .map { ($0, sequence + 1) }
            }
        } else {
            history.base = value
            history.versions = []
            history.ghosts = []
        }
        history.maybes = []
        history.unknown = 0
        history.unknownBase = 0
        history.current = value
        disk.blocks[observation.block] = history
    }

    private func resolveWithoutTrust(_ observations: [Observation]) -> String? {
        for observation in observations {
            guard let value = observation.value else {
                disks[observation.vdi]?.blocks[observation.block]?.forget()
                continue
            }
            for place in 0..<sectorsPerBlock {
                let sector = observation.block * UInt64(sectorsPerBlock) + UInt64(place)
                guard wasEverWritten(value[place], vdi: observation.vdi, sector: sector) else {
                    return """
                        sector \(sector) of VDI \(hex(observation.vdi)) holds \
                        \(describe(value[place])), which was never written there
                        """
                }
            }
            var history = BlockHistory()
            history.base = value
            history.current = value
            disks[observation.vdi]?.blocks[observation.block] = history
        }
        markAllSafe()
        return nil
    }

    /// Which blocks cannot be reconciled.
    private func explainFailure(
        _ observations: [Observation], from lowest: Int, mode: CrashMode
    ) -> String {
        var reached: [(observation: Observation, prefixes: [Int])] = []
        for observation in observations {
            let prefixes = (lowest...sequence).filter { explain(observation, after: $0) != nil }
            if prefixes.isEmpty { return describeImpossible(observation, lowest, mode) }
            if prefixes.count <= sequence - lowest { reached.append((observation, prefixes)) }
        }
        for (index, first) in reached.enumerated() {
            for second in reached[(index + 1)...]
            where Set(first.prefixes).isDisjoint(with: second.prefixes) {
                return """
                    after \(mode) no prefix explains both \
                    \(describe(first.observation)), which needs \(summary(first.prefixes)), and \
                    \(describe(second.observation)), which needs \(summary(second.prefixes)) \
                    (acknowledged \(sequence), safe \(safeSequence))
                    """
            }
        }
        return "after \(mode) no prefix in \(lowest)...\(sequence) explains all blocks"
    }

    private func describeImpossible(
        _ observation: Observation, _ lowest: Int, _ mode: CrashMode
    ) -> String {
        let history = disks[observation.vdi]?.blocks[observation.block] ?? BlockHistory()
        let expected = history.value(
            after: Cut(prefix: lowest, whole: sequence), in: table)
        return """
            after \(mode) \(describe(observation)) cannot be explained by any prefix in \
            \(lowest)...\(sequence); the shortest gives \(expected), all of it \
            \(history.current); versions \(history.versions.map { describe($0.stamp) }), \
            perhaps \(history.maybes.map { describe($0.stamp) })
            """
    }

    private func describe(_ observation: Observation) -> String {
        let value = observation.value.map { "\($0)" } ?? "unreadable"
        return "block \(observation.block) of VDI \(hex(observation.vdi)) = \(value)"
    }

    private func summary(_ prefixes: [Int]) -> String {
        guard let low = prefixes.first, let high = prefixes.last else { return "none" }
        return "\(low)...\(high)"
    }
}

extension BlockHistory {
    /// Nothing is known of the block any more.
    mutating func forget() {
        self = BlockHistory()
        unknown = SectorMask.max
        unknownBase = SectorMask.max
    }
}
