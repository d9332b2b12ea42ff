// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct CronSnapshot: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cron-snapshot",
        abstract: "Take a snapshot of each VDI, then apply its retention policy.",
        discussion: """
            For cron and systemd timers. Goes on when one VDI fails; the exit code is 1 then. A run \
            that finds the same one still under way does nothing.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDIs.")
    var vdis: [String] = []

    @Flag(help: "All VDIs but templates.")
    var all = false

    @Option(
        name: .customLong("label"),
        help: ArgumentHelp("A label for the snapshots.", valueName: "key=value"))
    var labels: [String] = []

    @Flag(help: "Say nothing unless something failed.")
    var quiet = false

    func validate() throws {
        guard all == vdis.isEmpty else {
            throw ValidationError("say which VDIs: by their names, or --all")
        }
        guard !quiet || !output.json else {
            throw ValidationError("--quiet prints nothing and --json does; leave one out")
        }
        try Usage.check { () throws(ControlError) in
            for vdi in vdis { try VDIName.validate(vdi) }
            _ = try SnapshotText.parse(labels: labels)
        }
    }

    func run() throws {
        let client = try connection.client()
        let key = [all ? "--all" : "", vdis.sorted().joined(separator: "/")] + labels.sorted()
        guard let lock = try RunLock.take(beside: connection.path, key: key) else {
            show(CronOutcome(isUnderWay: true, vdis: [])) {
                "the same run is still under way; this one does nothing"
            }
            return
        }
        let request = CreateSnapshotRequest(
            labels: labels.isEmpty ? nil : try SnapshotText.parse(labels: labels),
            scheduled: true)
        let names = all ? try client.vdis().filter { !$0.isTemplate }.map(\.name) : vdis
        var failures = FailureCounter()
        var outcome = CronOutcome(isUnderWay: false, vdis: [])
        for name in names {
            failures.attempt { () throws(ControlError) in
                try run(name, request, client, &outcome)
            }
        }
        _ = consume lock
        if output.json { show(outcome) { "" } }
        try failures.finish()
    }

    /// Where no new one could be taken no old one goes: it may be all there is.
    private func run(
        _ vdi: String, _ request: CreateSnapshotRequest, _ client: ControlClient,
        _ outcome: inout CronOutcome
    ) throws(ControlError) {
        let snapshot = try client.createSnapshot(of: vdi, request).version
        // What was made is told of also when the policy cannot be applied.
        var done = CronOutcome.Done(vdi: vdi, snapshot: snapshot)
        defer {
            outcome.vdis.append(done)
            if !output.json {
                show(done) { "\(snapshot) made, \(done.deletedCount ?? 0) of its VDI gone" }
            }
        }
        guard try client.retention(of: vdi).policy != nil else { return }
        let brief = ApplyRetentionRequest(brief: true)
        done.deletedCount = try client.applyRetention(to: vdi, brief).deletedCount
    }

    private func show(_ value: some Encodable, otherwise text: () -> String) {
        if !quiet { output.print(value, otherwise: text) }
    }
}

/// `cron-snapshot --json`.
struct CronOutcome: Encodable {
    /// A VDI of which a snapshot was made; what failed is said on standard error.
    struct Done: Encodable {
        var vdi: String
        /// `VDI@SNAPSHOT`.
        var snapshot: String
        /// Absent where no policy was applied.
        var deletedCount: Int?

        enum CodingKeys: String, CodingKey {
            case vdi
            case snapshot
            case deletedCount = "deleted_count"
        }
    }

    /// The same run had begun before and has not ended, so that nothing was done.
    var isUnderWay: Bool
    var vdis: [Done]

    enum CodingKeys: String, CodingKey {
        case isUnderWay = "under_way"
        case vdis
    }
}
