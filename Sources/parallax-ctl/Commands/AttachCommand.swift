// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct AttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach",
        abstract: "Serve a VDI or a snapshot to a guest or a client, also after restarts.",
        usage: """
            parallax-ctl attach <vdi[@snapshot]> --vhost-user <socket> [--read-only] [--json]
            parallax-ctl attach <vdi[@snapshot]> --nbd [<socket>] [--read-only] [--json]
            parallax-ctl attach <vdi[@snapshot]> --xen <domain>:<device> [--read-only] [--json]
            """,
        discussion: """
            Prints where the disk is: the vhost-user socket, the NBD URI, or the device. A snapshot is always \
            read-only, and can be attached beside its VDI and other snapshots.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: ArgumentHelp("The VDI or the snapshot.", valueName: "vdi[@snapshot]"))
    var vdi: String

    @Option(help: ArgumentHelp("Serve vhost-user-blk on this socket.", valueName: "socket"))
    var vhostUser: String?

    @Flag(help: "Serve NBD, on this socket or on the daemon's shared NBD socket.")
    var nbd = false

    @Argument(help: ArgumentHelp("The socket for --nbd.", valueName: "socket"))
    var nbdSocket: String?

    @Option(
        help: ArgumentHelp(
            "Serve a disk of a Xen domain, as in web1:xvda.", valueName: "domain:device"))
    var xen: String?

    @Flag(help: "Refuse writes.")
    var readOnly = false

    func validate() throws {
        guard [nbd, vhostUser != nil, xen != nil].count(where: { $0 }) == 1 else {
            throw ValidationError(
                "attach needs one of --vhost-user SOCKET, --nbd [SOCKET] and --xen DOMAIN:DEVICE")
        }
        guard nbd || nbdSocket == nil else {
            throw ValidationError("\(quoted(nbdSocket ?? "")) is one argument too many")
        }
        try Usage.check { () throws(ControlError) in
            _ = try VersionName(vdi)
            guard let socket = vhostUser ?? nbdSocket else { return }
            _ = try UnixAddress(path: absolutePath(socket))
        }
    }

    func run() throws {
        let socket = try (vhostUser ?? nbdSocket).map(absolutePath)
        let kind: AttachmentKind = nbd ? .nbd : xen == nil ? .vhostUser : .xen
        let request = AttachRequest(
            kind: kind, socket: xen ?? socket, readOnly: readOnly ? true : nil)
        let attachment = try connection.client().attach(VersionName(vdi), request)
        output.print(attachment) { attachment.location }
    }
}

struct DetachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "detach",
        abstract: "Stop serving a VDI or a snapshot, and forget where it was attached.")

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: ArgumentHelp("The VDI or the snapshot.", valueName: "vdi[@snapshot]"))
    var vdi: String

    func validate() throws {
        try Usage.check { () throws(ControlError) in _ = try VersionName(vdi) }
    }

    func run() throws { try connection.client().detach(VersionName(vdi)) }
}
