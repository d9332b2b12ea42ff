// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import Synchronization
import Testing

@testable import ParallaxBlockd

/// The end of a scrub, for whoever waits for it.
@Suite struct ScrubControlTests {
    /// What the shards were ordered to do, and what else happens at a start.
    private final class Orders: Sendable {
        let log = Mutex<[String]>([])
        let atStart = Mutex<(@Sendable () async -> Void)?>(nil)

        func take(_ order: ScrubOrder) async {
            guard case .start = order else { return log.withLock { $0.append("stop") } }
            log.withLock { $0.append("start") }
            await atStart.withLock { $0 }?()
        }
    }

    private let directory: TemporaryDirectory
    private let shards = [FakeShard(index: 0), FakeShard(index: 1)]
    private let orders = Orders()
    private let plane: ControlPlane
    private let path: String

    init() async throws {
        directory = try TemporaryDirectory()
        var runtime = TestDaemon.runtime(shards)
        runtime.scrub = { [orders] in await orders.take($0) }
        let configuration = try TestDaemon.configuration(in: directory)
        path = "\(configuration.stateDirectory)/scrub-\(TestDaemon.uuid).json"
        plane = ControlPlane(runtime: runtime, configuration: configuration, log: .silent)
        try await plane.load()
    }

    private func scrub() async throws {
        try await plane.scrubStore(ScrubStoreRequest(rateBytesPerSecond: nil, restart: nil))
    }

    private func set(_ index: Int, running: Bool = false, finished: Bool = false) async {
        var scrub = ScrubDescription()
        scrub.running = running
        scrub.finished = finished
        scrub.totalBytes = 4096
        await shards[index].set(scrub)
    }

    private func state() async throws -> ScrubSummary.State? {
        try await plane.status().scrub?.state
    }

    /// The state as the file has it.
    private func kept() throws -> ScrubSummary.State {
        let bytes = try SmallFile.read(path, limitBytes: 1 << 20)
        return try ControlJSON.decode(ScrubRecord.self, from: bytes).summary.state
    }

    /// As in a full file system: the new contents have no place.
    private func fillStateDirectory() throws {
        _ = mkdir(directory.file("state"), 0o700)
        try #require(mkdir(path + ".new", 0o700) == 0)
    }

    @Test("no scrub begins over a shard that has failed")
    func refused() async throws {
        await shards[1].becomeReadOnly("Flushing failed.")
        let error = await failure { try await scrub() }
        #expect(
            error?.message == "the store cannot be scrubbed: shard 1 is read-only (Flushing "
                + "failed.); mend the cause, restart the daemon and scrub again")
        #expect(orders.log.withLock { $0 }.isEmpty)
        #expect(try await state() == nil)
        await plane.shutDown()
    }

    @Test("a scrub is interrupted when a shard fails under it")
    func fails() async throws {
        try await scrub()
        for index in 0...1 { await set(index, running: true) }
        await plane.watchScrub()
        #expect(try await state() == .running)
        await set(1)
        await shards[1].becomeReadOnly("Flushing failed.")
        await plane.watchScrub()
        #expect(try await state() == .paused)
        #expect(try kept() == .paused)
        #expect(orders.log.withLock { $0 } == ["stop", "start", "stop"])
        await plane.shutDown()
    }

    @Test("a shard that fails before it begins is not done because it was done with the one before")
    func failsBeforeItBegins() async throws {
        for index in 0...1 { await set(index, finished: true) }
        orders.atStart.withLock { [shards] in
            $0 = { await shards[1].becomeReadOnly("Flushing failed.") }
        }
        try await scrub()
        await plane.watchScrub()
        #expect(try await state() == .paused)
        await plane.shutDown()
    }

    @Test("a scrub with which no shard goes on is not running")
    func nobodyGoesOn() async throws {
        try await scrub()
        await set(0, finished: true)
        await set(1)
        await plane.watchScrub()
        #expect(try await state() == .paused)
        #expect(try kept() == .paused)
        await plane.shutDown()
    }

    @Test("a scrub that was stopped is not running, also when that cannot be kept")
    func stopIsNotKept() async throws {
        try await scrub()
        for index in 0...1 { await set(index, running: true) }
        try fillStateDirectory()
        let error = await failure { try await plane.stopScrub() }
        #expect(error?.message.contains("cannot keep the scrub's place in \(path)") == true)
        #expect(try await state() == .paused)
        await plane.shutDown()
    }

    @Test("a scrub that cannot be kept does not begin, and the one before goes on")
    func startIsNotKept() async throws {
        try await scrub()
        for index in 0...1 { await set(index, running: true) }
        try fillStateDirectory()
        let error = await failure {
            try await plane.scrubStore(ScrubStoreRequest(rateBytesPerSecond: nil, restart: true))
        }
        #expect(error?.kind == .ioError)
        #expect(orders.log.withLock { $0 } == ["stop", "start"])
        await plane.watchScrub()
        #expect(try await state() == .running)
        await plane.shutDown()
    }
}
