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

    @Option(help: "Run this seed.")
    var seed: UInt64?

    @Option(help: "Run the seeds A to B, both included, as A..B.")
    var seeds: SeedRange?

    @Option(help: "Run with this fault put in: the simulator has to find it.")
    var canary: BlkifCanary?

    @Option(help: "Operations in each scenario.")
    var operations = BlkifScenario.defaultOperationCount

    @Option(help: "Carry out only these operations, by index, separated by commas.")
    var keep: OperationList?

    @Flag(help: "Print everything that happens.")
    var trace = false

    @Flag(help: "Leave out operations while the seed still fails, and print what remains.")
    var minimise = false

    @Flag(help: "Go on after a seed that failed.")
    var keepGoing = false

    func run() throws {
        let range = seeds?.range ?? (seed ?? 1)...(seed ?? 1)
        var failures = 0
        var requests = 0
        var takeovers = 0
        var verified = 0
        for seed in range {
            CrashNote.prepare(replay: replayCommand(seed))
            let result = scenario(seed).run()
            if trace { for line in result.trace { print(line) } }
            requests += result.statistics.requests
            takeovers += result.statistics.takeovers
            verified += result.statistics.verifiedSectors
            guard let failure = result.failure else { continue }
            failures += 1
            print("seed \(seed) failed: \(failure)")
            if let failedAt = result.failedAt { print("  at operation \(failedAt)") }
            print("  replay: \(replayCommand(seed)) --trace")
            if minimise { printMinimal(seed, result) }
            if !keepGoing { break }
        }
        print(
            "\(range.count) scenarios, \(requests) requests, \(takeovers) sudden ends, "
                + "\(verified) sectors verified, \(failures) failed")
        if failures > 0 { throw ExitCode.failure }
    }

    private func scenario(_ seed: UInt64) -> BlkifScenario {
        var scenario = BlkifScenario(seed: seed, operationCount: operations)
        scenario.kept = keep?.indices
        scenario.keepsTrace = trace
        scenario.canary = canary
        return scenario
    }

    private func replayCommand(_ seed: UInt64) -> String {
        var command = "parallax-sim xen --seed \(seed)"
        if operations != BlkifScenario.defaultOperationCount {
            command += " --operations \(operations)"
        }
        if let canary { command += " --canary \(canary.rawValue)" }
        if let keep { command += " --keep \(keep.text)" }
        return command
    }

    private func printMinimal(_ seed: UInt64, _ result: BlkifScenario.Result) {
        let last = min(result.failedAt ?? operations, operations - 1)
        let candidates = (0...max(last, 0)).filter { keep?.indices.contains($0) ?? true }
        let minimal = Minimiser().minimise(candidates) { kept in
            var candidate = scenario(seed)
            candidate.kept = kept
            return candidate.run().failure?.kind == result.failure?.kind
        }
        let list = minimal.isEmpty ? "none" : minimal.map(String.init).joined(separator: ",")
        print("  minimal: \(replayCommand(seed)) --keep \(list) --trace")
    }
}

extension BlkifCanary: ExpressibleByArgument {}
