// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

/// `parallax-ctl`: verbs in, one request to the daemon each, tables or JSON out.
struct RootCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "parallax-ctl",
        abstract: "Controls the virtual disks of a Parallax store.",
        discussion: """
            Sizes take K, M, G and T, which are powers of 1024. Exit codes: 0 done, 1 failed, \
            64 not understood; `store check` and `store scrub` have more (2 to 4). The reason is \
            one line on standard error.
            """,
        version: parallaxVersion,
        subcommands: [
            StoreCommand.self, VDICommand.self, AttachCommand.self, DetachCommand.self,
            SnapshotCommand.self, HoldCommand.self, ReleaseCommand.self, CloneCommand.self,
            RetentionCommand.self, CronSnapshot.self,
        ])

    @OptionGroup var connection: ConnectionOptions
}

/// Which daemon to talk to; taken before or after the verb.
struct ConnectionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The daemon's control socket (default: $PARALLAX_SOCKET, else "
                + "\(ControlClient.defaultSocketPath)).", valueName: "path"))
    var socket: String?

    var path: String {
        socket ?? Environment.value("PARALLAX_SOCKET") ?? ControlClient.defaultSocketPath
    }

    func client() throws(ControlError) -> ControlClient { try ControlClient(socketPath: path) }
}

/// How to print.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print JSON, with sizes in bytes.")
    var json = false

    /// Prints `value` as JSON if that was asked for, else the lines of `text`.
    func print(_ value: some Encodable, otherwise text: () -> String) {
        if json {
            Terminal.write(String(decoding: ControlJSON.encode(value, pretty: true), as: UTF8.self))
        } else {
            let lines = text()
            if !lines.isEmpty { Terminal.write(lines.hasSuffix("\n") ? lines : lines + "\n") }
        }
    }
}
