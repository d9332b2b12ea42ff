// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import CLinux
import Glibc
import ParallaxControl
import ParallaxRetention

struct RetentionSimulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Show what a policy would keep, and why, without any store.",
        discussion: """
            The snapshots are those of a file, or a row of them up to now. Nothing is asked of the \
            daemon and nothing is deleted.
            """)

    @OptionGroup var output: OutputOptions

    @Option(
        help: ArgumentHelp(
            "A file with one ISO 8601 time on each line, # for comments; - is standard input.",
            valueName: "file"))
    var times: String?

    @Option(help: ArgumentHelp("A snapshot every so often, such as 15m.", valueName: "duration"))
    var every: String?

    @Option(
        name: .customLong("for"),
        help: ArgumentHelp("How far back they go, such as 1y.", valueName: "duration"))
    var span: String?

    @Option(help: ArgumentHelp("When the policy is applied (default: now).", valueName: "time"))
    var now: String?

    @Flag(help: "Go on even if no rule keeps anything.")
    var force = false

    @OptionGroup var policyOptions: RetentionPolicyOptions

    func validate() throws {
        guard (times != nil) != (every != nil), (every != nil) == (span != nil) else {
            throw ValidationError(
                "say which snapshots to simulate: --times FILE, or both --every and --for")
        }
        try Usage.check { () throws(ControlError) in
            _ = try policyOptions.policy()
            try Self.refine { () throws(RetentionError) in
                if let now { _ = try RetentionTime.parse(now) }
                if let every { _ = try RetentionDuration.parse(every) }
                if let span { _ = try RetentionDuration.parse(span) }
            }
        }
    }

    func run() throws {
        let policy = try policyOptions.policy()
        let taken: [RetentionTime]
        let now = try now.map { text throws(ControlError) in try Self.time(text) } ?? Self.clock()
        if let times {
            taken = try SnapshotTimes.read(path: times)
        } else if let every, let span {
            taken = try Self.refine { () throws(RetentionError) in
                try SnapshotTimes.row(
                    every: .parse(every), for: .parse(span), upTo: now, calendarOf: policy)
            }
        } else {
            taken = []
        }
        let plan = try Self.refine { () throws(RetentionError) in
            try policy.decide(Self.candidates(taken), now: now, force: force)
        }
        let local = try Self.refine { () throws(RetentionError) in try policy.localText() }
        output.print(SimulatedRetention(plan, policy: policy, now: now)) {
            RetentionText.plan(plan, time: local)
        }
    }

    /// As a schedule would have made them, one after the other.
    private static func candidates(_ times: [RetentionTime]) -> [RetentionCandidate] {
        times.sorted().enumerated().map { index, time in
            RetentionCandidate(id: UInt64(index), name: "", time: time, origin: .scheduled)
        }
    }

    private static func time(_ text: String) throws(ControlError) -> RetentionTime {
        try refine { () throws(RetentionError) in try RetentionTime.parse(text) }
    }

    private static func clock() -> RetentionTime {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return RetentionTime(seconds: Int64(now.tv_sec), nanoseconds: UInt32(now.tv_nsec))
    }

    static func refine<Value>(
        _ body: () throws(RetentionError) -> Value
    ) throws(ControlError) -> Value {
        do throws(RetentionError) {
            return try body()
        } catch {
            throw ControlError(error)
        }
    }
}
