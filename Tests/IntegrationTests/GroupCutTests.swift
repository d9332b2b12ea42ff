// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxGuest
import Synchronization
import Testing

/// Group snapshots of disks on two shards, while a guest writes first to one and then to the other.
@Suite struct GroupCutTests {
    private static let pieceBytes = 4096

    private func driver(_ socket: String) throws -> BlockDriver {
        try BlockDriver(connectingTo: socket, options: patientOptions())
    }

    private static func block(_ number: UInt64) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: pieceBytes)
        withUnsafeBytes(of: number.littleEndian) { block.replaceSubrange(0..<8, with: $0) }
        return block
    }

    private func number(_ socket: String) throws -> UInt64 {
        var disk = try driver(socket)
        let bytes = try disk.readBlocking(sector: 0, byteCount: Self.pieceBytes)
        return bytes.prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Writes n to "a", and when that is acknowledged n to "b", for n = 1, 2, ... until told to
    /// stop or until the daemon is gone.
    private func writeInOrder(
        _ first: String, _ second: String, until isDone: () -> Bool
    ) throws -> UInt64 {
        var a = try driver(first)
        var b = try driver(second)
        var number: UInt64 = 0
        while !isDone() {
            number += 1
            try a.writeBlocking(sector: 0, Self.block(number))
            try b.writeBlocking(sector: 0, Self.block(number))
        }
        return number
    }

    @Test("no cut contains a write without the one that it depends on", arguments: bothEngines)
    func atomicity(_ engine: String) throws {
        let daemon = try DaemonHarness(DaemonHarness.Options(engine: engine))
        try daemon.start()
        let sockets = try ["a", "b"].map { try daemon.createVhost($0, size: "1M") }
        let shards = Set(try daemon.client.vdis().map(\.shard))
        #expect(shards.count == 2)
        let client = try daemon.client
        let cuts = 40
        let taker = BackgroundThread {
            for number in 0..<cuts {
                _ = try client.createGroup(
                    CreateSnapshotRequest(vdis: ["a", "b"], name: "g\(number)"))
            }
        }
        let written = try writeInOrder(sockets[0], sockets[1]) { taker.isFinished }
        try taker.join()
        #expect(written > 0)
        for number in 0..<cuts {
            var seen: [UInt64] = []
            for vdi in ["a", "b"] {
                let socket = daemon.directory.file("cut")
                try daemon.ctl("attach", "\(vdi)@g\(number)", "--vhost-user", socket)
                seen.append(try self.number(socket))
                try daemon.ctl("detach", "\(vdi)@g\(number)")
            }
            // The second disk is never ahead of the first, and at most one write behind.
            #expect(seen[0] == seen[1] || seen[0] == seen[1] + 1, "cut \(number): \(seen)")
        }
    }

    @Test("after kill -9 in the middle of groups every group is whole or gone")
    func crash() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let vdis = ["a", "b", "c"]
        for vdi in vdis { try daemon.createVhost(vdi, size: "1M") }
        var made: Set<String> = []
        for cycle in 0..<6 {
            let client = try daemon.client
            let answered = Mutex<[String]>([])
            let taker = BackgroundThread {
                for number in 0... {
                    let name = "\(cycle)-\(number)"
                    let request = CreateSnapshotRequest(vdis: vdis, name: name)
                    // The daemon is killed in one of these.
                    guard (try? client.createGroup(request)) != nil else { return }
                    answered.withLock { $0.append(name) }
                }
            }
            while answered.withLock({ $0.count }) < 3 + cycle { taker.breathe() }
            try daemon.kill()
            try taker.join()
            made.formUnion(answered.withLock { $0 })
            try daemon.start()
            let found = try vdis.map { vdi in
                Set(try daemon.client.snapshots(of: vdi).snapshots.map(\.name))
            }
            #expect(found[0] == found[1] && found[1] == found[2])
            #expect(found[0].isSuperset(of: made))
            #expect(found[0].count <= made.count + cycle + 1)
        }
    }
}
