// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl
import ParallaxCore

struct StoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store", abstract: "The store that holds all VDIs.",
        subcommands: [
            StoreInit.self, StoreStatusCommand.self, StoreGrow.self, StoreClean.self,
            StoreCheckCommand.self, StoreScrub.self,
        ])
}

struct StoreInit: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Make a new store in a file or on a block device.",
        discussion: "Works without the daemon, and not while one serves the store.")

    @OptionGroup var output: OutputOptions

    @Argument(help: "The file (made if need be) or the block device.")
    var path: String

    @Option(help: "Its size; needed for a file, a block device is taken whole.")
    var size: String?

    @Option(
        help: "The unit in which space is given to the logs (default: 64M, less under 64G).")
    var extentSize: String?

    @Option(help: "Threads that share the store (default: one a core, at most 8).")
    var shards: Int?

    @Flag(help: "Overwrite a store that is there, and all its VDIs.")
    var force = false

    @Flag(help: "Write the whole of a file once, now: full speed from the first day.")
    var preallocate = false

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            if let size { _ = try ByteSize.parse(size) }
            if let extentSize { _ = try ByteSize.parse(extentSize) }
            guard Limits.streams.contains(shards ?? 1) else {
                throw ControlError(
                    .invalid, "a store has from 1 to \(Limits.streams.upperBound) shards")
            }
        }
    }

    func run() throws {
        let plan = FormatPlan(
            path: path, sizeBytes: try size.map { try ByteSize.parse($0) },
            extentBytes: try extentSize.map { try ByteSize.parse($0) },
            shards: shards, mayOverwrite: force, preallocates: preallocate)
        let store = try plan.run()
        output.print(store) {
            "\(store.path): a store of \(ByteSize.format(store.sizeBytes)), "
                + "\(store.extentCount) extents of \(ByteSize.format(store.extentBytes)), "
                + "\(store.shards) shards, uuid \(store.uuid)"
        }
    }
}

struct StoreStatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the store, its space and the daemon that serves it.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let status = try connection.client().status()
        output.print(status) { Descriptions.status(status) }
    }
}
