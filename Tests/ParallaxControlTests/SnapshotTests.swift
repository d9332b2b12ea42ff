// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

@Suite struct SnapshotTests {
    private func daemonWithDisk(_ names: String...) async throws -> TestDaemon {
        let daemon = try await TestDaemon()
        for name in names { try await daemon.client.create(name: name, sizeBytes: 1 << 20) }
        return daemon
    }

    @Test("a snapshot is made, shown, listed with its parent, and deleted")
    func life() async throws {
        let daemon = try await daemonWithDisk("d")
        let client = daemon.client
        let first = try await client.call { try $0.createSnapshot(of: "d") }
        #expect(first.name == "2023-11-14T22:13:20.000Z")
        #expect(first.createdAt == first.name && first.parent == nil && first.origin == .manual)
        daemon.clock.advance(seconds: 1.5)
        let request = CreateSnapshotRequest(
            name: "before upgrade", comment: "é", labels: ["k": "v"], scheduled: true)
        let second = try await client.call { try $0.createSnapshot(of: "d", request) }
        #expect(second.parent == "d@2023-11-14T22:13:20.000Z")
        #expect(second.labels == ["k": "v"] && second.comment == "é" && second.origin == .scheduled)
        #expect(try await client.call { try $0.snapshot("d", "before upgrade") } == second)
        let list = try await client.call { try $0.snapshots(of: "d") }
        #expect(list.snapshots.map(\.name) == [first.name, second.name])
        #expect(list.next == nil && list.total == 2)
        let shown = try await client.vdi("d")
        #expect(shown.snapshotCount == 2 && shown.parent == "d@before upgrade")
        try await client.call { try $0.delete("d", first.name) }
        #expect(try await client.call { try $0.snapshot("d", second.name) }.parent == nil)
        let gone = await failure { try await client.call { _ = try $0.snapshot("d", first.name) } }
        #expect(gone?.kind == .notFound)
        #expect(
            gone?.message == "VDI \"d\" has no snapshot called \"2023-11-14T22:13:20.000Z\"")
        #expect(try await client.status().snapshotCount == 1)
        await daemon.stop()
    }

    @Test("latest, times and ages are resolved by the daemon's clock")
    func versions() async throws {
        let daemon = try await daemonWithDisk("d")
        let client = daemon.client
        for (time, name) in [("2026-11-22T08:00", "a"), ("2026-11-22T09:00", "b")] {
            daemon.clock.set(time)
            _ = try await client.call {
                try $0.createSnapshot(of: "d", CreateSnapshotRequest(name: name))
            }
        }
        daemon.clock.set("2026-11-22T10:30")
        func name(_ selector: String) async throws -> String {
            try await client.call { try $0.snapshot("d", selector).name }
        }
        #expect(try await name("latest") == "b")
        #expect(try await name("2026-11-22T08:59:59") == "a")
        #expect(try await name("2026-11-22T11:00+02:00") == "b")
        #expect(try await name("-1h") == "b")
        #expect(try await name("-2h") == "a")
        let tooOld = await failure { _ = try await name("-3h") }
        #expect(tooOld?.message.contains("no snapshot from then") == true)
        let unknown = await failure { _ = try await name("nope") }
        #expect(unknown?.message == "VDI \"d\" has no snapshot called \"nope\"")
        // The clock jumps back: the last made is the latest.
        daemon.clock.set("2026-11-22T07:00")
        _ = try await client.call {
            try $0.createSnapshot(of: "d", CreateSnapshotRequest(name: "c"))
        }
        #expect(try await name("latest") == "c")
        #expect(try await name("2026-11-22T08:30") == "a")
        await daemon.stop()
    }

    @Test("an automatic name that is gone never stands for an older snapshot")
    func goneName() async throws {
        let daemon = try await daemonWithDisk("d")
        let client = daemon.client
        let old = try await client.call { try $0.createSnapshot(of: "d") }
        daemon.clock.advance(seconds: 60)
        let new = try await client.call { try $0.createSnapshot(of: "d") }
        try await client.call { try $0.delete("d", new.name) }
        let again = await failure { try await client.call { try $0.delete("d", new.name) } }
        #expect(again?.kind == .notFound)
        // Less exact, it is a time.
        let found = try await client.call { try $0.snapshot("d", "2023-11-14T22:14:20") }
        #expect(found == old)
        await daemon.stop()
    }

    @Test("a date or time is not deleted by, unless it is a name")
    func deletionByTime() async throws {
        let daemon = try await daemonWithDisk("d")
        let client = daemon.client
        for (time, name) in [
            ("2026-11-20T10:00", "old"), ("2026-11-22T10:00", "2026-11-22"),
            ("2026-11-23T10:00", nil), ("2026-11-23T11:00", "new"), ("2026-11-23T12:00", "newest"),
        ] {
            daemon.clock.set(time)
            _ = try await client.call {
                try $0.createSnapshot(of: "d", CreateSnapshotRequest(name: name))
            }
        }
        func attempt(_ selector: String) async -> ControlError? {
            await failure { try await client.call { try $0.delete("d", selector) } }
        }
        #expect(await attempt("2026-11-22") == nil)
        let again = await attempt("2026-11-22")
        #expect(again?.kind == .notFound && again?.message.contains("no date or time") == true)
        let several = await failure {
            try await client.call { try $0.delete(snapshots: ["d@new", "d@2026-11-23T10:30"]) }
        }
        #expect(several?.kind == .notFound)
        #expect(await attempt("2026-11-23T11:00:00.000Z")?.kind == .notFound)
        #expect(try await client.vdi("d").snapshotCount == 4)
        #expect(await attempt("2026-11-23T10:00:00.000Z") == nil)
        #expect(await attempt("latest") == nil)
        #expect(await attempt("-2d") == nil)
        let left = try await client.call { try $0.snapshots(of: "d").snapshots.map(\.name) }
        #expect(left == ["new"])
        await daemon.stop()
    }

    @Test("names that are taken, reserved or odd are refused, and nothing is made")
    func badNames() async throws {
        let daemon = try await daemonWithDisk("d")
        let client = daemon.client
        func attempt(_ request: CreateSnapshotRequest, of vdi: String = "d") async -> ControlError?
        {
            await failure { try await client.call { _ = try $0.createSnapshot(of: vdi, request) } }
        }
        _ = await attempt(CreateSnapshotRequest(name: "é"))
        let taken = await attempt(CreateSnapshotRequest(name: "e\u{301}"))
        #expect(taken?.kind == .nameTaken)
        for name in ["", "latest", "a@b", "a/b", "a\u{1}", " a", "..", "\u{202E}x"] {
            let odd = await attempt(CreateSnapshotRequest(name: name))
            #expect(odd?.kind == .invalid, "\(name)")
        }
        let label = await attempt(CreateSnapshotRequest(labels: ["parallax.group": "1"]))
        #expect(label?.kind == .invalid)
        let big = Dictionary(
            uniqueKeysWithValues: (0..<16).map {
                ("k\($0)", String(repeating: "v", count: 100))
            })
        let tooMuch = await attempt(
            CreateSnapshotRequest(comment: String(repeating: "c", count: 512), labels: big))
        #expect(tooMuch?.message.contains("2 KiB") == true)
        let nowhere = await attempt(CreateSnapshotRequest(), of: "nope")
        #expect(nowhere?.kind == .notFound)
        #expect(try await client.vdi("d").snapshotCount == 1)
        await daemon.stop()
    }

    @Test("a store that refuses makes nothing")
    func shardFails() async throws {
        let daemon = try await daemonWithDisk("d")
        for shard in daemon.shards {
            await shard.failNext("snapshot", with: ControlError(.noSpace, "full"))
        }
        let full = await failure {
            try await daemon.client.call { _ = try $0.createSnapshot(of: "d") }
        }
        #expect(full?.kind == .noSpace)
        #expect(try await daemon.client.vdi("d").snapshotCount == 0)
        await daemon.stop()
    }

    @Test("holds keep a snapshot, and its VDI, from being deleted")
    func holds() async throws {
        let daemon = try await daemonWithDisk("d")
        let client = daemon.client
        _ = try await client.call {
            try $0.createSnapshot(of: "d", CreateSnapshotRequest(name: "s"))
        }
        let held = try await client.call { try $0.hold("d", "s", reason: "audit") }
        #expect(held.holds.map(\.reason) == ["audit"])
        let twice = await failure {
            try await client.call { _ = try $0.hold("d", "s", reason: "audit") }
        }
        #expect(twice?.kind == .nameTaken)
        let deleted = await failure { try await client.call { try $0.delete("d", "s") } }
        #expect(deleted?.kind == .held)
        #expect(deleted?.message == "snapshot \"d@s\" is held (\"audit\"); release it first")
        let vdi = await failure { try await client.delete("d") }
        #expect(vdi?.kind == .held)
        _ = try await client.call { try $0.hold("d", "latest", reason: "é") }
        let which = await failure {
            try await client.call { _ = try $0.release("d", "s", reason: nil) }
        }
        #expect(which?.message.contains("--reason") == true)
        let wrong = await failure {
            try await client.call { _ = try $0.release("d", "s", reason: "x") }
        }
        #expect(wrong?.kind == .notFound)
        _ = try await client.call { try $0.release("d", "s", reason: "é") }
        let free = try await client.call { try $0.release("d", "s", reason: nil) }
        #expect(free.holds.isEmpty)
        let none = await failure {
            try await client.call { _ = try $0.release("d", "s", reason: nil) }
        }
        #expect(none?.kind == .notFound)
        try await client.delete("d")
        #expect(try await client.status().snapshotCount == 0)
        await daemon.stop()
    }

    @Test("labels are set and taken away, and the comment changed")
    func labels() async throws {
        let daemon = try await daemonWithDisk("d")
        let client = daemon.client
        _ = try await client.call {
            try $0.createSnapshot(of: "d", CreateSnapshotRequest(name: "s", labels: ["a": "1"]))
        }
        let changed = try await client.call {
            try $0.change(
                "d", "s", ChangeSnapshotRequest(comment: "new", labels: ["a": nil, "b": "2"]))
        }
        #expect(changed.labels == ["b": "2"] && changed.comment == "new")
        for body in [
            "{}", #"{"labels":{}}"#, #"{"labels":{"parallax.group":"1"}}"#, #"{"name":"x"}"#,
        ] {
            let answer = try await client.exchange(
                "PATCH", "/v1/vdis/d/snapshots/s", Array(body.utf8))
            #expect(answer.startLine == .response(status: 400), "\(body)")
        }
        #expect(try await client.call { try $0.snapshot("d", "s") } == changed)
        await daemon.stop()
    }

    @Test("of several snapshots all are deleted, or none")
    func deleteSeveral() async throws {
        let daemon = try await daemonWithDisk("a", "b")
        let client = daemon.client
        for vdi in ["a", "b"] {
            for name in ["1", "2"] {
                _ = try await client.call {
                    try $0.createSnapshot(of: vdi, CreateSnapshotRequest(name: name))
                }
            }
        }
        _ = try await client.call { try $0.hold("b", "2", reason: "r") }
        func attempt(_ snapshots: String...) async -> ControlError? {
            await failure { try await client.call { try $0.delete(snapshots: snapshots) } }
        }
        #expect(await attempt("a@1", "b@2")?.kind == .held)
        #expect(await attempt("a@1", "a@1")?.message == "snapshot \"a@1\" is named twice")
        #expect(await attempt("a@2", "a@latest")?.kind == .invalid)
        #expect(await attempt("a@1", "a@3")?.kind == .notFound)
        #expect(await attempt("a@1", "c@1")?.kind == .notFound)
        #expect(await attempt("a@1", "b")?.kind == .invalid)
        #expect(await attempt()?.kind == .invalid)
        #expect(try await client.status().snapshotCount == 4)
        #expect(await attempt("a@1", "b@1", "a@2") == nil)
        #expect(try await client.status().snapshotCount == 1)
        await daemon.stop()
    }

    @Test("a long log is listed in pages, and no call asks a shard for much")
    func pages() async throws {
        let shard = FakeShard(index: 0)
        let daemon = try await TestDaemon(shards: [shard])
        let client = daemon.client
        try await client.create(name: "d", sizeBytes: 1 << 20)
        for _ in 0..<2500 {
            daemon.clock.advance(seconds: 0.0004)
            _ = try await daemon.plane.createSnapshot(of: "d", CreateSnapshotRequest())
        }
        func read(_ daemon: TestDaemon, limit: Int) async throws -> [String] {
            var names: [String] = []
            var next: String?
            repeat {
                let page = try await daemon.client.call { [next] in
                    try $0.snapshots(of: "d", after: next, limit: limit)
                }
                #expect(page.total == 2500 && page.snapshots.count <= limit)
                names += page.snapshots.map(\.name)
                next = page.next
            } while next != nil
            return names
        }
        let names = try await read(daemon, limit: 1000)
        #expect(Set(names).count == 2500)
        let reloaded = try await daemon.restarted()
        #expect(try await read(reloaded, limit: 999) == names)
        #expect(await shard.largestBatch <= 128)
        // What a page ended with may be deleted before the next is asked for.
        let first = try await reloaded.client.call { try $0.snapshots(of: "d", limit: 10) }
        try await reloaded.client.call { try $0.delete("d", names[9]) }
        let mark = first.next
        let second = try await reloaded.client.call {
            try $0.snapshots(of: "d", after: mark, limit: 10)
        }
        #expect(second.snapshots.map(\.name) == Array(names[10..<20]))
        let byName = try await reloaded.client.call {
            try $0.snapshots(of: "d", after: names[10], limit: 1)
        }
        #expect(byName.snapshots.map(\.name) == [names[11]])
        for after in ["/", "/1", names[9]] {
            let error = await failure {
                try await reloaded.client.call { _ = try $0.snapshots(of: "d", after: after) }
            }
            #expect(error != nil, "\(after)")
        }
        for limit in [0, 1001] {
            let error = await failure {
                try await reloaded.client.call { _ = try $0.snapshots(of: "d", limit: limit) }
            }
            #expect(error?.kind == .invalid)
        }
        try await reloaded.client.call { client in
            for start in stride(from: 0, to: 2500, by: 500) {
                let batch = names[start..<start + 500].filter { $0 != names[9] }
                try client.delete(snapshots: batch.map { "d@\($0)" })
            }
        }
        #expect(try await reloaded.client.call { try $0.snapshots(of: "d") }.total == 0)
        await reloaded.stop()
    }
}
