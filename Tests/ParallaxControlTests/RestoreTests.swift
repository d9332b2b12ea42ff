// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxCore
import Synchronization
import Testing

@testable import ParallaxBlockd

/// What a start makes of the attachments file.
@Suite struct RestoreTests {
    @Test("a forgotten attachment is not that of a new VDI with the same identifier")
    func forgottenForGood() async throws {
        let first = try await TestDaemon(shards: [FakeShard(index: 0)])
        let made = try await first.client.create(name: "a", sizeBytes: 1 << 20)
        let request = AttachRequest(kind: .vhostUser, socket: first.directory.file("a.sock"))
        try await first.client.attach("a", request)
        await first.stop()
        let second = try await TestDaemon(directory: first.directory, shards: [FakeShard(index: 0)])
        let other = try await second.client.create(name: "b", sizeBytes: 1 << 20)
        #expect(other.identifier == made.identifier)
        let third = try await second.restarted()
        #expect(await third.served().isEmpty)
        #expect(try await third.client.vdi("b").attachment == nil)
        await third.stop()
    }

    @Test("that it cannot be forgotten in the file keeps nobody from starting")
    func forgottenInMemory() async throws {
        let first = try await TestDaemon(shards: [FakeShard(index: 0)])
        _ = try await first.client.create(name: "a", sizeBytes: 1 << 20)
        try await first.client.attach("a", AttachRequest(kind: .nbd))
        await first.stop()
        try #require(mkdir(first.attachmentsPath + ".new", 0o700) == 0)
        let second = try await TestDaemon(directory: first.directory, shards: [FakeShard(index: 0)])
        try await second.client.ready()
        await second.stop()
    }

    @Test("the socket of an attachment that does not serve is kept for it")
    func keptSocket() async throws {
        let first = try await TestDaemon(shards: [FakeShard(index: 0)])
        for name in ["a", "b"] { _ = try await first.client.create(name: name, sizeBytes: 1 << 20) }
        let socket = first.directory.file("a.sock")
        let request = AttachRequest(kind: .vhostUser, socket: socket)
        try await first.client.attach("a", request)
        await first.shards[0].failNext("attach", with: ControlError(.ioError, "broken"))
        let second = try await first.restarted()
        #expect(try await second.client.status().missing.map(\.vdi) == ["a"])
        let other = AttachRequest(kind: .nbd, socket: first.directory.file("./a.sock"))
        let refused = await failure { try await second.client.attach("b", other) }
        #expect(refused?.kind == .socketUnusable)
        #expect(
            refused?.message == "the socket \(socket) is kept for VDI \"a\", which does not serve "
                + "at the moment; detach that first, or use another path")
        // Its own attachment can be made anew there, and once it is gone the place is free.
        try await second.client.attach("a", AttachRequest(kind: .nbd, socket: socket))
        try await second.client.detach("a")
        try await second.client.attach("b", other)
        await second.stop()
    }

    @Test("of two that are remembered at one socket, as it once was possible, one serves")
    func sharedSocket() async throws {
        let first = try await TestDaemon(shards: [FakeShard(index: 0)])
        for name in ["a", "b"] { _ = try await first.client.create(name: name, sizeBytes: 1 << 20) }
        let socket = first.directory.file("a.sock")
        await first.stop()
        try AttachmentsFile(
            stateDirectory: first.configuration.stateDirectory, storeUUID: TestDaemon.uuid
        ).save(
            [1, 2].map {
                AttachmentRecord(
                    identifier: VDIIdentifier($0), kind: .vhostUser, socketPath: socket,
                    isReadOnly: false)
            })
        let second = try await first.restarted()
        #expect(await second.served() == [socket])
        #expect(try await second.client.status().missing.map(\.vdi) == ["b"])
        await second.stop()
    }

    @Test("the shared NBD socket does not answer when a stop comes before its exports are back")
    func stoppedMeanwhile() async throws {
        let first = try await TestDaemon(shards: [FakeShard(index: 0)])
        for name in ["a", "b"] {
            _ = try await first.client.create(name: name, sizeBytes: 1 << 20)
            try await first.client.attach(name, AttachRequest(kind: .nbd))
        }
        await first.stop()
        let shard = first.shards[0]
        await shard.restart()
        let answers = Mutex(0)
        var runtime = TestDaemon.runtime([shard])
        runtime.serveSharedNBD = { answers.withLock { $0 += 1 } }
        let plane = ControlPlane(
            runtime: runtime, configuration: first.configuration, log: .silent)
        try await plane.load()
        await shard.during("attach") { await plane.beginStopping() }
        await plane.restoreAttachments()
        #expect(await shard.served.count == 1)
        #expect(answers.withLock { $0 } == 0)
        await plane.shutDown()
    }
}
