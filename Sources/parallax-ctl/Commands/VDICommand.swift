// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct VDICommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vdi", abstract: "Virtual disks.",
        subcommands: [
            VDICreate.self, VDIListCommand.self, VDIShow.self, VDIResize.self, VDIRename.self,
            VDIDelete.self, VDITemplate.self, VDISetQuota.self,
        ])
}

struct VDICreate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a VDI. It takes no space until it is written to.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "Up to 100 bytes, without @, / and control characters.")
    var name: String

    @Option(help: "From 1M to 64T, a multiple of 4K; needed unless --from is given.")
    var size: String?

    @Option(help: ArgumentHelp("Begin as this snapshot is.", valueName: "vdi@snapshot"))
    var from: String?

    @OptionGroup var limit: QuotaOption

    func validate() throws {
        guard size != nil || from != nil else {
            throw ValidationError("a new VDI needs --size, or --from a snapshot")
        }
        try Usage.check { () throws(ControlError) in
            try VDIName.validate(name)
            if let size { try VDISize.validate(ByteSize.parse(size)) }
            if let from { _ = try VersionName.snapshot(from) }
            _ = try limit.bytes
        }
    }

    func run() throws {
        let client = try connection.client()
        let bytes = try size.map { try ByteSize.parse($0) }
        let vdi =
            if let from {
                try client.clone(
                    from: from, to: name, sizeBytes: bytes, quotaBytes: limit.bytes)
            } else {
                try client.create(
                    name: name, sizeBytes: bytes ?? 0, quotaBytes: limit.bytes)
            }
        output.print(vdi) { "" }
    }
}

struct VDIListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List all VDIs.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let vdis = try connection.client().vdis()
        output.print(VDIList(vdis: vdis)) { Descriptions.list(vdis) }
    }
}

struct VDIShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Show one VDI.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var name: String

    func validate() throws {
        try Usage.check { () throws(ControlError) in try VDIName.validate(name) }
    }

    func run() throws {
        let vdi = try connection.client().vdi(name, includingLayout: true)
        output.print(vdi) { Descriptions.details(vdi) }
    }
}

struct VDIResize: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resize", abstract: "Make a VDI larger, or smaller with --shrink.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var name: String

    @Argument(help: "The new size, from 1M to 64T, a multiple of 4K.")
    var size: String

    @Flag(help: "Allow a smaller size; what lies beyond the new end is lost.")
    var shrink = false

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            try VDIName.validate(name)
            try VDISize.validate(ByteSize.parse(size))
        }
    }

    func run() throws {
        let change = ChangeVDIRequest(
            sizeBytes: try ByteSize.parse(size), shrink: shrink ? true : nil)
        let vdi = try connection.client().change(name, change)
        output.print(vdi) { "" }
    }
}

struct VDIRename: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rename", abstract: "Give a VDI another name.",
        discussion: """
            It stays attached. One that is attached where clients know it by name, by NBD or by a \
            Xen domain's configuration, has to be detached first.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var name: String

    @Argument(help: "Its new name.")
    var newName: String

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            try VDIName.validate(name)
            try VDIName.validate(newName)
        }
    }

    func run() throws {
        let vdi = try connection.client().change(name, ChangeVDIRequest(name: newName))
        output.print(vdi) { "" }
    }
}

struct VDIDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete a VDI that is not attached, and all its data.")

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: "The VDI.")
    var name: String

    func validate() throws {
        try Usage.check { () throws(ControlError) in try VDIName.validate(name) }
    }

    func run() throws { try connection.client().delete(name) }
}

struct VDITemplate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "template", abstract: "Mark a VDI as a template, which takes no writes.")

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: "The VDI.")
    var name: String

    @Flag(help: "Make it an ordinary VDI again.")
    var off = false

    func validate() throws {
        try Usage.check { () throws(ControlError) in try VDIName.validate(name) }
    }

    func run() throws {
        let vdi = try connection.client().change(name, ChangeVDIRequest(template: !off))
        output.print(vdi) { "" }
    }
}

/// What is wrong with an argument is wrong usage: exit code 64.
enum Usage {
    static func check(_ body: () throws(ControlError) -> Void) throws {
        do throws(ControlError) {
            try body()
        } catch {
            throw ValidationError(error.message)
        }
    }
}
