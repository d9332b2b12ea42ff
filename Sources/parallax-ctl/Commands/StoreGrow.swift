// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct StoreGrow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grow", abstract: "Make the store larger while it is used.",
        discussion: """
            The daemon that serves the store must run. A store in a file gets the size that is \
            given, and takes the new space from its file system as it fills. A store on a block \
            device takes what the device has now, or the size that is given: make the device larger \
            first. A store cannot be made smaller.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "Its new size, a multiple of 4K; needed for a file.")
    var size: String?

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            if let size { _ = try ByteSize.parse(size) }
        }
    }

    func run() throws {
        let bytes = try size.map { try ByteSize.parse($0) }
        let growth = try connection.client().growStore(to: bytes)
        output.print(growth) {
            growth.sizeBytes == growth.previousSizeBytes
                ? "\(growth.path): \(ByteSize.format(growth.sizeBytes)) already"
                : "\(growth.path): grown from \(ByteSize.format(growth.previousSizeBytes)) to "
                    + "\(ByteSize.format(growth.sizeBytes)), \(growth.extentsAdded) extents more"
        }
    }
}
