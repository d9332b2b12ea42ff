// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import ParallaxXen
import Synchronization
import Testing

/// The tool stack's nodes over restarts: which disk they have, and who may touch it meanwhile.
@Suite struct XenNodeTests {
    private let backend = "/local/domain/0/backend/vbd/3/51712"
    private let size: UInt64 = 4 << 20

    private func daemon(_ names: String...) async throws -> TestDaemon {
        let daemon = try await TestDaemon()
        for name in names { try await daemon.client.create(name: name, sizeBytes: size) }
        return daemon
    }

    private func head(_ daemon: TestDaemon, _ name: String) async throws -> VersionReference {
        let text = try await daemon.client.vdi(name).identifier
        return .head(try #require(VDIIdentifier(hexadecimal: text)))
    }

    private func snapshot(_ daemon: TestDaemon, _ name: String) async throws -> VersionReference {
        let description = try await daemon.client.call {
            try $0.createSnapshot(of: "a", CreateSnapshotRequest(name: name))
        }
        return .snapshot(
            try #require(SnapshotIdentifier(hexadecimal: description.identifier)))
    }

    private func node(
        _ vdi: String, of version: VersionReference? = nil, store: String = TestDaemon.uuid
    ) -> XenDiskNode {
        XenDiskNode(
            path: backend, vdi: vdi, readOnly: false,
            identity: version.map {
                "\(XenDiskIdentity(store: store, version: $0.rawValue))"
            })
    }

    private func follow(_ daemon: TestDaemon, _ nodes: [XenDiskNode]) async -> [String] {
        let sentences = Mutex<[String]>([])
        await daemon.plane.follow(nodes) { _, sentence in
            sentences.withLock { $0.append(sentence) }
        }
        return sentences.withLock { $0 }
    }

    private func versions(_ daemon: TestDaemon) async -> Set<VersionReference> {
        var result: Set<VersionReference> = []
        for shard in daemon.shards { result.formUnion(await shard.served.keys) }
        return result
    }

    @Test("a node keeps the VDI that it was given, whatever has its name by now")
    func renamed() async throws {
        let daemon = try await daemon("boot-old", "boot")
        let old = try await head(daemon, "boot-old")
        #expect(await follow(daemon, [node("boot", of: old)]).isEmpty)
        #expect(await versions(daemon) == [old])
        await daemon.stop()
    }

    @Test("a node keeps the snapshot that was the newest once")
    func newestSnapshot() async throws {
        let daemon = try await daemon("a")
        let first = try await snapshot(daemon, "s1")
        daemon.clock.advance(seconds: 60)
        let second = try await snapshot(daemon, "s2")
        var node = node("a@latest", of: first)
        node.readOnly = true
        #expect(await follow(daemon, [node]).isEmpty)
        #expect(await versions(daemon) == [first])
        // One that was never offered means what the name means now.
        var other = XenDiskNode(path: backend + "1", vdi: "a@latest", readOnly: true)
        other.identity = nil
        #expect(await follow(daemon, [node, other]).isEmpty)
        #expect(await versions(daemon) == [first, second])
        await daemon.stop()
    }

    @Test("a node whose disk has been deleted is refused, and not given another one of its name")
    func deleted() async throws {
        let daemon = try await daemon("boot", "gone")
        let gone = try await head(daemon, "gone")
        let boot = try await head(daemon, "boot")
        try await daemon.client.delete("gone")
        let refusals = await follow(daemon, [node("boot", of: gone)])
        #expect(refusals.count == 1 && refusals[0].contains("has been deleted"))
        _ = await follow(daemon, [])
        // The daemon of the other store may be serving it.
        #expect(await follow(daemon, [node("boot", of: boot, store: "another")]).isEmpty)
        #expect(await daemon.served() == [])
        await daemon.stop()
    }

    @Test("until the node is seen after a restart, its disk is neither changed nor given away")
    func protection() async throws {
        let first = try await daemon("a")
        #expect(await follow(first, [node("a")]).isEmpty)
        let daemon = try await first.restarted()
        let client = daemon.client
        #expect(await daemon.served() == [])
        #expect(try await client.vdi("a").attachment?.serving == false)
        #expect(await failure { try await client.ready() } != nil)
        _ = try await snapshot(daemon, "s")
        let refused = [
            await failure { try await client.delete("a") },
            await failure {
                _ = try await client.attach("a", AttachRequest(kind: .xen, socket: "web2:xvda"))
            },
            await failure { _ = try await client.attach("a", AttachRequest(kind: .nbd)) },
            await failure {
                try await client.change(
                    "a", ChangeVDIRequest(sizeBytes: size / 2, shrink: true))
            },
            await failure { try await client.change("a", ChangeVDIRequest(template: true)) },
            await failure {
                _ = try await client.call { try $0.rollback("a", RollbackRequest(snapshot: "s")) }
            },
        ]
        #expect(refused.map { $0?.kind } == Array(repeating: .attached, count: 6))
        #expect(refused[0]?.message.contains(backend) == true)

        #expect(await follow(daemon, [node("a")]).isEmpty)
        #expect(await daemon.served() == [backend])
        try await client.ready()
        await daemon.stop()
    }

    @Test("a node that the first look does not show has no disk", arguments: [false, true])
    func removedMeanwhile(isOrphan: Bool) async throws {
        let first = try await daemon("a")
        #expect(await follow(first, [node("a")]).isEmpty)
        var daemon = try await first.restarted()
        var left = node("a")
        left.hasFrontEnd = false
        #expect(await follow(daemon, isOrphan ? [left] : []).count == (isOrphan ? 1 : 0))
        try await daemon.client.ready()
        daemon = try await daemon.restarted()
        #expect(try await daemon.client.vdi("a").attachment == nil)
        try await daemon.client.delete("a")
        await daemon.stop()
    }

    @Test("a place that has another disk by now frees the one that it had")
    func otherDisk() async throws {
        let first = try await daemon("a", "b")
        #expect(await follow(first, [node("a")]).isEmpty)
        let daemon = try await first.restarted()
        #expect(await follow(daemon, [node("b")]).isEmpty)
        #expect(await versions(daemon) == [try await head(daemon, "b")])
        try await daemon.client.delete("a")
        #expect(await follow(daemon, [node("b")]).isEmpty, "the same node, seen again")
        await daemon.stop()
    }

    @Test("where Xen is gone for good, the administrator detaches the disk")
    func withoutXen() async throws {
        let first = try await daemon("a")
        #expect(await follow(first, [node("a")]).isEmpty)
        var daemon = try await first.restarted()
        let problem = try await daemon.client.vdi("a").attachment?.problem
        #expect(problem?.contains("detach it if the domain is gone") == true)
        try await daemon.client.detach("a")
        try await daemon.client.ready()
        daemon = try await daemon.restarted()
        #expect(try await daemon.client.vdi("a").attachment == nil)
        try await daemon.client.delete("a")
        await daemon.stop()
    }

    @Test("a node that is refused says why it does not serve, and its disk stays its own")
    func refused() async throws {
        let first = try await daemon("a")
        #expect(await follow(first, [node("a")]).isEmpty)
        let daemon = try await first.restarted()
        for shard in daemon.shards {
            await shard.failNext("attach", with: ControlError(.socketUnusable, "broken"))
        }
        #expect(await follow(daemon, [node("a")]) == ["broken"])
        #expect(try await daemon.client.vdi("a").attachment?.problem == "broken")
        #expect(await failure { try await daemon.client.delete("a") }?.kind == .attached)
        await daemon.stop()
    }

    @Test("a version that is attached leaves out itself only, not the rest of its VDI")
    func rememberedVersions() async throws {
        let first = try await daemon("a")
        _ = try await snapshot(first, "s")
        _ = try await first.client.attach("a", AttachRequest(kind: .xen, socket: "web1:xvdb"))
        let daemon = try await first.restarted(restores: false)
        let version = try VersionName("a@s")
        _ = try await daemon.client.call {
            try $0.attach(version, AttachRequest(kind: .xen, socket: "3:xvdb"))
        }
        #expect(await versions(daemon).contains(try await head(daemon, "a")))
        await daemon.stop()
    }

    @Test("a remembered device comes before a new one, which may be the same under another name")
    func rememberedFirst() async throws {
        let first = try await daemon("a", "b")
        _ = try await first.client.attach("a", AttachRequest(kind: .xen, socket: "web1:xvdb"))
        let daemon = try await first.restarted(restores: false)
        let a = try await head(daemon, "a")
        #expect(await versions(daemon) == [])
        // The device itself knows that both names mean it.
        _ = try await daemon.client.attach("b", AttachRequest(kind: .xen, socket: "3:xvdb"))
        #expect(await versions(daemon).contains(a))
        await daemon.stop()
    }
}
