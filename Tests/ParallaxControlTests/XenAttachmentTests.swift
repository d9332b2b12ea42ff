// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import ParallaxXen
import Synchronization
import Testing

@Suite struct XenAttachmentTests {
    private let backend = "/local/domain/0/backend/vbd/3/51712"

    private func identifier(_ daemon: TestDaemon, _ name: String) async throws -> VDIIdentifier {
        let text = try await daemon.client.vdi(name).identifier
        return try #require(VDIIdentifier(hexadecimal: text))
    }

    /// What the tool stack's nodes lead to; the sentences of those that were refused.
    private func follow(_ daemon: TestDaemon, _ nodes: [XenDiskNode]) async -> [String] {
        let sentences = Mutex<[String]>([])
        await daemon.plane.follow(nodes) { _, sentence in
            sentences.withLock { $0.append(sentence) }
        }
        return sentences.withLock { $0 }
    }

    @Test("a device of a domain is served, remembered over a restart, and detached")
    func attachment() async throws {
        var daemon = try await TestDaemon()
        for name in ["a", "b"] {
            _ = try await daemon.client.create(name: name, sizeBytes: 1 << 20)
        }
        let request = AttachRequest(kind: .xen, socket: "web1:51712", readOnly: true)
        let attachment = try await daemon.client.attach("a", request)
        #expect(attachment.location == "web1:xvda" && attachment.readOnly)
        #expect(await daemon.served() == ["web1:xvda"])
        let taken = await failure {
            _ = try await daemon.client.attach("b", AttachRequest(kind: .xen, socket: "web1:xvda"))
        }
        #expect(taken?.message.contains("in use by VDI \"a\"") == true)
        daemon = try await daemon.restarted()
        #expect(await daemon.served() == ["web1:xvda"])
        try await daemon.client.detach("a")
        #expect(await daemon.served() == [])
        _ = try await daemon.client.attach("b", AttachRequest(kind: .xen, socket: "web1:xvda"))
        await daemon.stop()
    }

    @Test(
        "what is no device is refused with a sentence",
        arguments: [
            nil, "", "web1", "web1:sda", "/a/path", "3:xvda0",
        ] as [String?])
    func badDevices(device: String?) async throws {
        let daemon = try await TestDaemon()
        _ = try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        let error = await failure {
            _ = try await daemon.client.attach("a", AttachRequest(kind: .xen, socket: device))
        }
        #expect(error?.kind == .invalid)
        #expect(error?.message.contains("xvda") == true)
        await daemon.stop()
    }

    @Test("a tool stack's node is served once, found again at a start, and gone with its domain")
    func nodes() async throws {
        var daemon = try await TestDaemon()
        _ = try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        let node = XenDiskNode(path: backend, vdi: "a", readOnly: false)
        #expect(await follow(daemon, [node]).isEmpty)
        #expect(await daemon.served() == [backend])
        #expect(await follow(daemon, [node]).isEmpty, "the same node, seen again")
        daemon = try await daemon.restarted()
        #expect(await daemon.served() == [])
        #expect(await follow(daemon, [node]).isEmpty)
        #expect(await daemon.served() == [backend])

        let identifier = try await identifier(daemon, "a")
        for shard in daemon.shards where await shard.served[.head(identifier)] != nil {
            await shard.lose([.head(identifier)])
        }
        #expect(await follow(daemon, []).isEmpty)
        for shard in daemon.shards { await shard.lose([]) }
        #expect(try await daemon.client.vdi("a").attachment == nil)
        #expect(await daemon.served() == [])
        #expect(await follow(daemon, [node]).isEmpty)
        #expect(await daemon.served() == [backend], "the device came back")
        await daemon.stop()
    }

    @Test("an ended disk of a domain is released, and not what was attached in its place")
    func attachedAnew() async throws {
        let daemon = try await TestDaemon()
        let plane = daemon.plane
        _ = try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        _ = try await daemon.client.attach("a", AttachRequest(kind: .xen, socket: "web1:xvda"))
        let head = VersionReference.head(try await identifier(daemon, "a"))
        let version = try VersionName("a")
        for shard in daemon.shards where await shard.served[head] != nil {
            await shard.lose([head])
            await shard.during("ended") {
                try? await plane.detach(version)
                _ = try? await plane.attach(
                    version, AttachRequest(kind: .xen, socket: "web2:xvda"))
            }
        }
        await plane.releaseEndedXen()
        #expect(await daemon.served() == ["web2:xvda"])
        await plane.releaseEndedXen()
        #expect(await daemon.served() == [])
        await daemon.stop()
    }

    @Test("a VDI that a domain's configuration names is not renamed, one at a device's place is")
    func renames() async throws {
        let daemon = try await TestDaemon()
        for name in ["a", "b"] { try await daemon.client.create(name: name, sizeBytes: 1 << 20) }
        _ = await follow(daemon, [XenDiskNode(path: backend, vdi: "a", readOnly: false)])
        _ = try await daemon.client.attach("b", AttachRequest(kind: .xen, socket: "web1:xvda"))
        let refused = await failure {
            try await daemon.client.change("a", ChangeVDIRequest(name: "c"))
        }
        #expect(refused?.kind == .attached && refused?.message.contains(backend) == true)
        try await daemon.client.change("b", ChangeVDIRequest(name: "d"))
        #expect(try await daemon.client.vdis().map(\.name) == ["a", "d"])
        await daemon.stop()
    }

    @Test("a node that cannot be served is told why, once")
    func refusedNodes() async throws {
        let daemon = try await TestDaemon()
        _ = try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        _ = try await daemon.client.attach("a", AttachRequest(kind: .nbd))
        let missing = XenDiskNode(path: backend + "1", vdi: "b", readOnly: false)
        let busy = XenDiskNode(path: backend, vdi: "a", readOnly: false)
        let orphan = XenDiskNode(path: backend + "2", vdi: "a", readOnly: false, hasFrontEnd: false)
        let sentences = await follow(daemon, [missing, busy, orphan])
        #expect(sentences.count == 3)
        #expect(sentences.first == "there is no VDI called \"b\"")
        #expect(sentences[1].contains("already attached"))
        #expect(sentences[2] == XenFault.domainGone.text)
        #expect(await follow(daemon, [missing, busy, orphan]).isEmpty)
        #expect(await daemon.served() == ["shared"])
        await daemon.stop()
    }

    @Test(
        "a domain's number is forgotten when the domain is gone, its name is not",
        arguments: [
            ("3:xvda", false), ("web1:xvda", true),
        ])
    func restartWithoutDomain(place: String, isKept: Bool) async throws {
        var daemon = try await TestDaemon()
        _ = try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        _ = try await daemon.client.attach("a", AttachRequest(kind: .xen, socket: place))
        daemon = try await daemon.restarted(restores: false)
        let domain = String(place.prefix { $0 != ":" })
        for shard in daemon.shards {
            await shard.failNext(
                "attach", with: ControlError(.notFound, "\(XenError.noSuchDomain(domain))"))
        }
        await daemon.plane.restoreAttachments()
        await daemon.plane.releaseEndedXen()
        let attachment = try await daemon.client.vdi("a").attachment
        #expect((attachment != nil) == isKept)
        if isKept { #expect(attachment?.problem?.contains("no domain web1") == true) }
        await daemon.stop()
    }
}
