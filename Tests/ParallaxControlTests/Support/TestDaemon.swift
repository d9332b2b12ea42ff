// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxBlockd
import ParallaxControl
import Synchronization

/// The time of day of a daemon under test: it stands still until it is set.
final class TestClock: Sendable {
    private let nanoseconds = Mutex<UInt64>(1_700_000_000_000_000_000)

    var now: UInt64 { nanoseconds.withLock { $0 } }

    func set(_ text: String) {
        if let time = TimeText.parse(text) { nanoseconds.withLock { $0 = time } }
    }

    func advance(seconds: Double) {
        nanoseconds.withLock { $0 = UInt64(Double($0) + seconds * 1e9) }
    }
}

/// The control plane behind its real HTTP server on a real socket, over fake shards.
struct TestDaemon {
    let directory: TemporaryDirectory
    let configuration: DaemonConfiguration
    let shards: [FakeShard]
    let clock: TestClock
    let plane: ControlPlane
    let client: AsyncClient
    private let server: HTTPServer

    static let uuid = "00000000-1111-2222-3333-444444444444"

    init(
        directory: TemporaryDirectory? = nil, shards: [FakeShard]? = nil, restores: Bool = true,
        clock: TestClock = TestClock(), defaultPolicy: String? = nil,
        diffLimit: Duration = ControlPlane.diffLimit
    ) async throws {
        self.clock = clock
        self.directory = try directory ?? TemporaryDirectory()
        self.shards = shards ?? (0..<2).map { FakeShard(index: $0) }
        configuration = try Self.configuration(in: self.directory, defaultPolicy)
        plane = ControlPlane(
            runtime: Self.runtime(self.shards), configuration: configuration, log: .silent,
            now: { clock.now }, groupLimit: .seconds(60), diffLimit: diffLimit)
        try await plane.load()
        let listener = try ListeningSocket(
            path: configuration.controlSocketPath, purpose: "the control socket")
        let routes = ControlRoutes(plane: plane)
        server = try HTTPServer(
            listener: listener, log: .silent, isAlwaysServed: ControlRoutes.isAnsweredAtOnce
        ) { await routes.respond(to: $0) }
        try server.start()
        client = AsyncClient(
            blocking: try ControlClient(socketPath: configuration.controlSocketPath))
        if restores { await plane.restoreAttachments() }
    }

    static func configuration(
        in directory: TemporaryDirectory, _ defaultPolicy: String? = nil
    ) throws -> DaemonConfiguration {
        var flags = PartialConfiguration()
        flags.store = directory.file("store")
        flags.control = directory.file("control.sock")
        flags.stateDirectory = directory.file("state")
        flags.retentionDefault = defaultPolicy
        return try DaemonConfiguration(flags: flags, file: PartialConfiguration())
    }

    static func runtime(_ shards: [FakeShard]) -> StoreRuntime {
        StoreRuntime(
            identity: identity(sizeBytes: 1 << 30), shards: shards,
            grow: { sizeBytes in
                // As on a block device of 2 GiB.
                let sizeBytes = sizeBytes ?? 2 << 30
                guard sizeBytes >= 1 << 30 else {
                    throw ControlError(.invalid, "a store cannot shrink")
                }
                return identity(sizeBytes: sizeBytes)
            }, close: {})
    }

    private static func identity(sizeBytes: UInt64) -> StoreIdentity {
        StoreIdentity(
            path: "/fake/store", uuid: uuid, sizeBytes: sizeBytes, extentBytes: 64 << 20,
            extentCount: sizeBytes >> 26)
    }

    func stop() async {
        await server.stop()
        await plane.shutDown()
    }

    /// The daemon that comes after this one: the same files and VDIs, nothing served.
    func restarted(restores: Bool = true) async throws -> TestDaemon {
        await server.stop()
        for shard in shards { await shard.restart() }
        return try await TestDaemon(
            directory: directory, shards: shards, restores: restores, clock: clock)
    }

    var attachmentsPath: String {
        "\(configuration.stateDirectory)/attachments-\(Self.uuid).json"
    }

    /// Requests under way that nobody waits for any more.
    var unawaitedCount: Int { server.unawaitedCount }

    func overlaps() async -> Int {
        var sum = 0
        for shard in shards { sum += await shard.overlaps }
        return sum
    }

    func served() async -> [String] {
        var result: [String] = []
        for shard in shards { result += await shard.served.values }
        return result.sorted()
    }
}

extension Logger {
    static var silent: Logger { Logger(label: "test") { _ in SwiftLogNoOpLogHandler() } }
}

/// The error of `body`, or nil if there was none.
func failure(_ body: () throws -> Void) -> ControlError? {
    do {
        try body()
        return nil
    } catch {
        return error as? ControlError
    }
}

func failure(_ body: () async throws -> Void) async -> ControlError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? ControlError
    }
}
