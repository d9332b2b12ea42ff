// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

/// The quota that a new VDI begins with.
struct QuotaOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "What may be written through it and kept, with its snapshots, such as 30G (default: "
                + "none).", valueName: "size|none"))
    var quota: String?

    /// nil: not given.
    var bytes: UInt64? {
        get throws(ControlError) {
            guard let quota else { return nil }
            return try VDIQuota.parse(quota)
        }
    }
}

struct VDISetQuota: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quota", abstract: "Limit what a VDI and its snapshots may take.",
        discussion: """
            All that was written through the VDI and is still stored, for its head or for its \
            snapshots, is charged to it. At its quota, writes of new blocks fail as in a full \
            store; what replaces blocks of its own, discards and reads go on. A quota below what \
            is charged already is allowed.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var name: String

    @Argument(
        help: ArgumentHelp(
            "The most that may be charged to it, such as 30G, a multiple of 4K; or none.",
            valueName: "size|none"))
    var quota: String

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            try VDIName.validate(name)
            _ = try VDIQuota.parse(quota)
        }
    }

    func run() throws {
        let change = ChangeVDIRequest(quotaBytes: try VDIQuota.parse(quota))
        let vdi = try connection.client().change(name, change)
        output.print(vdi) { "" }
    }
}
