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

    /// The program runs itself so, in its own place, when a seed has stopped it.
    @Flag(help: .hidden)
    var afterStop = false

    @Option(help: "Seconds of work after which a seed is said to hang, and the program ends.")
    var secondsPerSeed: UInt32 = 300

    var range: ClosedRange<UInt64> { seeds?.range ?? (seed ?? 1)...(seed ?? 1) }

    /// What is told of each run; a trap must not take it along.
    var tell: ((String) -> Void)? {
        guard trace else { return nil }
        return { line in
            Swift.print(line)
            fflush(nil)
        }
    }

    private var isToMinimise: Bool { minimise ?? !(keepGoing || trace || keep != nil) }

    /// Runs the seeds one after the other, and reports those that fail. Returns how many do.
    func runAll(
        operationCount: Int, replay: (UInt64) -> String, run: (UInt64) -> SeedOutcome
    ) -> Int {
        var failures = 0
        if afterStop, let seed = range.first {
            printMinimalStop(replay(seed), of: operationCount)
            return 1
        }
        for seed in range {
            CrashNote.prepare(
                replay: replay(seed), secondsPerSeed: secondsPerSeed, goesOn: isToMinimise)
            let outcome = run(seed)
            guard let failure = outcome.failure else { continue }
            failures += 1
            Swift.print("seed \(seed)\(outcome.world) failed: \(failure)")
            if let failedAt = outcome.failedAt { Swift.print("  at operation \(failedAt)") }
            Swift.print("  replay: \(replay(seed)) --trace")
            fflush(nil)
            if isToMinimise { outcome.minimal() }
            if !keepGoing { break }
        }
        return failures
    }

    private func printMinimalStop(_ replay: String, of count: Int) {
        let stop = StopMinimiser(arguments: replay.split(separator: " ").map(String.init))
        guard let minimal = stop.minimise(Array(0..<count)) else {
            return Swift.print("  it does not stop the program again")
        }
        print(minimal: minimal, replay: replay)
        fflush(nil)
        _ = stop.run(Set(minimal), trace: true)
    }

    /// Finds the fewest operations with which a scenario of `count` still fails, and prints them and
    /// what happens in them. `fails` runs one with only the given operations, and tells of it.
    func printMinimal(
        failedAt: Int?, of count: Int, replay: String,
        fails: (Set<Int>, ((String) -> Void)?) -> Bool
    ) {
        let last = min(failedAt ?? count, count - 1)
        let candidates = (0...max(last, 0)).filter { keep?.indices.contains($0) ?? true }
        let minimal = Minimiser().minimise(candidates) { fails($0, nil) }
        print(minimal: minimal, replay: replay)
        _ = fails(Set(minimal)) { Swift.print("    \($0)") }
    }

    private func print(minimal: [Int], replay: String) {
        Swift.print("  minimal: \(replay) --keep \(OperationList.text(of: minimal)) --trace")
    }
}

/// What became of one seed.
struct SeedOutcome {
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

    static func text(of indices: [Int]) -> String {
        indices.isEmpty ? "none" : indices.map(String.init).joined(separator: ",")
    }

    init?(argument: String) {
        text = argument
        let parts = argument == "none" ? [] : argument.split(separator: ",")
        let numbers = parts.compactMap { Int($0) }
        guard numbers.count == parts.count else { return nil }
        indices = Set(numbers)
    }
}
