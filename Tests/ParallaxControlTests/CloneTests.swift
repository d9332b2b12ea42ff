// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

@Suite struct CloneTests {
    /// A daemon with the disk "gold", which has blocks and the snapshot "v1".
    private func daemonWithGold() async throws -> TestDaemon {
        let daemon = try await TestDaemon()
        try await daemon.client.create(name: "gold", sizeBytes: 2 << 20)
        for shard in daemon.shards { await shard.write("gold", [0: 1, 1: 2]) }
        _ = try await snapshot(daemon, "gold", "v1")
        return daemon
    }

    @discardableResult
    private func snapshot(
        _ daemon: TestDaemon, _ vdi: String, _ name: String
    ) async throws -> SnapshotDescription {
        try await daemon.client.call {
            try $0.createSnapshot(of: vdi, CreateSnapshotRequest(name: name))
        }
    }

    private func blocks(_ daemon: TestDaemon, _ vdi: String) async -> [UInt64: UInt64]? {
        for shard in daemon.shards {
            if let disk = await shard.versions.disks.values.first(where: { $0.name == vdi }) {
                return disk.blocks
            }
        }
        return nil
    }

    @Test("a clone begins as its snapshot is, on its shard, with its size or a larger one")
    func clone() async throws {
        let daemon = try await daemonWithGold()
        let client = daemon.client
        let same = try await client.call { try $0.clone(from: "gold@latest", to: "a") }
        #expect(same.sizeBytes == 2 << 20 && same.parent == "gold@v1")
        #expect(same.shard == (try await client.vdi("gold").shard))
        let larger = try await client.call {
            try $0.clone(from: "gold@v1", to: "b", sizeBytes: 4 << 20)
        }
        #expect(larger.sizeBytes == 4 << 20)
        #expect(await blocks(daemon, "b") == [0: 1, 1: 2])
        // A clone of a clone, after its origin is gone.
        _ = try await snapshot(daemon, "a", "x")
        try await client.delete("gold")
        #expect(try await client.call { try $0.clone(from: "a@x", to: "c") }.parent == "a@x")
        #expect(try await client.vdi("b").parent == nil)
        await daemon.stop()
    }

    @Test("a clone onto a taken name, of nothing, or too small is refused and not counted")
    func refusals() async throws {
        let daemon = try await daemonWithGold()
        let client = daemon.client
        func attempt(_ from: String, _ name: String, _ size: UInt64? = nil) async -> ControlError
            .Kind?
        {
            await failure {
                try await client.call { _ = try $0.clone(from: from, to: name, sizeBytes: size) }
            }?.kind
        }
        #expect(await attempt("gold@v1", "gold") == .nameTaken)
        #expect(await attempt("gold@v2", "a") == .notFound)
        #expect(await attempt("nope@v1", "a") == .notFound)
        #expect(await attempt("gold", "a") == .invalid)
        #expect(await attempt("gold@v1", "a", 1 << 20) == .invalid)
        #expect(await attempt("gold@v1", "a@b") == .invalid)
        for shard in daemon.shards {
            await shard.failNext("clone", with: ControlError(.noSpace, "full"))
        }
        #expect(await attempt("gold@v1", "a") == .noSpace)
        #expect(try await client.vdis().map(\.name) == ["gold"])
        #expect(try await client.status().shards.map(\.vdiCount).reduce(0, +) == 1)
        await daemon.stop()
    }

    @Test("10,000 clones of one master, each one request; listing them asks in short batches")
    func manyClones() async throws {
        let daemon = try await daemonWithGold()
        for number in 0..<10_000 {
            _ = try await daemon.plane.create(
                CreateVDIRequest(name: "c\(number)", sizeBytes: nil, from: "gold@v1"))
        }
        let vdis = try await daemon.client.vdis()
        #expect(vdis.count == 10_001 && vdis.count { $0.parent == "gold@v1" } == 10_001)
        #expect(try await daemon.client.vdi("c9999").parent == "gold@v1")
        for shard in daemon.shards {
            // All of them only at the start.
            #expect(await shard.fullLists == 1)
            #expect(await shard.largestBatch <= 128)
        }
        await daemon.stop()
    }

