// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl
import ParallaxRetention

struct RetentionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retention", abstract: "What stays of a VDI's snapshots, and what goes.",
        subcommands: [
            RetentionSet.self, RetentionShow.self, RetentionApply.self, RetentionSimulate.self,
        ])
}

struct RetentionSet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Give a VDI a retention policy; nothing is deleted yet.",
        discussion: "It replaces the whole policy that the VDI had.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var vdi: String

    @Flag(help: "Take the policy away: all snapshots stay.")
    var clear = false

    @OptionGroup var policyOptions: RetentionPolicyOptions

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            try VDIName.validate(vdi)
            let policy = try policyOptions.policy()
            guard clear || !policy.isEmpty else {
                throw ControlError(
                    .invalid,
                    "the policy has no rule that keeps anything; give it one, such as "
                        + "--keep-last 10, or use --clear")
            }
            guard !clear || policy.options.isEmpty else {
                throw ControlError(.invalid, "--clear goes with no other option of the policy")
            }
        }
    }

    func run() throws {
        let client = try connection.client()
        if clear {
            try client.clearRetention(of: vdi)
            output.print(RetentionDescription(vdi: vdi, policy: nil)) { "" }
        } else {
            let answer = try client.setRetention(of: vdi, policyOptions.policy())
            output.print(answer) { "" }
        }
    }
}

struct RetentionShow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show a VDI's retention policy as options of set.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var vdi: String

    func validate() throws {
        try Usage.check { () throws(ControlError) in try VDIName.validate(vdi) }
    }

    func run() throws {
        let answer = try connection.client().retention(of: vdi)
        output.print(answer) { answer.options ?? "none: all snapshots stay" }
    }
}

struct RetentionApply: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apply", abstract: "Delete the snapshots that the policy does not keep.",
        discussion: """
            Prints what stays, why, and what goes. Held, attached and newest snapshots stay \
            whatever the policy says, and so do those that were made by hand unless it says \
            otherwise.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDIs.")
    var vdis: [String] = []

    @Flag(help: "All VDIs that have a policy.")
    var all = false

    @Flag(help: "Only say what would go.")
    var dryRun = false

    @Flag(help: "Go on even if no rule of the policy keeps anything, or only what is young stays.")
    var force = false

    func validate() throws {
        guard all == vdis.isEmpty else {
            throw ValidationError("say which VDIs: by their names, or --all")
        }
        try Usage.check { () throws(ControlError) in
            for vdi in vdis { try VDIName.validate(vdi) }
        }
    }

    func run() throws {
        let client = try connection.client()
        let names = all ? try client.vdis().filter { $0.retention != nil }.map(\.name) : vdis
        let request = ApplyRetentionRequest(dryRun: dryRun, force: force)
        var reports: [RetentionReport] = []
        var failures = FailureCounter()
        for name in names {
            failures.attempt { () throws(ControlError) in
                let report = try client.applyRetention(to: name, request)
                if output.json {
                    reports.append(report)
                } else {
                    Terminal.write(RetentionText.report(report))
                }
            }
        }
        if output.json { output.print(RetentionReports(vdis: reports)) { "" } }
        try failures.finish()
    }
}

/// `retention apply --json`.
struct RetentionReports: Encodable {
    var vdis: [RetentionReport]
}

/// Goes on after a failure, says each at once, and makes the exit code of them.
struct FailureCounter {
    private(set) var count = 0

    mutating func attempt(_ body: () throws(ControlError) -> Void) {
        do throws(ControlError) {
            try body()
        } catch {
            writeStandardError("parallax-ctl: \(error.message)")
            count += 1
        }
    }

    /// The sentences are out already.
    func finish() throws {
        if count > 0 { throw ExitCode(1) }
    }
}
