// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

@Suite struct AttachmentTests {
    @Test("attach says where the disk is, and detach forgets it")
    func attachAndDetach() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        _ = try await client.create(name: "a b", sizeBytes: 1 << 20)
        let socket = daemon.directory.file("v.sock")
        let vhost = try await client.attach("a b", AttachRequest(kind: .vhostUser, socket: socket))
        #expect(vhost.location == socket)
        #expect(try await client.vdi("a b").attachment == vhost)
        #expect(await daemon.served() == [socket])
        try await client.detach("a b")
        let again = await failure { try await client.detach("a b") }
        #expect(again?.kind == .notAttached)
        let nbd = try await client.attach("a b", AttachRequest(kind: .nbd, readOnly: true))
        let shared = daemon.configuration.nbdSocketPath
        #expect(nbd.location == "nbd+unix:///a%20b?socket=\(shared)")
        #expect(nbd.readOnly)
        #expect(await daemon.served() == ["shared"])
        await daemon.stop()
    }

    @Test("each reason not to attach has its own sentence")
    func refusals() async throws {
        let daemon = try await TestDaemon()
        let (client, directory) = (daemon.client, daemon.directory)
        for name in ["a", "b"] { _ = try await client.create(name: name, sizeBytes: 1 << 20) }
        func attempt(
            _ vdi: String, _ socket: String?, _ kind: AttachmentKind = .vhostUser
        ) async -> String {
            await failure {
                _ = try await client.attach(vdi, AttachRequest(kind: kind, socket: socket))
            }?
            .message ?? "no error"
        }
        let socket = directory.file("a.sock")
        _ = try await client.attach("a", AttachRequest(kind: .vhostUser, socket: socket))
        try directory.write("", to: "file")
        let other = try ListeningSocket(path: directory.file("other"), purpose: "x")
        #expect(await attempt("nope", socket).contains("no VDI called"))
        #expect(await attempt("a", directory.file("c")).contains("already attached (at \(socket))"))
        #expect(await attempt("b", socket).contains("in use by VDI \"a\""))
        #expect(await attempt("b", directory.file("./a.sock")).contains("in use by VDI \"a\""))
        #expect(
            await attempt("b", directory.file("control.sock")).contains(
                "in use by the control socket"))
        #expect(await attempt("b", directory.file("nbd.sock"), .nbd).contains("shared NBD socket"))
        #expect(await attempt("b", directory.file("other")).contains("another process listens"))
        #expect(await attempt("b", directory.file("file")).contains("not a socket"))
        #expect(await attempt("b", directory.file("no/s")).contains("no directory"))
        #expect(await attempt("b", "relative.sock").contains("absolute"))
        #expect(await attempt("b", nil).contains("needs the path"))
        #expect(await attempt("b", "/" + String(repeating: "x", count: 107)).contains("108 bytes"))
        #expect(try await client.vdi("b").attachment == nil)
        _ = consume other
        await daemon.stop()
    }

    @Test("an attached VDI cannot be deleted, and a rename is followed where the place is the name")
    func attachedVDI() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        _ = try await client.create(name: "a", sizeBytes: 1 << 20)
        let socket = daemon.directory.file("a.sock")
        _ = try await client.attach("a", AttachRequest(kind: .vhostUser, socket: socket))
        let deleted = await failure { try await client.delete("a") }
        #expect(deleted?.kind == .attached)
        let renamed = try await client.change("a", ChangeVDIRequest(name: "b"))
        #expect(renamed.attachment?.location == socket)
        let second = try await daemon.restarted()
        #expect(try await second.client.vdi("b").attachment?.serving == true)
        await second.stop()
    }

    /// A client whose export has another name after a restart would be turned away, or be given
    /// the disk that has its name by then.
    @Test(
        "a VDI is not renamed while NBD clients know it or a snapshot of it, after a restart too",
        arguments: ["a", "a@s"], [false, true])
    func renameOfExport(_ text: String, _ isPrivate: Bool) async throws {
        let daemon = try await TestDaemon()
        try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        _ = try await daemon.client.call {
            try $0.createSnapshot(of: "a", CreateSnapshotRequest(name: "s"))
        }
        let version = try VersionName(text)
        let socket = isPrivate ? daemon.directory.file("own.sock") : nil
        let attachment = try await daemon.client.call {
            try $0.attach(version, AttachRequest(kind: .nbd, socket: socket))
        }
        func rename(_ daemon: TestDaemon) async -> ControlError? {
            await failure { try await daemon.client.change("a", ChangeVDIRequest(name: "b")) }
        }
        let what = version.snapshot == nil ? "it" : "its snapshot \"a@s\""
        let refused = await rename(daemon)
        #expect(refused?.kind == .attached)
        #expect(
            refused?.message == "VDI \"a\" cannot be renamed while \(what) is attached where "
                + "clients know it by name (at \(attachment.location)); detach it first")
        // One that does not serve yet is asked for by its name as well.
        let second = try await daemon.restarted(restores: false)
        #expect(await rename(second)?.kind == .attached)
        try await second.client.call { try $0.detach(version) }
        #expect(await rename(second) == nil)
        #expect(try await second.client.vdis().map(\.name) == ["b"])
        await second.stop()
    }

    @Test("attachments come back after a restart and until then the daemon is not ready")
    func restore() async throws {
        let first = try await TestDaemon()
        for name in ["a", "b"] { _ = try await first.client.create(name: name, sizeBytes: 1 << 20) }
        let socket = first.directory.file("a.sock")
        _ = try await first.client.attach(
            "a", AttachRequest(kind: .vhostUser, socket: socket, readOnly: true))
        _ = try await first.client.attach("b", AttachRequest(kind: .nbd))
        try await first.client.ready()
        let second = try await first.restarted(restores: false)
        let early = await failure { try await second.client.ready() }
        #expect(early?.kind == .notReady)
        #expect(try await second.client.status().missing.map(\.vdi) == ["a", "b"])
        await second.plane.restoreAttachments()
        try await second.client.ready()
        #expect(await second.served() == [socket, "shared"])
        #expect(try await second.client.vdi("a").attachment?.readOnly == true)
        await second.stop()
    }

    @Test("an attachment that cannot be restored is reported, the others serve, and it is retried")
    func partialRestore() async throws {
        let first = try await TestDaemon()
        for name in ["a", "b"] { _ = try await first.client.create(name: name, sizeBytes: 1 << 20) }
        let place = first.directory.file("guests")
        #expect(mkdir(place, 0o700) == 0)
        _ = try await first.client.attach(
            "a", AttachRequest(kind: .vhostUser, socket: place + "/a.sock"))
        _ = try await first.client.attach("b", AttachRequest(kind: .nbd))
        #expect(rmdir(place) == 0)
        let second = try await first.restarted()
        let status = try await second.client.status()
        #expect(status.state == .degraded)
        #expect(status.missing.map(\.vdi) == ["a"])
        #expect(status.missing.first?.reason.contains("no directory") == true)
        #expect(try await second.client.vdi("a").attachment?.serving == false)
        #expect(await second.served() == ["shared"])
        let deleted = await failure { try await second.client.delete("a") }
        #expect(deleted?.kind == .attached)
        #expect(mkdir(place, 0o700) == 0)
        await second.plane.restoreAttachments()
        try await second.client.ready()
        await second.stop()
    }

    @Test("an attachment that does not serve can be replaced or detached")
    func replaceMissing() async throws {
        let first = try await TestDaemon()
        for name in ["a", "b"] {
            _ = try await first.client.create(name: name, sizeBytes: 1 << 20)
            _ = try await first.client.attach(name, AttachRequest(kind: .nbd))
        }
        for shard in first.shards {
            await shard.failNext("attach", with: ControlError(.ioError, "broken"))
        }
        let second = try await first.restarted()
        #expect(try await second.client.status().missing.count == 2)
        _ = try await second.client.attach("a", AttachRequest(kind: .nbd))
        try await second.client.detach("b")
        try await second.client.ready()
        #expect(await second.served() == ["shared"])
        await second.stop()
    }

    @Test("an attachment of a VDI that is no more does not keep the daemon from being ready")
    func unknownVDI() async throws {
        let first = try await TestDaemon()
        _ = try await first.client.create(name: "a", sizeBytes: 1 << 20)
        _ = try await first.client.attach("a", AttachRequest(kind: .nbd))
        await first.stop()
        let second = try await TestDaemon(directory: first.directory, shards: [FakeShard(index: 0)])
        try await second.client.ready()
        await second.stop()
    }

    @Test("a shard that refuses changes nothing, and its sentence reaches the user")
    func shardFailures() async throws {
        let daemon = try await TestDaemon(shards: [FakeShard(index: 0)])
        let (client, shard) = (daemon.client, daemon.shards[0])
        _ = try await client.create(name: "a", sizeBytes: 1 << 20)
        let broken = ControlError(.ioError, "the device failed")
        let socket = daemon.directory.file("s")
        await shard.failNext("attach", with: broken)
        let request = AttachRequest(kind: .vhostUser, socket: socket)
        let refused = await failure { _ = try await client.attach("a", request) }
        #expect(refused == broken)
        #expect(try await client.vdi("a").attachment == nil)
        _ = try await client.attach("a", request)
        await shard.failNext("detach", with: broken)
        let notDetached = await failure { try await client.detach("a") }
        #expect(notDetached == broken)
        #expect(try await client.vdi("a").attachment?.serving == true)
        let restarted = try await daemon.restarted()
        #expect(await restarted.served() == [socket])
        await shard.failNext("status", with: broken)
        let noStatus = await failure { _ = try await client.status() }
        #expect(noStatus == broken)
        await restarted.stop()
    }

    @Test("an attachment that cannot be remembered is not made")
    func saveFails() async throws {
        let daemon = try await TestDaemon()
        _ = try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        #expect(mkdir(daemon.directory.file("state"), 0o700) == 0)
        #expect(mkdir(daemon.attachmentsPath + ".new", 0o700) == 0)
        let error = await failure {
            _ = try await daemon.client.attach("a", AttachRequest(kind: .nbd))
        }
        #expect(error?.kind == .ioError)
        #expect(await daemon.served().isEmpty)
        #expect(try await daemon.client.vdi("a").attachment == nil)
        await daemon.stop()
    }

    @Test("a damaged attachments file stops the start with its name")
    func damagedFile() async throws {
        let first = try await TestDaemon()
        _ = try await first.client.create(name: "a", sizeBytes: 1 << 20)
        _ = try await first.client.attach("a", AttachRequest(kind: .nbd))
        try SmallFile.replace(first.attachmentsPath, with: Array("{".utf8))
        let error = await failure { _ = try await first.restarted() }
        #expect(error?.message.contains(first.attachmentsPath) == true)
    }

    @Test("a daemon that stops refuses changes, shuts its shards down and remembers")
    func shutDown() async throws {
        let daemon = try await TestDaemon()
        _ = try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        _ = try await daemon.client.attach("a", AttachRequest(kind: .nbd))
        await daemon.plane.shutDown()
        let lateDetach = await failure { try await daemon.client.detach("a") }
        #expect(lateDetach?.kind == .stopping)
        let lateReady = await failure { try await daemon.client.ready() }
        #expect(lateReady?.kind == .stopping)
        for shard in daemon.shards { #expect(await shard.isShutDown) }
        let next = try await daemon.restarted()
        #expect(await next.served() == ["shared"])
        await next.stop()
    }
}