    @Test("a template takes no writes, and clones of it do")
    func template() async throws {
        let daemon = try await daemonWithGold()
        let client = daemon.client
        _ = try await client.attach("gold", AttachRequest(kind: .nbd))
        let attached = await failure {
            try await client.change("gold", ChangeVDIRequest(template: true))
        }
        #expect(attached?.kind == .attached)
        try await client.detach("gold")
        #expect(try await client.change("gold", ChangeVDIRequest(template: true)).isTemplate)
        let refused = await failure { try await client.attach("gold", AttachRequest(kind: .nbd)) }
        #expect(refused?.kind == .template)
        #expect(refused?.message.contains("--read-only") == true)
        _ = try await client.attach("gold", AttachRequest(kind: .nbd, readOnly: true))
        #expect(
            try await client.call { try $0.clone(from: "gold@v1", to: "a") }.isTemplate == false)
        let rolled = await failure {
            try await client.call {
                _ = try $0.rollback("gold", RollbackRequest(snapshot: "v1", force: true))
            }
        }
        #expect(rolled?.kind == .template)
        let second = try await daemon.restarted()
        #expect(try await second.client.vdi("gold").isTemplate)
        try await second.client.detach("gold")
        #expect(
            try await second.client.change("gold", ChangeVDIRequest(template: false)).isTemplate
                == false)
        await second.stop()
    }

    @Test("a rollback makes the head as it was, keeps what it was, and takes its size")
    func rollback() async throws {
        let daemon = try await daemonWithGold()
        let client = daemon.client
        _ = try await client.change("gold", ChangeVDIRequest(sizeBytes: 8 << 20))
        for shard in daemon.shards { await shard.write("gold", [0: 9, 7: 7]) }
        let answer = try await client.call {
            try $0.rollback("gold", RollbackRequest(snapshot: "v1"))
        }
        #expect(answer.to == "gold@v1" && answer.vdi.sizeBytes == 2 << 20)
        #expect(answer.vdi.parent == "gold@v1")
        #expect(await blocks(daemon, "gold") == [0: 1, 1: 2])
        let kept = try await client.call { try $0.snapshot("gold", "latest") }
        #expect(answer.kept == kept.version && kept.origin == .automatic)
        #expect(kept.comment == "before the rollback to v1" && kept.sizeBytes == 8 << 20)
        // And back again, without keeping.
        let back = try await client.call {
            try $0.rollback("gold", RollbackRequest(snapshot: "latest", keep: false))
        }
        #expect(back.kept == nil && back.vdi.sizeBytes == 8 << 20)
        #expect(await blocks(daemon, "gold") == [0: 9, 1: 2, 7: 7])
        #expect(try await client.vdi("gold").snapshotCount == 2)
        // Its new size is what a shrink is judged by.
        let shrink = await failure {
            try await client.change("gold", ChangeVDIRequest(sizeBytes: 4 << 20))
        }
        #expect(shrink?.message.contains("--shrink") == true)
        await daemon.stop()
    }

    @Test("a head that is attached is not rolled back, read-only only with force")
    func rollbackAttached() async throws {
        let daemon = try await daemonWithGold()
        let client = daemon.client
        func attempt(_ force: Bool) async -> ControlError? {
            await failure {
                try await client.call {
                    _ = try $0.rollback("gold", RollbackRequest(snapshot: "v1", force: force))
                }
            }
        }
        _ = try await client.attach("gold", AttachRequest(kind: .nbd))
        #expect(await attempt(false)?.kind == .attached)
        #expect(await attempt(true)?.message.contains("for writing") == true)
        try await client.detach("gold")
        _ = try await client.attach("gold", AttachRequest(kind: .nbd, readOnly: true))
        #expect(await attempt(false)?.message.contains("--force") == true)
        #expect(try await client.vdi("gold").snapshotCount == 1)
        #expect(await attempt(true) == nil)
        #expect(try await client.vdi("gold").snapshotCount == 2)
        let missing = await failure {
            try await client.call { _ = try $0.rollback("gold", RollbackRequest(snapshot: "no")) }
        }
        #expect(missing?.kind == .notFound)
        await daemon.stop()
    }

    @Test("a rollback that meets a reader's request waits for the moment between two")
    func rollbackMeetsReader() async throws {
        let daemon = try await daemonWithGold()
        for shard in daemon.shards {
            await shard.failNext("rollback", with: ControlError(.attached, "being read"))
        }
        let answer = try await daemon.client.call {
            try $0.rollback("gold", RollbackRequest(snapshot: "v1"))
        }
        #expect(answer.kept != nil)
        await daemon.stop()
    }

    @Test("a diff has ranges in bytes, merged, over as many answers and pages as it takes")
    func diff() async throws {
        let daemon = try await daemonWithGold()
        let client = daemon.client
        let blocks = 10...20
        var changes: [UInt64: UInt64?] = [0: 0, 1: nil]
        for block in blocks { changes[UInt64(block)] = 5 }
        for shard in daemon.shards { await shard.write("gold", changes) }
        let page = try await client.call { try $0.diff(from: "gold@v1", to: "gold") }
        #expect(page.from == "gold@v1" && page.to == "gold" && page.next == nil)
        #expect(
            page.ranges == [
                .init(offset: 0, length: 4096, kind: .zeroed),
                .init(offset: 4096, length: 4096, kind: .discarded),
                .init(offset: 40_960, length: 11 * 4096, kind: .changed),
            ])
        let rest = try await client.call {
            try $0.diff(from: "gold@latest", to: "gold", offset: 81_920)
        }
        #expect(rest.from == "gold@v1")
        #expect(rest.ranges == [.init(offset: 81_920, length: 4096, kind: .changed)])
        let same = try await client.call { try $0.diff(from: "gold@v1", to: "gold@v1") }
        #expect(same.ranges.isEmpty && same.next == nil)
        for (from, to, offset) in [
            ("gold@v2", "gold", 0), ("gold@v1", "nope", 0), ("gold@v1", "gold", 5),
        ] as [(String, String, UInt64)] {
            let error = await failure {
                try await client.call { _ = try $0.diff(from: from, to: to, offset: offset) }
            }
            #expect(error != nil, "\(from) \(to) \(offset)")
        }
        await daemon.stop()
    }

    @Test("a VDI says how its blocks lie when it is asked, of a large one by samples")
    func layout() async throws {
        let shard = FakeShard(index: 0)
        let daemon = try await TestDaemon(shards: [shard])
        let client = daemon.client
        try await client.create(name: "d", sizeBytes: 64 << 30)
        let silent = try await client.vdi("d")
        #expect(silent.layout == nil)
        let empty = try await client.call { try $0.vdi("d", includingLayout: true) }
        #expect(
            empty.layout
                == LayoutDescription(meanRunBytes: 0, lookedAtBytes: 0, isWhole: true))
        await shard.write("d", [0: 1, 1: 1, 16_000_000: 1])
        let sparse = try await client.call { try $0.vdi("d", includingLayout: true) }
        #expect(
            sparse.layout
                == LayoutDescription(meanRunBytes: 4096, lookedAtBytes: 12288, isWhole: true))
        var changes: [UInt64: UInt64?] = [:]
        for leaf: UInt64 in 0..<3000 { changes[leaf * 5500] = 1 }
        await shard.write("d", changes)
        let sampled = try await client.call { try $0.vdi("d", includingLayout: true) }
        #expect(sampled.layout?.isWhole == false)
        // In the last part of the disk there are fewer leaves than a sample takes.
        let lookedAt = sampled.layout?.lookedAtBytes ?? 0
        #expect((31 * 64 * 4096..<32 * 64 * 4096).contains(lookedAt))
        await daemon.stop()
    }

    @Test("a page of a diff ends when its time is up, and the next one goes on there")
    func longDiff() async throws {
        let shard = FakeShard(index: 0)
        // No time for more than one answer of three ranges a page.
        let daemon = try await TestDaemon(shards: [shard], diffLimit: .zero)
        try await daemon.client.create(name: "d", sizeBytes: 64 << 20)
        try await snapshot(daemon, "d", "s")
        // Every other block, so that nothing can be merged.
        var changes: [UInt64: UInt64?] = [:]
        for block: UInt64 in 0..<1000 { changes[block * 2] = 1 }
        await shard.write("d", changes)
        var ranges: [DiffPage.Range] = []
        var pages = 0
        var next: UInt64? = 0
        while let offset = next {
            let page = try await daemon.client.call {
                try $0.diff(from: "d@s", to: "d", offset: offset)
            }
            ranges += page.ranges
            next = page.next
            pages += 1
        }
        #expect(ranges.count == 1000 && pages == 334)
        // In the macro the compiler of 6.3.1 compares it as something longer than it is.
        let endsRight = ranges.last?.offset == 1998 * 4096
        #expect(endsRight)
        // Of different shards there is nothing in common.
        await daemon.stop()
        let two = try await daemonWithGold()
        try await two.client.create(name: "other", sizeBytes: 1 << 20)
        let error = await failure {
            try await two.client.call { _ = try $0.diff(from: "gold@v1", to: "other") }
        }
        #expect(error?.message.contains("no common ancestor") == true)
        await two.stop()
    }
}
