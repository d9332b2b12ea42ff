// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

@Suite struct SnapshotAttachmentTests {
    private func daemonWithSnapshots() async throws -> TestDaemon {
        let daemon = try await TestDaemon()
        try await daemon.client.create(name: "d", sizeBytes: 1 << 20)
        for name in ["s1", "s2"] {
            _ = try await daemon.client.call {
                try $0.createSnapshot(of: "d", CreateSnapshotRequest(name: name))
            }
        }
        return daemon
    }

    private func attach(
        _ daemon: TestDaemon, _ version: String, _ request: AttachRequest
    ) async throws -> AttachmentDescription {
        let name = try VersionName(version)
        return try await daemon.client.call { try $0.attach(name, request) }
    }

    @Test("the head and two snapshots are attached at once, and come back after a restart")
    func atOnce() async throws {
        let daemon = try await daemonWithSnapshots()
        let socket = daemon.directory.file("s")
        _ = try await attach(daemon, "d", AttachRequest(kind: .nbd))
        let first = try await attach(daemon, "d@s1", AttachRequest(kind: .nbd))
        #expect(first.readOnly && first.snapshot == "s1")
        #expect(first.location.hasPrefix("nbd+unix:///d%40s1?socket="))
        let second = try await attach(
            daemon, "d@latest", AttachRequest(kind: .vhostUser, socket: socket))
        #expect(second.snapshot == "s2" && second.location == socket)
        #expect(await daemon.served() == [socket, "shared", "shared"])
        let shown = try await daemon.client.call { try $0.snapshot("d", "s1") }
        #expect(shown.attachment == first)
        #expect(try await daemon.client.vdi("d").attachment?.snapshot == nil)
        let restarted = try await daemon.restarted()
        #expect(await restarted.served() == [socket, "shared", "shared"])
        let again = try await restarted.client.call { try $0.snapshot("d", "s1").attachment }
        #expect(again == first)
        for version in ["d@s1", "d"] {
            let name = try VersionName(version)
            try await restarted.client.call { try $0.detach(name) }
        }
        // What is attached by a place alone follows a rename.
        _ = try await restarted.client.change("d", ChangeVDIRequest(name: "e"))
        let place = try VersionName("e@s2")
        try await restarted.client.call { try $0.detach(place) }
        #expect(await restarted.served().isEmpty)
        await restarted.stop()
    }

    @Test("what is attached cannot be attached again, written, or deleted")
    func refusals() async throws {
        let daemon = try await daemonWithSnapshots()
        let client = daemon.client
        let write = await failure {
            _ = try await attach(daemon, "d@s1", AttachRequest(kind: .nbd, readOnly: false))
        }
        #expect(write?.message.contains("clone it to write") == true)
        _ = try await attach(daemon, "d@s1", AttachRequest(kind: .nbd))
        let twice = await failure {
            _ = try await attach(daemon, "d@s1", AttachRequest(kind: .nbd))
        }
        #expect(twice?.message.hasPrefix("snapshot \"d@s1\" is already attached") == true)
        let deleted = await failure { try await client.call { try $0.delete("d", "s1") } }
        #expect(deleted?.kind == .attached)
        let vdi = await failure { try await client.delete("d") }
        #expect(vdi?.kind == .attached && vdi?.message.contains("d@s1") == true)
        let missing = await failure {
            _ = try await attach(daemon, "d@s3", AttachRequest(kind: .nbd))
        }
        #expect(missing?.kind == .notFound)
        let idle = try VersionName("d@s2")
        let notAttached = await failure { try await client.call { try $0.detach(idle) } }
        #expect(notAttached?.kind == .notAttached)
        let name = try VersionName("d@s1")
        try await client.call { try $0.detach(name) }
        try await client.call { try $0.delete("d", "s1") }
        try await client.delete("d")
        await daemon.stop()
    }

    @Test("an attachment of a snapshot that is no more is forgotten with a warning")
    func unknownSnapshot() async throws {
        let first = try await daemonWithSnapshots()
        _ = try await attach(first, "d@s1", AttachRequest(kind: .nbd))
        let file = AttachmentsFile(
            stateDirectory: first.configuration.stateDirectory, storeUUID: TestDaemon.uuid)
        var records = try file.load()
        records[0].snapshot = SnapshotIdentifier(1 << 63 | 999)
        try file.save(records)
        let second = try await first.restarted()
        try await second.client.ready()
        #expect(await second.served().isEmpty)
        await second.stop()
    }

    @Test("a snapshot that cannot be served again is reported by its name")
    func missing() async throws {
        let first = try await daemonWithSnapshots()
        _ = try await attach(first, "d@s1", AttachRequest(kind: .nbd))
        for shard in first.shards {
            await shard.failNext("attach", with: ControlError(.ioError, "broken"))
        }
        let second = try await first.restarted()
        let missing = try await second.client.status().missing
        #expect(missing.map(\.vdi) == ["d"] && missing.map(\.snapshot) == ["s1"])
        let deleted = await failure { try await second.client.call { try $0.delete("d", "s1") } }
        #expect(deleted?.kind == .attached)
        await second.plane.restoreAttachments()
        try await second.client.ready()
        await second.stop()
    }
}
