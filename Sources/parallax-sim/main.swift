// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ArgumentParser
internal import Glibc
internal import ParallaxSimulation

struct ParallaxSim: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "parallax-sim",
        abstract: "Run the shipping code in simulated worlds, one for each seed.",
        discussion: """
            A failing seed is printed with the command that replays it. Exit status: 0 if every \
            seed passed, 1 if one failed.
            """,
        subcommands: [StoreSimulation.self, XenSimulation.self],
        defaultSubcommand: StoreSimulation.self)
}

/// Runs the storage engine in simulated worlds, one for each seed.
struct StoreSimulation: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store",
        abstract: "Run the storage engine over a simulated device, with faults drawn from a seed.")

    @Option(help: "Run this seed.")
    var seed: UInt64?

    @Option(help: "Run the seeds A to B, both included, as A..B.")
    var seeds: SeedRange?

    @Option(help: "Run an engine with this fault put in: the simulator has to find it.")
    var canary: CanaryStore.Fault?

    @Option(help: "Operations in each scenario.")
    var operations = Scenario.defaultOperationCount

    @Option(help: "Carry out only these operations, by index, separated by commas.")
    var keep: OperationList?

    @Flag(inversion: .prefixedNo, help: "Make snapshots, clones, rollbacks and groups as well.")
    var versions = true

    @Flag(help: "Print everything that happens.")
    var trace = false

    @Flag(help: "Leave out operations while the seed still fails, and print what remains.")
    var minimise = false

    @Flag(help: "Go on after a seed that failed.")
    var keepGoing = false

    func run() throws {
        let range = seeds?.range ?? (seed ?? 1)...(seed ?? 1)
        var failures = 0
        var totals = Totals()
        for seed in range {
            CrashNote.prepare(replay: replayCommand(seed))
            let result = scenario(seed).run()
            if trace { for line in result.trace { print(line) } }
            totals.add(result)
            guard let failure = result.failure else { continue }
            failures += 1
            report(failure, result, seed)
            if minimise { printMinimal(seed, result) }
            if !keepGoing { break }
        }
        print("\(totals.summary), \(failures) failed")
        if failures > 0 { throw ExitCode.failure }
    }

    private func scenario(_ seed: UInt64) -> Scenario {
        var scenario = Scenario(
            seed: seed, operationCount: operations, hasVersions: versions, store: makeStore)
        scenario.kept = keep?.indices
        scenario.keepsTrace = trace
        return scenario
    }

    private func makeStore(_ shape: StoreShape) -> any StoreUnderTest {
        canary.map { CanaryStore(shape, fault: $0) } ?? ShippingStore(shape)
    }

    private func replayCommand(_ seed: UInt64) -> String {
        var command = "parallax-sim --seed \(seed)"
        if operations != Scenario.defaultOperationCount { command += " --operations \(operations)" }
        if !versions { command += " --no-versions" }
        if let canary { command += " --canary \(canary.rawValue)" }
        if let keep { command += " --keep \(keep.text)" }
        return command
    }

    private func report(_ failure: SimulationFailure, _ result: Scenario.Result, _ seed: UInt64) {
        print("seed \(seed) (\(scenario(seed).profile.character)) failed: \(failure)")
        if let failedAt = result.failedAt { print("  at operation \(failedAt)") }
        print("  replay: \(replayCommand(seed)) --trace")
        fflush(nil)
    }

    private func printMinimal(_ seed: UInt64, _ result: Scenario.Result) {
        let last = min(result.failedAt ?? operations, operations - 1)
        let candidates = (0...max(last, 0)).filter { keep?.indices.contains($0) ?? true }
        let minimal = Minimiser().minimise(candidates) { kept in
            var candidate = scenario(seed)
            candidate.kept = kept
            return candidate.run().failure?.kind == result.failure?.kind
        }
        let list = minimal.isEmpty ? "none" : minimal.map(String.init).joined(separator: ",")
        print(
            "  minimal: parallax-sim --seed \(seed) --operations \(operations)"
                + "\(versions ? "" : " --no-versions") --keep \(list) --trace"
        )
    }
}

/// What all scenarios of a run amount to.
private struct Totals {
    private var scenarios = 0
    private var requests = 0
    private var crashes = 0
    private var verified = 0
    private var commands = 0
    private var snapshots = 0
    private var groups = 0
    private var diffs = 0
    private var censuses = 0

    mutating func add(_ result: Scenario.Result) {
        scenarios += 1
        requests += result.statistics.requests
        crashes += result.statistics.crashes
        verified += result.statistics.verifiedBlocks
        snapshots += result.statistics.snapshots
        groups += result.statistics.groups
        diffs += result.statistics.diffs
        censuses += result.statistics.censuses
        commands += result.device.reads + result.device.writes + result.device.syncs
    }

    var summary: String {
        "\(scenarios) scenarios, \(requests) requests, \(commands) device commands, "
            + "\(crashes) crashes, \(snapshots) snapshots, \(groups) groups, \(diffs) diffs, "
            + "\(censuses) censuses, \(verified) blocks verified"
    }
}

extension CanaryStore.Fault: ExpressibleByArgument {}

struct SeedRange: ExpressibleByArgument {
    let range: ClosedRange<UInt64>

    init?(argument: String) {
        let ends = argument.split(separator: ".", omittingEmptySubsequences: true)
        guard ends.count == 2, let first = UInt64(ends[0]), let last = UInt64(ends[1]),
            first <= last
        else { return nil }
        range = first...last
    }
}

struct OperationList: ExpressibleByArgument {
    let text: String
    let indices: Set<Int>

    init?(argument: String) {
        text = argument
        let parts = argument == "none" ? [] : argument.split(separator: ",")
        let numbers = parts.compactMap { Int($0) }
        guard numbers.count == parts.count else { return nil }
        indices = Set(numbers)
    }
}

ParallaxSim.main()
