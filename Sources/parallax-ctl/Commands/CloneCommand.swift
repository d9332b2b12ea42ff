// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct CloneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clone", abstract: "Make a VDI that begins as a snapshot is.",
        discussion: "It takes no space until it is written to, however large the snapshot is.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var source: SnapshotArgument

    @Argument(help: "The name of the new VDI.")
    var name: String

    @Option(help: "Its size, at least that of the snapshot (default: the same).")
    var size: String?

    @OptionGroup var limit: QuotaOption

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            try VDIName.validate(name)
            if let size { try VDISize.validate(ByteSize.parse(size)) }
            _ = try limit.bytes
        }
    }

    func run() throws {
        let vdi = try connection.client().clone(
            from: source.snapshot, to: name, sizeBytes: size.map { try ByteSize.parse($0) },
            quotaBytes: limit.bytes)
        output.print(vdi) { "" }
    }
}

struct SnapshotRollback: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback", abstract: "Make a VDI again as one of its snapshots is.",
        discussion: """
            The VDI must be detached. What it was before is kept as a snapshot, whose VDI@NAME is \
            printed.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var target: SnapshotArgument

    @Flag(help: "Also while the VDI is attached read-only; its reader sees it change.")
    var force = false

    @Flag(inversion: .prefixedNo, help: "Keep what the VDI was before as a snapshot.")
    var keep = true

    func run() throws {
        let (vdi, name) = try target.parts
        let answer = try connection.client().rollback(
            vdi, RollbackRequest(snapshot: name, force: force, keep: keep))
        output.print(answer) { answer.kept ?? "" }
    }
}
