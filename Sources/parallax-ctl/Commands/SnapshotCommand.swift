// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct SnapshotCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot", abstract: "Snapshots of VDIs.",
        discussion: """
            A snapshot is written VDI@NAME; VDI@latest is the newest, VDI@2026-11-22T10:00 the \
            newest not after that time (UTC unless an offset follows), VDI@-2h the newest that is \
            at least two hours old (s, m, h, d, w). "snapshot VDI" is "snapshot create VDI".
            """,
        subcommands: [
            SnapshotCreate.self, SnapshotListCommand.self, SnapshotShow.self,
            SnapshotDelete.self, HoldCommand.self, ReleaseCommand.self, SnapshotLabel.self,
            SnapshotRollback.self, SnapshotDiff.self,
        ], defaultSubcommand: SnapshotCreate.self)
}

struct SnapshotCreate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Take a snapshot, or with --group one atomic cut through several VDIs.",
        discussion: "Durable when the command returns, while guests go on. Prints VDI@NAME.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI, or with --group several.")
    var vdis: [String]

    @Flag(help: "All VDIs at one moment; all snapshots are made, or none.")
    var group = false

    @Option(help: "Its name (default: the time, in UTC).")
    var name: String?

    @Option(help: "What it is for, in one line of at most 512 bytes.")
    var comment: String?

    @Option(name: .customLong("label"), help: ArgumentHelp("A label.", valueName: "key=value"))
    var labels: [String] = []

    func validate() throws {
        guard group || vdis.count == 1 else {
            throw ValidationError(
                "one VDI at a time; for an atomic cut through several use --group")
        }
        try Usage.check { () throws(ControlError) in
            for vdi in vdis { try VDIName.validate(vdi) }
            if let name { try SnapshotName.validate(name) }
            if let comment { try SnapshotText.validate(comment: comment) }
            _ = try SnapshotText.parse(labels: labels)
        }
    }

    func run() throws {
        let client = try connection.client()
        let pairs = try SnapshotText.parse(labels: labels)
        let request = CreateSnapshotRequest(
            vdis: group ? vdis : nil, name: name, comment: comment,
            labels: pairs.isEmpty ? nil : pairs)
        if group {
            let snapshots = try client.createGroup(request)
            output.print(SnapshotGroup(snapshots: snapshots)) {
                snapshots.map(\.version).joined(separator: "\n")
            }
        } else {
            let snapshot = try client.createSnapshot(of: vdis[0], request)
            output.print(snapshot) { snapshot.version }
        }
    }
}

struct SnapshotListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List the snapshots of a VDI, oldest first.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var vdi: String

    @Flag(help: "Show which snapshot continues which.")
    var tree = false

    @Option(help: "At most so many (default: all).")
    var limit: Int?

    @Option(help: ArgumentHelp("Begin behind this snapshot.", valueName: "name"))
    var after: String?

    func validate() throws {
        guard limit ?? 1 >= 1 else { throw ValidationError("--limit must be at least 1") }
        guard !tree || limit == nil && after == nil else {
            throw ValidationError("--tree shows all snapshots; leave --limit and --after out")
        }
        try Usage.check { () throws(ControlError) in
            try VDIName.validate(vdi)
            // With a slash it is a place, as in the "next" of --json.
            if let after, !after.hasPrefix("/") { _ = try VersionName("\(vdi)@\(after)") }
        }
    }

    func run() throws {
        let client = try connection.client()
        var list = SnapshotList(snapshots: [], next: after, total: 0)
        repeat {
            let missing = (limit ?? .max) - list.snapshots.count
            let page = try client.snapshots(
                of: vdi, after: list.next, limit: min(missing, SnapshotList.pageLimit))
            list.snapshots += page.snapshots
            list.next = page.next
            list.total = page.total
        } while list.next != nil && list.snapshots.count < limit ?? .max
        output.print(list) {
            tree ? SnapshotTree.text(list.snapshots) : Descriptions.list(list.snapshots)
        }
    }
}

struct SnapshotShow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show one snapshot.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var target: SnapshotArgument

    func run() throws {
        let (vdi, name) = try target.parts
        let snapshot = try connection.client().snapshot(vdi, name)
        output.print(snapshot) { Descriptions.details(snapshot) }
    }
}

struct SnapshotDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete snapshots; clones of them stay.",
        discussion: """
            If one of them cannot be deleted, none is. Space comes back in the background. A date or \
            time that is no snapshot's name is not taken: it could mean an older one.
            """)

    /// What fits into one request, with room to spare.
    static let requestBytes = 48 << 10

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: ArgumentHelp("The snapshots.", valueName: "vdi@snapshot"))
    var snapshots: [String]

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            let isOneRequest = batches.count == 1
            for text in snapshots {
                let name = try VersionName.snapshot(text).snapshot
                guard isOneRequest || !SnapshotSelector.isRelative(name) else {
                    throw ControlError(
                        .invalid,
                        "so many snapshots take several requests, and after the first \(quoted(text)) "
                            + "could be another one; give its name, or delete it by itself")
                }
            }
        }
    }

    func run() throws {
        let client = try connection.client()
        for batch in batches { try client.delete(snapshots: batch) }
    }

    /// What goes into one request each.
    private var batches: [[String]] {
        var batches: [[String]] = [[]]
        var bytes = 0
        for snapshot in snapshots {
            // A quotation mark or a backslash takes two bytes in JSON.
            let size = 2 * snapshot.utf8.count + 4
            if bytes + size > Self.requestBytes {
                batches.append([])
                bytes = 0
            }
            batches[batches.count - 1].append(snapshot)
            bytes += size
        }
        return batches
    }
}

struct SnapshotLabel: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "label", abstract: "Change the labels and the comment of a snapshot.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var target: SnapshotArgument

    @Argument(help: ArgumentHelp("Labels to set.", valueName: "key=value"))
    var labels: [String] = []

    @Option(help: ArgumentHelp("A label to take away.", valueName: "key"))
    var remove: [String] = []

    @Option(help: "The new comment.")
    var comment: String?

    func validate() throws {
        guard !labels.isEmpty || !remove.isEmpty || comment != nil else {
            throw ValidationError("nothing to change; give KEY=VALUE, --remove KEY or --comment")
        }
        try Usage.check { () throws(ControlError) in
            let pairs = try SnapshotText.parse(labels: labels)
            for key in remove {
                try SnapshotText.validate(labelKey: key)
                guard pairs[key] == nil else {
                    throw ControlError(.invalid, "the label \(quoted(key)) is both set and removed")
                }
            }
            if let comment { try SnapshotText.validate(comment: comment) }
        }
    }

    func run() throws {
        let (vdi, name) = try target.parts
        var changes: [String: String?] = [:]
        for (key, value) in try SnapshotText.parse(labels: labels) { changes[key] = value }
        for key in remove { changes.updateValue(nil, forKey: key) }
        let change = ChangeSnapshotRequest(
            comment: comment, labels: changes.isEmpty ? nil : changes)
        let snapshot = try connection.client().change(vdi, name, change)
        output.print(snapshot) { "" }
    }
}

/// The one snapshot that a verb is about.
struct SnapshotArgument: ParsableArguments {
    @Argument(help: ArgumentHelp("The snapshot.", valueName: "vdi@snapshot"))
    var snapshot: String

    var parts: (vdi: String, snapshot: String) {
        get throws(ControlError) { try VersionName.snapshot(snapshot) }
    }

    func validate() throws {
        try Usage.check { () throws(ControlError) in _ = try parts }
    }
}
