// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

/// Many HTTP clients at once, each a blocking thread's worth of work on a connection of its own.
@Suite struct ConcurrencyTests {
    /// Runs `body` for each number at the same time; results in order of the numbers.
    private func together<Result: Sendable>(
        _ count: Int, _ body: @escaping @Sendable (Int) -> Result
    ) async -> [Result] {
        await withTaskGroup(of: (Int, Result).self) { group in
            for number in 0..<count {
                group.addTask {
                    await withCheckedContinuation { continuation in
                        startDetachedThread {
                            continuation.resume(returning: (number, body(number)))
                        }
                    }
                }
            }
            var results: [(Int, Result)] = []
            for await result in group { results.append(result) }
            return results.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    @Test("of many that create one name, exactly one succeeds")
    func sameName() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client.blocking
        let errors = await together(40) { number in
            failure { _ = try client.create(name: "n\(number % 2)", sizeBytes: 1 << 20) }
        }
        #expect(errors.count { $0 == nil } == 2)
        #expect(errors.allSatisfy { $0 == nil || $0?.kind == .nameTaken })
        #expect(try await daemon.client.vdis().map(\.name) == ["n0", "n1"])
        await daemon.stop()
    }

    @Test("of many that attach one VDI, or one socket, exactly one succeeds")
    func sameAttachment() async throws {
        let daemon = try await TestDaemon()
        let (client, directory) = (daemon.client.blocking, daemon.directory)
        try await daemon.client.create(name: "one", sizeBytes: 1 << 20)
        let byVDI = await together(20) { number in
            failure {
                let socket = directory.file("s\(number)")
                _ = try client.attach("one", AttachRequest(kind: .vhostUser, socket: socket))
            }
        }
        #expect(byVDI.count { $0 == nil } == 1)
        for number in 0..<20 {
            try await daemon.client.create(name: "v\(number)", sizeBytes: 1 << 20)
        }
        let bySocket = await together(20) { number in
            failure {
                let socket = directory.file("shared")
                _ = try client.attach("v\(number)", AttachRequest(kind: .vhostUser, socket: socket))
            }
        }
        #expect(bySocket.count { $0 == nil } == 1)
        await daemon.stop()
    }

    @Test("renames in a circle neither wait for each other nor lose a disk")
    func circularRenames() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client.blocking
        let names = ["a", "b", "c", "d"]
        for name in names.dropLast() {
            try await daemon.client.create(name: name, sizeBytes: 1 << 20)
        }
        let before = Set(try await daemon.client.vdis().map(\.identifier))
        _ = await together(48) { number in
            failure {
                _ = try client.change(
                    names[number % 4], ChangeVDIRequest(name: names[(number + 1) % 4]))
            }
        }
        #expect(Set(try await daemon.client.vdis().map(\.identifier)) == before)
        #expect(await daemon.overlaps() == 0)
        await daemon.stop()
    }

    @Test("a storm of everything keeps the shards, the directory and the file in step")
    func storm() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client.blocking
        let kinds: Set<ControlError.Kind> = [
            .notFound, .nameTaken, .attached, .notAttached,
        ]
        let errors = await together(60) { worker -> [ControlError] in
            var random = SystemRandomNumberGenerator()
            return (0..<25).compactMap { _ in
                failure { try Self.step(client, worker: worker, random: &random) }
            }
        }
        for error in errors.joined() { #expect(kinds.contains(error.kind), "\(error.message)") }
        #expect(await daemon.overlaps() == 0)
        let vdis = try await daemon.client.vdis()
        #expect(Set(vdis.map(\.name)).count == vdis.count)
        var attached: [String] = []
        for vdi in vdis where vdi.attachment != nil { attached.append(vdi.identifier) }
        #expect(await daemon.served().count == attached.count)
        let file = AttachmentsFile(
            stateDirectory: daemon.configuration.stateDirectory, storeUUID: TestDaemon.uuid)
        #expect(try file.load().map(\.identifier.hexadecimal) == attached.sorted())
        let population = try await daemon.client.status().shards.map(\.vdiCount).reduce(0, +)
        #expect(population == vdis.count)
        await daemon.stop()
    }

    private static func step(
        _ client: ControlClient, worker: Int, random: inout SystemRandomNumberGenerator
    ) throws {
        let name = "disk\(Int.random(in: 0..<8, using: &random))"
        switch Int.random(in: 0..<7, using: &random) {
        case 0, 1: _ = try client.create(name: name, sizeBytes: 1 << 20)
        case 2: try client.delete(name)
        case 3: _ = try client.attach(name, AttachRequest(kind: .nbd))
        case 4: try client.detach(name)
        case 5: _ = try client.change(name, ChangeVDIRequest(name: "disk\(worker % 8)"))
        default: _ = try client.change(name, ChangeVDIRequest(sizeBytes: 1 << 30))
        }
    }
}
