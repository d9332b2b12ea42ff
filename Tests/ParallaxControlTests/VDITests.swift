// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxCore
import Testing

@testable import ParallaxBlockd

@Suite struct VDITests {
    @Test("a VDI is made, shown, resized, renamed and deleted")
    func life() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        let made = try await client.create(name: "disk", sizeBytes: 1 << 30)
        #expect(made.identifier == "0000000000000001")
        #expect(made.createdAt == "2023-11-14T22:13:20Z")
        #expect(made.attachment == nil)
        #expect(
            try await client.change("disk", ChangeVDIRequest(sizeBytes: 2 << 30)).sizeBytes == 2
                << 30)
        #expect(try await client.change("disk", ChangeVDIRequest(name: "new é")).name == "new é")
        #expect(try await client.vdi("new é").identifier == made.identifier)
        let renamed = await failure { _ = try await client.vdi("disk") }
        #expect(renamed?.kind == .notFound)
        try await client.delete("new é")
        #expect(try await client.vdis().isEmpty)
        let deleted = await failure { try await client.delete("new é") }
        #expect(deleted?.kind == .notFound)
        await daemon.stop()
    }

    @Test("new VDIs go to the shard with the fewest, and a failed create does not count")
    func placement() async throws {
        let daemon = try await TestDaemon()
        await daemon.shards[0].failNext("create", with: ControlError(.noSpace, "full"))
        let full = await failure {
            _ = try await daemon.client.create(name: "x", sizeBytes: 1 << 20)
        }
        #expect(
            full?
                .kind == .noSpace)
        for number in 0..<6 {
            _ = try await daemon.client.create(name: "\(number)", sizeBytes: 1 << 20)
        }
        #expect(try await daemon.client.status().shards.map(\.vdiCount) == [3, 3])
        for name in ["0", "2", "4"] { try await daemon.client.delete(name) }
        #expect(try await daemon.client.create(name: "next", sizeBytes: 1 << 20).shard == 0)
        await daemon.stop()
    }

    @Test("names and sizes are checked by the daemon too, and a taken name is refused")
    func badInput() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        for name in ["", "a@b", "a/b", "a\u{7}", String(repeating: "x", count: 101)] {
            let error = await failure {
                _ = try await client.create(name: name, sizeBytes: 1 << 20)
            }
            #expect(error?.kind == .invalid)
        }
        for size: UInt64 in [0, 1 << 19, (64 << 40) + 4096, (1 << 20) + 1] {
            let wrongSize = await failure {
                _ = try await client.create(name: "x", sizeBytes: size)
            }
            #expect(
                wrongSize?.kind
                    == .invalid)
        }
        _ = try await client.create(name: "é", sizeBytes: 1 << 20)
        // The same name to the eye, spelt with a combining accent.
        for name in ["é", "e\u{301}"] {
            let error = await failure {
                _ = try await client.create(name: name, sizeBytes: 1 << 20)
            }
            #expect(error?.kind == .nameTaken)
        }
        _ = try await client.create(name: "b", sizeBytes: 1 << 20)
        let error = await failure { _ = try await client.change("b", ChangeVDIRequest(name: "é")) }
        #expect(error?.kind == .nameTaken)
        _ = try await client.change("b", ChangeVDIRequest(name: "b"))
        await daemon.stop()
    }

    @Test("a VDI shrinks only when that is asked for and it is detached")
    func shrink() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        _ = try await client.create(name: "d", sizeBytes: 1 << 30)
        let smaller = ChangeVDIRequest(sizeBytes: 1 << 29)
        let unasked = await failure { _ = try await client.change("d", smaller) }
        #expect(
            unasked?.message.contains(
                "--shrink") == true)
        let consented = ChangeVDIRequest(sizeBytes: 1 << 29, shrink: true)
        _ = try await client.attach("d", AttachRequest(kind: .nbd))
        let whileAttached = await failure { _ = try await client.change("d", consented) }
        #expect(whileAttached?.kind == .attached)
        _ = try await client.change("d", ChangeVDIRequest(sizeBytes: 1 << 31))
        try await client.detach("d")
        #expect(try await client.change("d", consented).sizeBytes == 1 << 29)
        await daemon.stop()
    }

    @Test("a shrink that ends half-way says what may be lost")
    func shrinkCutShort() async throws {
        let shard = FakeShard(index: 0)
        let daemon = try await TestDaemon(shards: [shard])
        _ = try await daemon.client.create(name: "d", sizeBytes: 1 << 30)
        await shard.failNext("resize", with: ControlError(.noSpace, "The store is full."))
        let error = await failure {
            _ = try await daemon.client.change(
                "d", ChangeVDIRequest(sizeBytes: 1 << 29, shrink: true))
        }
        #expect(error?.kind == .noSpace)
        #expect(error?.message.contains("what lies beyond 512 MiB may be lost") == true)
        #expect(try await daemon.client.vdi("d").sizeBytes == 1 << 30)
        await daemon.stop()
    }

    @Test("VDIs that are being freed are not listed and their names are free")
    func deleting() async throws {
        let shard = FakeShard(index: 0)
        await shard.add(
            FakeVersions.Disk(
                name: "gone", sizeBytes: 1 << 20, createdAtNanoseconds: 0, isDeleting: true))
        let daemon = try await TestDaemon(shards: [shard])
        #expect(try await daemon.client.vdis().isEmpty)
        _ = try await daemon.client.create(name: "gone", sizeBytes: 1 << 20)
        await daemon.stop()
    }

    private func shardsWithTwins() async -> [FakeShard] {
        let shards = [FakeShard(index: 0), FakeShard(index: 1)]
        for shard in shards {
            await shard.add(
                FakeVersions.Disk(name: "twin", sizeBytes: 1 << 20, createdAtNanoseconds: 0))
        }
        return shards
    }

    @Test("two VDIs of one name, from a damaged store, can both be reached")
    func duplicateNames() async throws {
        let shards = await shardsWithTwins()
        let daemon = try await TestDaemon(shards: shards)
        let names = try await daemon.client.vdis().map(\.name)
        #expect(Set(names).count == 2)
        for name in names { try await daemon.client.delete(name) }
        await daemon.stop()
    }

    @Test("which of two VDIs of one name has it does not hang on which shard answers first")
    func duplicateOrder() async throws {
        let shards = await shardsWithTwins()
        await shards[0].during("vdis") {
            while await shards[1].fullLists == 0 { await Task.yield() }
            try? await Task.sleep(for: .milliseconds(50))
        }
        let daemon = try await TestDaemon(shards: shards)
        #expect(try await daemon.client.vdi("twin").shard == 0)
        await daemon.stop()
    }

    @Test("a new VDI that can neither be finished nor deleted is shown, as the store has it")
    func keptAfterFailure() async throws {
        let shard = FakeShard(index: 0)
        let daemon = try await TestDaemon(shards: [shard])
        let client = daemon.client
        await shard.failNext("attributes", with: ControlError(.noSpace, "The store is full."))
        await shard.failNext("delete", with: ControlError(.ioError, "The device failed."))
        let error = await failure {
            try await client.call {
                _ = try $0.create(name: "a", sizeBytes: 1 << 20, quotaBytes: 4096)
            }
        }
        #expect(error?.kind == .noSpace)
        for part in ["VDI \"a\" was made", "The store is full.", "The device failed."] {
            #expect(error?.message.contains(part) == true)
        }
        #expect(try await client.status().shards[0].vdiCount == 1)
        let again = await failure { try await client.create(name: "a", sizeBytes: 1 << 20) }
        #expect(again?.kind == .nameTaken)
        try await client.delete("a")
        #expect(try await client.status().shards[0].vdiCount == 0)
        await daemon.stop()
    }

    @Test("new VDIs go to shards that still write")
    func readOnlyShard() async throws {
        let daemon = try await TestDaemon()
        await daemon.shards[0].becomeReadOnly("Flushing failed.")
        await daemon.plane.watchSpace()
        for name in ["a", "b"] {
            #expect(try await daemon.client.create(name: name, sizeBytes: 1 << 20).shard == 1)
        }
        // With none left the shard says itself why it makes no VDI.
        await daemon.shards[1].becomeReadOnly("Flushing failed.")
        await daemon.plane.watchSpace()
        #expect(try await daemon.client.create(name: "c", sizeBytes: 1 << 20).shard == 0)
        await daemon.stop()
    }
}
