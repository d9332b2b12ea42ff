// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ArgumentParser
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

    @OptionGroup var seeds: SeedOptions

    @Option(help: "Run an engine with this fault put in: the simulator has to find it.")
    var canary: CanaryStore.Fault?

    @Option(help: "Operations in each scenario.")
    var operations = Scenario.defaultOperationCount

    @Flag(inversion: .prefixedNo, help: "Make snapshots, clones, rollbacks and groups as well.")
    var versions = true

    @Flag(
        inversion: .prefixedNo,
        help: "Make use of retention, and of a device that damages what it stores.")
    var damage = true

    @Flag(
        inversion: .prefixedNo,
        help: "Make use of worlds for rare sequences of events; a seed is another world without.")
    var straits = true

    func run() throws {
        var totals = Totals()
        let failures = seeds.runAll(
            operationCount: operations, replay: { replayCommand($0, withKept: true) }
        ) { seed in
            let result = scenario(seed).run()
            totals.add(result)
            return SeedOutcome(
                failure: result.failure, failedAt: result.failedAt,
                world: " (\(scenario(seed).profile.character))",
                minimal: { printMinimal(seed, result) })
        }
        print("\(totals.summary), \(failures) failed")
        if failures > 0 { throw ExitCode.failure }
    }

    private func scenario(_ seed: UInt64) -> Scenario {
        var scenario = Scenario(
            seed: seed, operationCount: operations, hasVersions: versions, hasDamage: damage,
            hasStraits: straits,
            store: makeStore)
        scenario.kept = seeds.keep?.indices
        scenario.tell = seeds.tell
        return scenario
    }

    private func makeStore(_ shape: StoreShape) -> any StoreUnderTest {
        canary.map { CanaryStore(shape, fault: $0) } ?? ShippingStore(shape)
    }

    private func replayCommand(_ seed: UInt64, withKept: Bool) -> String {
        var command = "parallax-sim --seed \(seed)"
        if operations != Scenario.defaultOperationCount { command += " --operations \(operations)" }
        if !versions { command += " --no-versions" }
        if !damage { command += " --no-damage" }
        if damage && !straits { command += " --no-straits" }
        if let canary { command += " --canary \(canary.rawValue)" }
        if withKept, let keep = seeds.keep { command += " --keep \(keep.text)" }
        return command
    }

    private func printMinimal(_ seed: UInt64, _ result: Scenario.Result) {
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

/// What all scenarios of a run amount to.
private struct Totals {
    private var scenarios = 0
    private var operations = 0
    private var requests = 0
    private var crashes = 0
    private var verified = 0
    private var commands = 0
    private var snapshots = 0
    private var groups = 0
    private var diffs = 0
    private var censuses = 0
    private var storeChecks = 0
    private var cutLogs = 0
    private var refusedOpens = 0

    mutating func add(_ result: Scenario.Result) {
        scenarios += 1
        operations += result.statistics.operations
        cutLogs += result.statistics.cutLogs
        refusedOpens += result.statistics.refusedOpens
        requests += result.statistics.requests
        crashes += result.statistics.crashes
        verified += result.statistics.verifiedBlocks
        snapshots += result.statistics.snapshots
        groups += result.statistics.groups
        diffs += result.statistics.diffs
        censuses += result.statistics.censuses
        storeChecks += result.statistics.storeChecks
        commands += result.device.reads + result.device.writes + result.device.syncs
    }

    var summary: String {
        "\(scenarios) scenarios, \(operations) operations, \(requests) requests, \(commands) device commands, "
            + "\(crashes) crashes, \(snapshots) snapshots, \(groups) groups, \(diffs) diffs, "
            + "\(censuses) censuses, \(storeChecks) store checks, \(verified) blocks verified, "
            + "\(refusedOpens) damaged stores not opened, \(cutLogs) damaged logs cut short"
    }
}

extension CanaryStore.Fault: ExpressibleByArgument {}

ParallaxSim.main()
