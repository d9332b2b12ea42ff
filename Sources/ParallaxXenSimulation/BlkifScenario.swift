// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxGuest
package import ParallaxSimulation

/// One seed: a machine with a blkif device, a list of operations, a verdict. The same seed gives
/// the same events in the same order on every machine.
package struct BlkifScenario {
    package let seed: UInt64
    package let operationCount: Int
    /// The operations to carry out, by index; nil for all.
    package var kept: Set<Int>?
    /// Is told what happens, line by line.
    package var tell: ((String) -> Void)?
    package var canary: BlkifCanary?

    package static let defaultOperationCount = 150

    package init(seed: UInt64, operationCount: Int = Self.defaultOperationCount) {
        self.seed = seed
        self.operationCount = operationCount
    }

    package struct Result {
        package var failure: SimulationFailure?
        /// `operationCount` for the final checks, -1 for the beginning.
        package var failedAt: Int?
        package var hash: UInt64
        package var statistics: BlkifStatistics
    }

    enum Operation: String, CaseIterable {
        case burst, turns, hear, settle, disturb, fail, recover, verify
        case reload, kexec, kill, restart, detach, destroy, resize, offend

        var weight: Int {
            switch self {
            case .burst: 40
            case .turns: 30
            case .hear: 20
            case .settle: 4
            case .disturb, .fail, .recover, .verify: 1
            case .kill: 5
            case .reload, .restart, .resize: 2
            case .kexec, .detach, .destroy, .offend: 1
            }
        }
    }

    package func run() -> Result {
        var random = SeededRandom(seed: seed)
        var world = BlkifMachine.World()
        world.requestRoom = 1 << random.integer(in: 2...7)
        world.isReadOnly = random.oneIn(8)
        world.canary = canary
        let weights = Operation.allCases.map(\.weight)
        let operations = (0..<operationCount).map { _ in
            (Operation.allCases[random.weightedIndex(weights)], random.next())
        }
        let machine = BlkifMachine(world, tell: tell)
        var failure: SimulationFailure?
        var index = -1
        do throws(SimulationFailure) {
            try machine.begin(&random)
            index = 0
            while index < operations.count {
                if kept?.contains(index) ?? true {
                    try machine.perform(operations[index].0, index, seed: operations[index].1)
                }
                index += 1
            }
            var last = SeededRandom(seed: seed &+ 1)
            try machine.verify(&last)
        } catch {
            failure = error
        }
        return Result(
            failure: failure, failedAt: failure == nil ? nil : index,
            hash: machine.guest.trace.hash,
            statistics: machine.statistics)
    }
}

package struct BlkifStatistics: Sendable {
    package var requests = 0
    package var answers = 0
    package var refusals = 0
    package var errors = 0
    package var turns = 0
    package var takeovers = 0
    package var verifiedSectors = 0
}

extension BlkifMachine {
    var statistics: BlkifStatistics {
        BlkifStatistics(
            requests: guest.statistics.requests, answers: guest.statistics.answers,
            refusals: guest.statistics.refusals, errors: guest.statistics.errors, turns: turns,
            takeovers: takeovers, verifiedSectors: guest.model.verified)
    }

    func perform(
        _ operation: BlkifScenario.Operation, _ index: Int, seed: UInt64
    ) throws(SimulationFailure) {
        guest.trace.note(.operation, UInt64(index), "operation \(index): \(operation)")
        var random = SeededRandom(seed: seed)
        switch operation {
        case .burst: guest.burst(random.integer(in: 1...12), &random, mayFail: isFailing)
        case .turns: for _ in 0..<random.integer(in: 1...4) { try turn(&random) }
        case .hear: _ = try guest.hearEvents()
        case .settle: try settle(&random)
        case .disturb: xen.store.disturbTransactions(random.integer(in: 1...20))
        case .fail:
            isFailing = true
            guest.noteFailing()
        case .recover: isFailing = false
        case .verify: try verify(&random)
        case .reload: try reload(&random)
        case .kexec: try kexec(&random)
        case .kill: try killDaemon(&random)
        case .restart: try restartDaemon(&random)
        case .detach: try detach(&random)
        case .destroy: try destroyDomain(&random)
        case .resize: try resizeDisk(&random)
        case .offend: try offend(&random)
        }
    }
}
