// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ArgumentParser
internal import ParallaxSimulation
internal import ParallaxXenSimulation

/// Runs the Xen back end on a pretended Xen in simulated worlds, one for each seed.
struct XenSimulation: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xen",
        abstract: "Run the blkif back end on a pretended Xen, over a model of a disk.")

    @OptionGroup var seeds: SeedOptions

    @Option(help: "Run with this fault put in: the simulator has to find it.")
    var canary: BlkifCanary?

    @Option(help: "Operations in each scenario.")
    var operations = BlkifScenario.defaultOperationCount

    func run() throws {
        var requests = 0
        var takeovers = 0
        var verified = 0
        let failures = seeds.runAll(
            operationCount: operations, replay: { replayCommand($0, withKept: true) }
        ) { seed in
            let result = scenario(seed).run()
            requests += result.statistics.requests
            takeovers += result.statistics.takeovers
            verified += result.statistics.verifiedSectors
            return SeedOutcome(
                failure: result.failure, failedAt: result.failedAt,
                minimal: { printMinimal(seed, result) })
        }
        print(
            "\(seeds.range.count) scenarios, \(requests) requests, \(takeovers) sudden ends, "
                + "\(verified) sectors verified, \(failures) failed")
        if failures > 0 { throw ExitCode.failure }
    }

    private func scenario(_ seed: UInt64) -> BlkifScenario {
        var scenario = BlkifScenario(seed: seed, operationCount: operations)
        scenario.kept = seeds.keep?.indices
        scenario.tell = seeds.tell
        scenario.canary = canary
        return scenario
    }

    private func replayCommand(_ seed: UInt64, withKept: Bool) -> String {
        var command = "parallax-sim xen --seed \(seed)"
        if operations != BlkifScenario.defaultOperationCount {
            command += " --operations \(operations)"
        }
        if let canary { command += " --canary \(canary.rawValue)" }
        if withKept, let keep = seeds.keep { command += " --keep \(keep.text)" }
        return command
    }

    private func printMinimal(_ seed: UInt64, _ result: BlkifScenario.Result) {
        var candidate = scenario(seed)
        seeds.printMinimal(
            failedAt: result.failedAt, of: operations,
            replay: replayCommand(seed, withKept: false)
        ) { kept, tell in
            candidate.kept = kept
            candidate.tell = tell
            return candidate.run().failure?.kind == result.failure?.kind
        }
    }
}

extension BlkifCanary: ExpressibleByArgument {}
