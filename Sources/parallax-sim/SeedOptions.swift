// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ArgumentParser
internal import Glibc
internal import ParallaxSimulation

/// Which seeds to run, and what to do with those that fail: the same for every simulation.
struct SeedOptions: ParsableArguments {
    @Option(help: "Run this seed.")
    var seed: UInt64?

    @Option(help: "Run the seeds A to B, both included, as A..B.")
    var seeds: SeedRange?

    @Option(help: "Carry out only these operations, by index, separated by commas.")
    var keep: OperationList?

    @Flag(help: "Print everything that happens.")
    var trace = false

    @Flag(
        inversion: .prefixedNo,
        help: """
            Leave out operations while the seed still fails, and print what happens in the rest; so \
            unless --keep-going, --keep or --trace is given.
            """)
    var minimise: Bool?

    @Flag(help: "Go on after a seed that failed.")
    var keepGoing = false

    @Option(help: "Seconds of work after which a seed is said to hang, and the program ends.")
    var secondsPerSeed: UInt32 = 300

    var range: ClosedRange<UInt64> { seeds?.range ?? (seed ?? 1)...(seed ?? 1) }

    /// Runs the seeds one after the other, and reports those that fail. Returns how many do.
    func runAll(replay: (UInt64) -> String, run: (UInt64) -> SeedOutcome) -> Int {
        var failures = 0
        for seed in range {
            CrashNote.prepare(replay: replay(seed), secondsPerSeed: secondsPerSeed)
            let outcome = run(seed)
            if trace { for line in outcome.trace { Swift.print(line) } }
            guard let failure = outcome.failure else { continue }
            failures += 1
            Swift.print("seed \(seed)\(outcome.world) failed: \(failure)")
            if let failedAt = outcome.failedAt { Swift.print("  at operation \(failedAt)") }
            Swift.print("  replay: \(replay(seed)) --trace")
            fflush(nil)
            if minimise ?? !(keepGoing || trace || keep != nil) { outcome.minimal() }
            if !keepGoing { break }
        }
        return failures
    }

    /// The operations with which a scenario of `count` still fails.
    func minimal(failedAt: Int?, of count: Int, fails: (Set<Int>) -> Bool) -> [Int] {
        let last = min(failedAt ?? count, count - 1)
        let candidates = (0...max(last, 0)).filter { keep?.indices.contains($0) ?? true }
        return Minimiser().minimise(candidates, fails: fails)
    }

    /// Says how to replay the operations that are left, and what happens in them.
    func print(minimal: [Int], replay: String, trace: [String]) {
        let list = minimal.isEmpty ? "none" : minimal.map(String.init).joined(separator: ",")
        Swift.print("  minimal: \(replay) --keep \(list) --trace")
        for line in trace { Swift.print("    \(line)") }
    }
}

/// What became of one seed.
struct SeedOutcome {
    var trace: [String]
    var failure: SimulationFailure?
    var failedAt: Int?
    /// What kind of world it was, for the report.
    var world = ""
    /// Finds the fewest operations that still fail, and prints them.
    var minimal: () -> Void
}

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
