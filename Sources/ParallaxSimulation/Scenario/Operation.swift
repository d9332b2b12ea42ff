// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One thing that happens in a scenario. All that it draws comes from its own seed, so that
/// leaving out other operations changes it as little as possible.
package struct Operation {
    package enum Kind: String, CaseIterable {
        case burst, run, drain, verify, scribble, refused, create, resize, rename, delete
        case checkpoint, clockJump, crashProcess, crashPower, restart
        case snapshot, storm, clone, chain, deleteSnapshot, deleteMany, rollback, group, details
        case template, readSnapshot, closeSnapshot, diff, wrongVersion
        case clean, retain
        case relapse, rotLog, stall
        case ration, scrub

        /// The kinds that `Profile.VersionWeights` weighs, in its order.
        static let versions: [Kind] = [
            .snapshot, .storm, .clone, .chain, .deleteSnapshot, .deleteMany, .rollback, .group,
            .details, .template, .readSnapshot, .closeSnapshot, .diff, .wrongVersion,
        ]
    }

    package var kind: Kind
    package var seed: UInt64

    package init(kind: Kind, seed: UInt64) {
        self.kind = kind
        self.seed = seed
    }

    static func random(_ weights: Profile.Weights, _ random: inout SeededRandom) -> Operation {
        let table = [
            weights.burst, weights.run, weights.drain, weights.verify, weights.scribble,
            weights.refused, weights.create, weights.resize, weights.rename, weights.delete,
            weights.checkpoint, weights.clockJump, weights.crashProcess, weights.crashPower,
            weights.restart,
        ]
        // Worlds without what came later draw as they did before.
        let later: [(kind: Kind, weight: Int)] = [
            (.clean, weights.clean), (.relapse, weights.relapse), (.rotLog, weights.rotLog),
            (.stall, weights.stall), (.ration, weights.ration), (.scrub, weights.scrub),
        ].filter { $0.weight > 0 }
        let index = random.weightedIndex(table + later.map(\.weight))
        return Operation(
            kind: index < table.count ? Kind.allCases[index] : later[index - table.count].kind,
            seed: random.next())
    }

    static func random(
        _ weights: Profile.VersionWeights, _ random: inout SeededRandom
    ) -> Operation {
        let table = [
            weights.snapshot, weights.storm, weights.clone, weights.chain, weights.deleteSnapshot,
            weights.deleteMany, weights.rollback, weights.group, weights.details, weights.template,
            weights.readSnapshot, weights.closeSnapshot, weights.diff, weights.wrongVersion,
        ]
        // Worlds without retention draw as they did before there was one.
        guard weights.retain > 0 else {
            return Operation(
                kind: Kind.versions[random.weightedIndex(table)], seed: random.next())
        }
        let index = random.weightedIndex(table + [weights.retain])
        return Operation(
            kind: index == table.count ? .retain : Kind.versions[index], seed: random.next())
    }
}
