// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import ParallaxControl
import ParallaxGuest
import Testing

/// Snapshots, clones, rollbacks, groups and retention through the programs.
@Suite struct VersionTests {
    private func json(_ text: String) throws -> [String: Any] {
        let value = try JSONSerialization.jsonObject(with: Data(text.utf8))
        return try #require(value as? [String: Any], "no JSON object: \(text)")
    }

    private static let piece = 64 << 10

    private func write(_ disk: inout BlockDriver, _ byte: UInt8, at piece: Int) throws {
        try disk.writeBlocking(
            sector: UInt64(piece * Self.piece / 512),
            [UInt8](repeating: byte, count: Self.piece))
    }

    private func read(_ disk: inout BlockDriver, at piece: Int) throws -> UInt8? {
        let bytes = try disk.readBlocking(
            sector: UInt64(piece * Self.piece / 512), byteCount: Self.piece)
        return bytes.allSatisfy { $0 == bytes.first } ? bytes.first : nil
    }

    private func driver(_ socket: String) throws -> BlockDriver {
        try BlockDriver(connectingTo: socket, options: patientOptions())
    }

    @Test(
        "snapshots are what the disk was, attached beside it and each other", arguments: bothEngines
    )
    func snapshots(_ engine: String) throws {
        let daemon = try DaemonHarness(DaemonHarness.Options(engine: engine))
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "16M")
        var disk = try driver(socket)
        for number: UInt8 in 1...3 {
            try write(&disk, number, at: 0)
            try write(&disk, number, at: Int(number))
            let printed = try daemon.ctl("snapshot", "disk", "--name", "s\(number)")
            #expect(printed == "disk@s\(number)")
        }
        try write(&disk, 9, at: 0)
        var sockets: [String] = []
        for number in 1...3 {
            let socket = daemon.directory.file("s\(number).vhost")
            sockets.append(try daemon.ctl("attach", "disk@s\(number)", "--vhost-user", socket))
        }
        try check(sockets)
        try daemon.kill()
        try daemon.start()
        try check(sockets)
        var again = try driver(socket)
        let head = try read(&again, at: 0)
        #expect(head == 9)
        let names = try daemon.client.snapshots(of: "disk").snapshots.map(\.name)
        #expect(names == ["s1", "s2", "s3"])
        #expect(try daemon.run("snapshot", "delete", "disk@s1").errors.contains("is attached"))
        try daemon.ctl("detach", "disk@s1")
        try daemon.ctl("snapshot", "delete", "disk@s1")
        #expect(try daemon.client.vdi("disk").snapshotCount == 2)
    }

    /// Snapshot n was taken when piece 0, and pieces up to n, held n.
    private func check(_ sockets: [String]) throws {
        for (index, socket) in sockets.enumerated() {
            var snapshot = try driver(socket)
            #expect(snapshot.features.contains(.readOnly))
            let first = try read(&snapshot, at: 0)
            #expect(first == UInt8(index + 1))
            for piece in 1...3 {
                let byte = try read(&snapshot, at: piece)
                #expect(byte == (piece <= index + 1 ? UInt8(piece) : 0))
            }
        }
    }

    @Test("a snapshot is served by NBD on the shared socket and on its own")
    func nbd() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let head = try daemon.createNBD("a b", size: "4M")
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", head])
        try daemon.ctl("snapshot", "a b", "--name", "s")
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "write -P 8 0 64k", head])
        let shared = try daemon.ctl("attach", "a b@s", "--nbd")
        #expect(shared == "nbd+unix:///a%20b%40s?socket=\(daemon.nbdSocket)")
        let reading = ["qemu-io", "-r", "-f", "raw", "-c", "read -P 7 0 64k"]
        let first = try Command.succeed(reading + [shared])
        #expect(!first.contains("verification failed"))
        try daemon.ctl("detach", "a b@s")
        let own = try daemon.ctl("attach", "a b@s", "--nbd", daemon.directory.file("own"))
        let second = try Command.succeed(reading + [own])
        #expect(!second.contains("verification failed"))
        let refused = try Command.run(["qemu-io", "-f", "raw", "-c", "write 0 4k", own])
        #expect(
            !refused.succeeded || refused.text.contains("ead-only")
                || refused.text.contains("denied"))
        for version in ["a b", "a b@s"] {
            let kept = try daemon.run(["vdi", "rename", "a b", "c"])
            #expect(kept.code == 1 && kept.errors.contains("detach it first"), "\(kept)")
            try daemon.ctl("detach", version)
        }
        try daemon.ctl("vdi", "rename", "a b", "c")
        try daemon.ctl("attach", "c@s", "--nbd", daemon.directory.file("own"))
        #expect(try daemon.ctl("snapshot", "show", "c@s").contains("nbd+unix:///c%40s?"))
    }

    @Test("clones share and go their own ways; rollback goes back and keeps what was")
    func clones() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let gold = try daemon.createVhost("gold", size: "8M")
        do {
            var disk = try driver(gold)
            try write(&disk, 1, at: 0)
        }
        try daemon.ctl("snapshot", "gold", "--name", "v1")
        for name in ["a", "b"] {
            try daemon.ctl("clone", "gold@v1", name)
            let socket = daemon.directory.file("\(name).vhost")
            try daemon.ctl("attach", name, "--vhost-user", socket)
            var clone = try driver(socket)
            let before = try read(&clone, at: 0)
            #expect(before == 1)
            try write(&clone, name == "a" ? 10 : 11, at: 0)
        }
        var master = try driver(gold)
        let untouched = try read(&master, at: 0)
        #expect(untouched == 1)
        try daemon.ctl("detach", "gold")
        try daemon.ctl("vdi", "delete", "gold")
        try daemon.ctl("snapshot", "a", "--name", "mine")
        let taken = try daemon.run("clone", "a@mine", "b")
        #expect(taken.code == 1 && taken.errors.contains("already a VDI"), "\(taken)")
        let attached = try daemon.run("snapshot", "rollback", "a@mine")
        #expect(attached.code == 1 && attached.errors.contains("detach it first"), "\(attached)")
        do {
            var clone = try driver(daemon.directory.file("a.vhost"))
            try write(&clone, 20, at: 0)
        }
        try daemon.ctl("detach", "a")
        let kept = try daemon.ctl("snapshot", "rollback", "a@mine")
        try daemon.restart()
        for (version, expected) in [("a", UInt8(10)), (kept, 20), ("b", 11)] {
            let socket = daemon.directory.file("r.vhost")
            if version == "b" { try daemon.ctl("detach", "b") }
            try daemon.ctl("attach", version, "--vhost-user", socket)
            var disk = try driver(socket)
            let byte = try read(&disk, at: 0)
            #expect(byte == expected, "\(version)")
            try daemon.ctl("detach", version)
        }
    }

    @Test("a group is one cut across shards, and its members outlive kill -9")
    func groups() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        for name in ["a", "b", "c"] { try daemon.createVhost(name, size: "4M") }
        let shards = Set(try daemon.client.vdis().map(\.shard))
        #expect(shards.count == 2)
        let printed = try daemon.ctl("snapshot", "create", "--group", "a", "b", "c", "--name", "g")
        #expect(printed == "a@g\nb@g\nc@g")
        let twice = try daemon.run("snapshot", "create", "--group", "a", "a")
        #expect(twice.code == 1 && twice.errors.contains("twice"), "\(twice)")
        let missing = try daemon.run("snapshot", "create", "--group", "a", "nope")
        #expect(missing.code == 1 && missing.errors.contains("no VDI called"), "\(missing)")
        try daemon.kill()
        try daemon.start()
        for name in ["a", "b", "c"] {
            #expect(try daemon.client.snapshots(of: name).snapshots.map(\.name) == ["g"])
        }
    }

    @Test("diff prints the ranges that were changed and discarded, in text and JSON")
    func diff() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let uri = try daemon.createNBD("d", size: "16M")
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", uri])
        try daemon.ctl("snapshot", "d", "--name", "s")
        try Command.succeed([
            "qemu-io", "-f", "raw", "-d", "unmap", "-c", "write -P 2 8k 12k", "-c",
            "write -P 3 4M 64k",
            "-c", "discard 512k 64k", uri,
        ])
        let text = try daemon.ctl("snapshot", "diff", "d@s")
        let rows = text.split(separator: "\n").dropFirst().map {
            $0.split(separator: " ").map(String.init)
        }
        #expect(
            rows == [
                ["8192", "12288", "changed"], ["524288", "65536", "discarded"],
                ["4194304", "65536", "changed"],
            ])
        let parsed = try json(daemon.ctl("snapshot", "diff", "d@s", "d", "--json"))
        #expect((parsed["ranges"] as? [[String: Any]])?.count == 3)
        #expect(parsed["from"] as? String == "d@s")
    }

    @Test("a cron line takes scheduled snapshots and applies the policy, and says what fails")
    func cron() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        for name in ["a", "b"] { try daemon.ctl("vdi", "create", name, "--size", "4M") }
        try daemon.ctl("snapshot", "a", "--name", "by hand")
        try daemon.ctl("retention", "set", "a", "--keep-last", "2")
        #expect(try daemon.ctl("retention", "show", "a") == "--keep-last 2")
        for _ in 0..<4 { #expect(try daemon.ctl("cron-snapshot", "--all", "--quiet") == "") }
        #expect(try daemon.client.vdi("a").snapshotCount == 3)
        #expect(try daemon.client.vdi("b").snapshotCount == 4)
        let plan = try daemon.ctl("retention", "apply", "--all", "--dry-run")
        #expect(plan.contains("a: 3 stay, 0 would go") && plan.contains("made by hand"), "\(plan)")
        let failed = try daemon.run("cron-snapshot", "nope", "b", "--quiet")
        #expect(failed.code == 1 && failed.output.isEmpty, "\(failed)")
        #expect(failed.errors == "parallax-ctl: there is no VDI called \"nope\"\n")
        #expect(try daemon.client.vdi("b").snapshotCount == 5)
        let told = try daemon.run("cron-snapshot", "a", "b", "nope", "--json")
        #expect(told.code == 1, "\(told)")
        let made = try #require(json(told.output)["vdis"] as? [[String: Any]])
        #expect(made.map { $0["vdi"] as? String } == ["a", "b"])
        #expect(made.map { $0["deleted_count"] as? Int } == [1, nil])
        #expect((made[0]["snapshot"] as? String)?.hasPrefix("a@") == true)
        let reports = try json(daemon.ctl("retention", "apply", "a", "--json"))
        let first = try #require((reports["vdis"] as? [[String: Any]])?.first)
        #expect(first["kept_count"] as? Int == 3 && first["deleted_count"] as? Int == 0)
    }

    @Test("two cron lines of the same kind do not run at once")
    func cronLock() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.ctl("vdi", "create", "a", "--size", "4M")
        try daemon.ctl("cron-snapshot", "a", "--quiet")
        let lock = try #require(
            FileManager.default.contentsOfDirectory(atPath: daemon.directory.path)
                .first { $0.hasSuffix(".lock") && $0.contains(".cron-") })
        let held = try Command.run([
            "flock", daemon.directory.file(lock), Programs.control, "--socket",
            daemon.controlSocket, "cron-snapshot", "a",
        ])
        #expect(held.succeeded && held.output.contains("still under way"), "\(held)")
        #expect(try daemon.client.vdi("a").snapshotCount == 1)
    }
}
