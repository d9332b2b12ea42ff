// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Synchronization
import Testing

@Suite struct GroupTests {
    /// VDIs a, c, ... on shard 0 and b, d, ... on shard 1.
    private func daemonWithDisks(_ names: String...) async throws -> TestDaemon {
        let daemon = try await TestDaemon()
        for name in names { try await daemon.client.create(name: name, sizeBytes: 1 << 20) }
        return daemon
    }

    private func cut(
        _ daemon: TestDaemon, _ vdis: [String], name: String? = nil
    ) async throws -> [SnapshotDescription] {
        let request = CreateSnapshotRequest(vdis: vdis, name: name)
        return try await daemon.client.call { try $0.createGroup(request) }
    }

    private func counts(_ daemon: TestDaemon, _ vdis: [String]) async throws -> [Int] {
        var counts: [Int] = []
        for vdi in vdis { counts.append(try await daemon.client.vdi(vdi).snapshotCount) }
        return counts
    }

    @Test("a group has one name and time in every VDI, and every shard is released once")
    func life() async throws {
        let daemon = try await daemonWithDisks("a", "b", "c")
        let made = try await cut(daemon, ["c", "a", "b"])
        #expect(made.map(\.vdi) == ["c", "a", "b"])
        #expect(Set(made.map(\.name)).count == 1 && Set(made.map(\.createdAt)).count == 1)
        let labels = Set(made.map(\.labels))
        #expect(labels.count == 1 && labels.first?["parallax.group"] != nil)
        #expect(try await counts(daemon, ["a", "b", "c"]) == [1, 1, 1])
        for shard in daemon.shards { #expect(shard.releases.withLock { $0.count } == 1) }
        let text = String(
            decoding: try await daemon.client.exchange("GET", "/metrics", []).body, as: UTF8.self)
        #expect(text.contains("parallax_groups_made_total 1\n"))
        await daemon.stop()
    }

    @Test("a group with a duplicate, a missing or no member changes nothing")
    func badMembers() async throws {
        let daemon = try await daemonWithDisks("a", "é")
        _ = try await cut(daemon, ["a"], name: "taken")
        let cases: [([String], String?, ControlError.Kind)] = [
            (["a", "a"], nil, .invalid), (["é", "e\u{301}"], nil, .invalid),
            (["a", "nope"], nil, .notFound), ([], nil, .invalid),
            (["é", "a"], "taken", .nameTaken), (["a"], "latest", .invalid),
            ((0..<257).map { "n\($0)" }, nil, .invalid),
        ]
        for (vdis, name, kind) in cases {
            let error = await failure { _ = try await cut(daemon, vdis, name: name) }
            #expect(error?.kind == kind, "\(vdis)")
        }
        #expect(try await counts(daemon, ["a", "é"]) == [1, 0])
        await daemon.stop()
    }

    @Test("when one member fails all are taken back, and nobody waits any longer", arguments: 0..<2)
    func memberFails(_ position: Int) async throws {
        let daemon = try await daemonWithDisks("a", "b", "c", "d")
        await daemon.shards[position].failNext("snapshot", with: ControlError(.noSpace, "full"))
        let error = await failure { _ = try await cut(daemon, ["a", "b", "c", "d"]) }
        #expect(error?.kind == .noSpace)
        #expect(try await counts(daemon, ["a", "b", "c", "d"]) == [0, 0, 0, 0])
        for shard in daemon.shards {
            #expect(shard.releases.withLock { $0.count } == 1)
            #expect(await shard.versions.snapshots.isEmpty)
        }
        #expect(try await cut(daemon, ["a", "b"]).count == 2)
        await daemon.stop()
    }

    @Test("the last member to arrive releases all shards, and so does the first that gives up")
    func release() {
        let shards = (0..<3).map { FakeShard(index: $0) }
        let cut = GroupCut(group: 7 << 16 | 4, members: 4, shards: shards)
        func released() -> [Int] { shards.map { $0.releases.withLock { $0.count } } }
        cut.arrive(1)
        cut.arrive(2)
        #expect(released() == [0, 0, 0])
        cut.arrive(1)
        cut.giveUp()
        #expect(released() == [1, 1, 1] && !cut.wasGivenUp)
        let failed = GroupCut(group: 8 << 16 | 2, members: 2, shards: shards)
        failed.giveUp()
        failed.arrive(2)
        #expect(released() == [2, 2, 2] && failed.wasGivenUp)
        #expect(GroupCut.memberCount(of: GroupCut.makeNumber(members: 256)) == 256)
    }

    /// The state that a daemon leaves which dies after `pending` of the members were cut, of which
    /// `shown` were shown.
    private func unfinished(
        _ daemon: TestDaemon, members: Int, cut: Int, shown: Int
    ) async throws -> [FakeShard] {
        let group = GroupCut.makeNumber(members: members)
        let details = SnapshotDetails(
            name: "g", labels: [.init(key: "parallax.group", value: String(group, radix: 16))])
        for (position, shard) in daemon.shards.enumerated() where position < cut {
            let vdis = await shard.versions.disks.keys
            let changes = vdis.map {
                CatalogChange.snapshot(
                    $0, details, createdAtNanoseconds: 5_000_000_000, group: group)
            }
            _ = try await shard.change(changes)
            if position < shown { try await shard.change(.finishGroup(group, commit: true)) }
        }
        return daemon.shards
    }

    @Test(
        "after a crash a group of which a member is visible is kept, any other taken back",
        arguments: [(2, 0, 0), (2, 1, 1), (1, 0, 0), (0, 0, 0)])
    func recovery(_ cut: Int, _ shown: Int, _ expected: Int) async throws {
        let first = try await daemonWithDisks("a", "b")
        _ = try await unfinished(first, members: 2, cut: cut, shown: shown)
        let second = try await first.restarted()
        #expect(try await counts(second, ["a", "b"]) == [expected, expected])
        for shard in second.shards {
            let pending = await shard.versions.snapshots.values.count { $0.pendingGroup != 0 }
            #expect(pending == 0)
        }
        if expected == 1 {
            let found = try await second.client.call { try $0.snapshot("a", "latest") }
            #expect(found.name == "g" && found.createdAt == "1970-01-01T00:00:05.000Z")
        }
        await second.stop()
    }

    @Test("a group that is finished on one shard only is known there, and has its name for itself")
    func commitFails() async throws {
        let daemon = try await daemonWithDisks("a", "b")
        await daemon.shards[1].failNext("finish group", with: ControlError(.ioError, "gone"))
        let error = await failure { _ = try await cut(daemon, ["a", "b"], name: "g") }
        #expect(error?.kind == .ioError && error?.message.contains("next start") == true)
        #expect(try await counts(daemon, ["a", "b"]) == [1, 0])
        #expect(try await daemon.client.call { try $0.snapshot("a", "g") }.name == "g")
        for vdi in ["a", "b"] {
            let again = await failure {
                try await daemon.client.call {
                    _ = try $0.createSnapshot(of: vdi, CreateSnapshotRequest(name: "g"))
                }
            }
            #expect(again?.kind == .nameTaken, "\(vdi)")
        }
        let second = try await daemon.restarted()
        #expect(try await counts(second, ["a", "b"]) == [1, 1])
        #expect(try await second.client.call { try $0.snapshot("b", "g") }.name == "g")
        await second.stop()
    }

    @Test("of a group that was finished nowhere the name is kept until the next start")
    func firstCommitFails() async throws {
        let daemon = try await daemonWithDisks("a", "b")
        await daemon.shards[0].failNext("finish group", with: ControlError(.ioError, "gone"))
        let error = await failure { _ = try await cut(daemon, ["a", "b"]) }
        #expect(error?.kind == .ioError)
        // The clock stands still, and the name that it gives is not given twice.
        let next = try await daemon.client.call { try $0.createSnapshot(of: "b") }
        #expect(next.name.hasSuffix("Z-2"))
        let second = try await daemon.restarted()
        #expect(try await counts(second, ["a", "b"]) == [0, 1])
        await second.stop()
    }

    @Test("groups and snapshots at once neither overlap nor wait for each other forever")
    func storm() async throws {
        let daemon = try await daemonWithDisks("a", "b", "c", "d")
        let vdis = ["a", "b", "c", "d"]
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for number in 0..<24 {
                tasks.addTask {
                    let members = Array((vdis + vdis)[number % 4..<number % 4 + 3])
                    let request = CreateSnapshotRequest(vdis: members)
                    _ = try await daemon.plane.createGroup(request)
                    _ = try await daemon.plane.createSnapshot(
                        of: vdis[number % 4], CreateSnapshotRequest())
                }
            }
            try await tasks.waitForAll()
        }
        #expect(try await counts(daemon, vdis).reduce(0, +) == 24 * 4)
        #expect(await daemon.overlaps() == 0)
        await daemon.stop()
    }
}
