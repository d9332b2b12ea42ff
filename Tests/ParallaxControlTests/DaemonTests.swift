// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import Logging
import ParallaxBlockd
import ParallaxControl
import Synchronization
import Testing

@Suite struct DaemonTests {
    /// A datagram socket in the place of systemd's.
    private final class FakeSystemd: Sendable {
        let path: String
        private let descriptor: Int32

        init(_ path: String) throws {
            self.path = path
            descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
            let result = try UnixAddress(path: path).withSocketAddress { [descriptor] in
                bind(descriptor, $0, $1)
            }
            #expect(result == 0)
        }

        deinit { close(descriptor) }

        /// Waits for the next message.
        func next() async throws -> String {
            try await offPool { [descriptor] in
                var buffer = [UInt8](repeating: 0, count: 1000)
                let count = recv(descriptor, &buffer, buffer.count, 0)
                return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
            }
        }
    }

    private final class CloseCounter: Sendable {
        let count = Mutex(0)
    }

    private let directory: TemporaryDirectory
    private let configuration: DaemonConfiguration
    private let systemd: FakeSystemd

    init() throws {
        directory = try TemporaryDirectory()
        configuration = try TestDaemon.configuration(in: directory)
        systemd = try FakeSystemd(directory.file("notify"))
    }

    private func start(
        _ shards: [FakeShard], closing: CloseCounter = CloseCounter()
    ) -> (run: Task<ControlError?, Never>, stop: AsyncStream<Void>.Continuation) {
        let (stream, stop) = AsyncStream.makeStream(of: Void.self)
        let daemon = Daemon(
            configuration: configuration, log: .silent,
            notifier: ServiceNotifier(socketName: systemd.path))
        var runtime = TestDaemon.runtime(shards)
        runtime.close = { closing.count.withLock { $0 += 1 } }
        let opened = runtime
        let run = Task { await failure { try await daemon.run(opened, until: stream) } }
        return (run, stop)
    }

    @Test("the daemon says ready, serves, and stops cleanly when told")
    func life() async throws {
        let shard = FakeShard(index: 0)
        let closing = CloseCounter()
        let (run, stop) = start([shard], closing: closing)
        #expect(try await systemd.next().hasPrefix("READY=1\n"))
        let client = AsyncClient(
            blocking: try ControlClient(socketPath: configuration.controlSocketPath))
        try await client.create(name: "a", sizeBytes: 1 << 20)
        try await client.attach("a", AttachRequest(kind: .nbd))
        #expect(try await systemd.next() == "READY=1\nSTATUS=1 of 1 attachments serve")
        stop.yield()
        #expect(try await systemd.next().hasPrefix("STOPPING=1\n"))
        #expect(await run.value == nil)
        #expect(await shard.isShutDown)
        #expect(closing.count.withLock { $0 } == 1)
        #expect(!exists(configuration.controlSocketPath))
    }

    @Test("systemd is not told ready while an attachment does not serve")
    func degraded() async throws {
        let shard = FakeShard(index: 0)
        let first = start([shard])
        _ = try await systemd.next()
        let client = AsyncClient(
            blocking: try ControlClient(socketPath: configuration.controlSocketPath))
        try await client.create(name: "a", sizeBytes: 1 << 20)
        try await client.attach("a", AttachRequest(kind: .nbd))
        _ = try await systemd.next()
        first.stop.finish()
        _ = try await systemd.next()
        _ = await first.run.value

        await shard.restart()
        await shard.failNext("attach", with: ControlError(.ioError, "broken"))
        let second = start([shard])
        #expect(try await systemd.next() == "STATUS=0 of 1 attachments serve")
        try await client.detach("a")
        #expect(try await systemd.next() == "READY=1\nSTATUS=0 of 0 attachments serve")
        second.stop.yield()
        #expect(await second.run.value == nil)
    }

    @Test("what was under way when the daemon was told to stop is answered as made")
    func changeWhileStopping() async throws {
        let shards = (0..<2).map { FakeShard(index: $0) }
        let daemon = try await TestDaemon(shards: shards)
        let plane = daemon.plane
        for name in ["a", "b"] { try await daemon.client.create(name: name, sizeBytes: 1 << 20) }
        await shards[0].during("snapshot") { await plane.beginStopping() }
        let group = CreateSnapshotRequest(vdis: ["a", "b"], name: "s")
        let made = try await daemon.client.call { try $0.createGroup(group) }
        #expect(made.map(\.version) == ["a@s", "b@s"])
        for read in ["/v1/vdis", "/v1/vdis/a", "/v1/vdis/a/snapshots", "/v1/vdis/a/snapshots/s"] {
            let answer = try await daemon.client.exchange("GET", read, [])
            #expect(answer.startLine == .response(status: 503), "\(read)")
        }
        await daemon.stop()
    }

    @Test("a shard that gives no answer does not hold up the end, and its client is told")
    func stuckChange() async throws {
        let shard = FakeShard(index: 0)
        let closing = CloseCounter()
        let (run, stop) = start([shard], closing: closing)
        _ = try await systemd.next()
        let client = AsyncClient(
            blocking: try ControlClient(socketPath: configuration.controlSocketPath))
        let (gate, open) = AsyncStream.makeStream(of: Void.self)
        await shard.during("create") {
            stop.yield()
            for await _ in gate { break }
        }
        let error = await failure { try await client.create(name: "a", sizeBytes: 1 << 20) }
        #expect(error?.kind == .stopping)
        #expect(error?.message.contains("look whether it was done") == true)
        #expect(await run.value == nil)
        #expect(closing.count.withLock { $0 } == 1)
        open.finish()
    }

    @Test("a start that fails shuts the shards down, closes the store and says why")
    func failedStart() async throws {
        try directory.write("in the way", to: "control.sock")
        let shard = FakeShard(index: 0)
        let closing = CloseCounter()
        let (run, stop) = start([shard], closing: closing)
        let error = await run.value
        #expect(error?.message.contains("not a socket") == true)
        #expect(await shard.isShutDown)
        #expect(closing.count.withLock { $0 } == 1)
        #expect(exists(configuration.controlSocketPath))
        stop.finish()
    }
}
