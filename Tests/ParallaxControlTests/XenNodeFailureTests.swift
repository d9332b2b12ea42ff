// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import ParallaxXen
import Synchronization
import Testing

/// What becomes of a tool stack's node that cannot be served just now.
@Suite struct XenNodeFailureTests {
    private let backend = "/local/domain/0/backend/vbd/3/51712"
    private let lines = LogLines()

    /// A control plane whose log is read, over the VDI `a`.
    private func plane(
        in directory: TemporaryDirectory, _ shard: FakeShard
    ) async throws -> ControlPlane {
        let lines = lines
        let plane = ControlPlane(
            runtime: TestDaemon.runtime([shard]),
            configuration: try TestDaemon.configuration(in: directory),
            log: Logger(label: "test") { _ in RecordingLog(lines: lines) })
        try await plane.load()
        return plane
    }

    private func start() async throws -> (TestDaemon, ControlPlane, FakeShard, XenDiskNode) {
        let daemon = try await TestDaemon(shards: [FakeShard(index: 0)])
        try await daemon.client.create(name: "a", sizeBytes: 1 << 20)
        let text = try await daemon.client.vdi("a").identifier
        let head = VersionReference.head(try #require(VDIIdentifier(hexadecimal: text)))
        let identity = XenDiskIdentity(store: TestDaemon.uuid, version: head.rawValue)
        let node = XenDiskNode(
            path: backend, vdi: "a", readOnly: false, identity: "\(identity)")
        let shard = daemon.shards[0]
        return (daemon, try await plane(in: daemon.directory, shard), shard, node)
    }

    @Test("a guest keeps a disk whose device is taken for a moment, and is served later")
    func passes() async throws {
        let (daemon, plane, shard, node) = try await start()
        for _ in 0..<2 {
            await shard.failNext("attach", with: ControlError(.socketUnusable, "in use"))
            #expect(await plane.follow([node]) { _, sentence in Issue.record("\(sentence)") })
            #expect(await daemon.served() == [])
        }
        #expect(lines.all == ["warning Xen device waits; it is tried again"])
        #expect(await !plane.follow([node]) { _, sentence in Issue.record("\(sentence)") })
        #expect(await daemon.served() == [backend])
        await daemon.stop()
    }

    @Test("a node without a key, which no guest has used yet, is told at once")
    func isNew() async throws {
        let (daemon, plane, shard, node) = try await start()
        var new = node
        new.identity = nil
        await shard.failNext("attach", with: ControlError(.socketUnusable, "in use"))
        let count = Mutex(0)
        #expect(await !plane.follow([new]) { _, _ in count.withLock { $0 += 1 } })
        #expect(count.withLock { $0 } == 1)
        await daemon.stop()
    }

    @Test("a node of another store is named in the log once, and left as it is")
    func otherStore() async throws {
        let (daemon, plane, _, node) = try await start()
        var other = node
        other.identity = "another-store/0000000000000001"
        for _ in 0..<2 {
            #expect(await !plane.follow([other]) { _, sentence in Issue.record("\(sentence)") })
        }
        #expect(lines.all == ["warning Xen device left as it is"])
        #expect(await daemon.served() == [])
        await daemon.stop()
    }

    @Test("a node that has changed since it was listed is not served by the old list")
    func changed() async throws {
        let (daemon, plane, _, node) = try await start()
        #expect(
            await plane.follow([node], isCurrent: { _ in false }) { _, sentence in
                Issue.record("\(sentence)")
            })
        #expect(await daemon.served() == [])
        #expect(await !plane.follow([node]) { _, sentence in Issue.record("\(sentence)") })
        #expect(await daemon.served() == [backend])
        await daemon.stop()
    }

    @Test("what has come to a node's place is not closed for what was there")
    func changedRefusal() async throws {
        let (daemon, plane, _, node) = try await start()
        var missing = node
        missing.vdi = "b"
        missing.identity = nil
        #expect(
            await plane.follow([missing], isCurrent: { _ in false }) { _, sentence in
                Issue.record("\(sentence)")
            })
        #expect(await !plane.follow([node]) { _, sentence in Issue.record("\(sentence)") })
        #expect(await daemon.served() == [backend])
        await daemon.stop()
    }

    @Test("a host without Xen says which disks wait for it")
    func withoutXen() async throws {
        let (daemon, first, shard, node) = try await start()
        await first.warnOfNodesWithoutXen("no libraries")
        #expect(lines.all == [])
        _ = await first.follow([node]) { _, _ in }
        await shard.restart()
        let second = try await plane(in: daemon.directory, shard)
        await second.warnOfNodesWithoutXen("no libraries")
        #expect(lines.all.last?.hasPrefix("warning disks of Xen domains wait") == true)
        #expect(lines.disks.last == "a (\(backend))")
        await daemon.stop()
    }
}

private final class LogLines: Sendable {
    private let lines = Mutex<[(text: String, disks: String)]>([])

    func add(_ text: String, disks: String) { lines.withLock { $0.append((text, disks)) } }

    var all: [String] { lines.withLock { $0.map(\.text) } }
    var disks: [String] { lines.withLock { $0.map(\.disks) } }
}

/// Keeps what is worth a warning.
private struct RecordingLog: LogHandler {
    let lines: LogLines
    var logLevel = Logger.Level.warning
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?

    init(lines: LogLines) { self.lines = lines }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        lines.add("\(event.level) \(event.message)", disks: "\(event.metadata?["disks"] ?? "")")
    }
}
