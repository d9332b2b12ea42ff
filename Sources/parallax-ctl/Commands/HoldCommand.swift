// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct HoldCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hold", abstract: "Keep a snapshot from being deleted by anyone.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var target: SnapshotArgument

    @Option(help: "Why, in one line of at most 200 bytes.")
    var reason: String

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            try SnapshotText.validate(holdReason: reason)
        }
    }

    func run() throws {
        let (vdi, name) = try target.parts
        let snapshot = try connection.client().hold(vdi, name, reason: reason)
        output.print(snapshot) { "" }
    }
}

struct ReleaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "release", abstract: "Take a hold off a snapshot.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var target: SnapshotArgument

    @Option(help: "Which hold; needed when there are several.")
    var reason: String?

    func run() throws {
        let (vdi, name) = try target.parts
        let snapshot = try connection.client().release(vdi, name, reason: reason)
        output.print(snapshot) { "" }
    }
}
