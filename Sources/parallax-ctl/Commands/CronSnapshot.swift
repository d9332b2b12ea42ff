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
        try Usage.check { () throws(ControlError) in
            for vdi in vdis { try VDIName.validate(vdi) }
            _ = try SnapshotText.parse(labels: labels)
        }
    }

    func run() throws {
        let client = try connection.client()
        let key = [all ? "--all" : "", vdis.sorted().joined(separator: "/")] + labels.sorted()
        guard let lock = try RunLock.take(beside: connection.path, key: key) else {
            if !quiet { Terminal.write("the same run is still under way; this one does nothing\n") }
            return
        }
        let request = CreateSnapshotRequest(
            labels: labels.isEmpty ? nil : try SnapshotText.parse(labels: labels),
            scheduled: true)
        let names = all ? try client.vdis().filter { !$0.isTemplate }.map(\.name) : vdis
        var failures = FailureCounter()
        for name in names {
            // Where no new one could be taken no old one goes: it may be all there is.
            failures.attempt { () throws(ControlError) in try run(name, request, client) }
        }
        _ = consume lock
        try failures.finish()
    }

    private func run(
        _ vdi: String, _ request: CreateSnapshotRequest, _ client: ControlClient
    ) throws(ControlError) {
        let snapshot = try client.createSnapshot(of: vdi, request)
        var deleted = 0
        if try client.retention(of: vdi).policy != nil {
            let brief = ApplyRetentionRequest(brief: true)
            deleted = try client.applyRetention(to: vdi, brief).deletedCount
        }
        guard !quiet else { return }
        Terminal.write("\(snapshot.version) made, \(deleted) of its VDI gone\n")
    }
}
