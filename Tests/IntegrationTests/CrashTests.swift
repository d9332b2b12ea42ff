// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// Promise 1: what was acknowledged survives the death of the daemon.
@Suite struct CrashTests {
    /// Kills in each test; more of them for a long run.
    private static let cycles: Int = {
        getenv("PARALLAX_TEST_CYCLES").flatMap { Int(String(cString: $0)) } ?? 4
    }()

    @Test(
        "what was acknowledged survives kill -9 in the middle of the writes",
        arguments: bothEngines)
    func killed(engine: String) throws {
        var options = DaemonHarness.Options()
        options.engine = engine
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "16M")
        let load = VerifiedLoad(seed: 1, sectorCount: (16 << 20) / 512)
        try endure(daemon, socket, load)
    }

    @Test("the same with a tree much larger than the cache, spread over 64 TiB")
    func killedWithSmallCache() throws {
        var options = DaemonHarness.Options()
        options.storeSize = "2G"
        options.cacheSize = "4M"
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "64T")
        // 1024 groups: each has a leaf of its own, and mostly the node above it too.
        let sectors = 1024 * VerifiedLoad.groupSectors
        let load = VerifiedLoad(
            seed: 13, sectorCount: sectors, strideSectors: (64 << 31) / 1024)
        try endure(daemon, socket, load)
    }

    /// Loads the disk, kills the daemon with requests in flight, starts it and looks, in turns.
    private func endure(
        _ daemon: DaemonHarness, _ socket: String, _ start: VerifiedLoad
    ) throws {
        var load = start
        for cycle in 0..<Self.cycles {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions(queues: 2))
            try load.verify(&disk)
            try load.run(&disk, completions: 250 + 60 * (cycle % 8))
            try daemon.kill()
            try load.abandon(&disk)
            // The attachment comes back by itself before the daemon says that it is ready.
            try daemon.start()
            try daemon.client.ready()
        }
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
        #expect(load.acknowledgedWrites > 100 * Self.cycles)
        #expect(load.uncertainSectors > 0, "nothing was in flight when it was killed")
        #expect(try daemon.terminate() == 0)
    }

    @Test("a deletion that kill -9 cut off is finished after the start, and its space used again")
    func deletion() throws {
        var options = DaemonHarness.Options()
        options.shards = 1
        let daemon = try DaemonHarness(options)
        try daemon.start()
        // Each time as much as the store could not hold twice.
        for round in 1...3 {
            let socket = try daemon.createVhost("disk", size: "1T")
            do {
                var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
                var load = SparseLoad(seed: 14, blockCount: 1 << 28, count: 1500)
                try load.write(&disk, generation: 1)
                let piece = [UInt8](repeating: UInt8(round), count: 128 << 10)
                for number in 0..<960 {
                    try disk.writeBlocking(sector: UInt64(number) * 256, piece)
                }
            }
            try daemon.ctl("detach", "disk")
            try daemon.ctl("vdi", "delete", "disk")
            try daemon.kill()
            try daemon.start()
            #expect(try daemon.client.vdis().isEmpty)
            // The name is free at once.
            try daemon.ctl("vdi", "create", "disk", "--size", "1M")
            try daemon.ctl("vdi", "delete", "disk")
        }
    }

    @Test("a kill right after the start, and one after a clean end, lose nothing")
    func killedWhileIdle() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "8M")
        var load = VerifiedLoad(seed: 2, sectorCount: (8 << 20) / 512)
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try load.run(&disk, completions: 200)
            try load.drain(&disk)
        }
        try daemon.restart()
        try daemon.kill()
        try daemon.start()
        try daemon.kill()
        try daemon.start()
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
    }

    @Test("changes of the catalogue that were answered survive kill -9")
    func catalogue() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        for name in ["a", "b", "c", "d"] { try daemon.ctl("vdi", "create", name, "--size", "4M") }
        try daemon.ctl("vdi", "delete", "b")
        try daemon.ctl("vdi", "rename", "c", "sea")
        try daemon.ctl("vdi", "resize", "d", "1T")
        let before = try daemon.client.vdis()
        try daemon.kill()
        try daemon.start()
        let after = try daemon.client.vdis()
        #expect(after == before)
        #expect(after.map(\.name) == ["a", "d", "sea"])
        #expect(try daemon.client.vdi("d").sizeBytes == 1 << 40)
    }

    @Test("it is not ready while an attachment cannot come back, and ready when it can")
    func notReady() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1M")
        let other = try daemon.createNBD("other", size: "1M")
        try daemon.kill()
        // Something else sits where the disk belongs.
        unlink(socket)
        try writeFile(socket, [])
        let notifications = try daemon.spawn()
        let process = try #require(daemon.process)
        #expect(try notifications.next(orEndOf: process) == "STATUS=1 of 2 attachments serve")
        let client = try daemon.client
        do throws(ControlError) {
            try client.ready()
            Issue.record("it was ready without one of its attachments")
        } catch {
            #expect(error.kind == .notReady)
        }
        let missing = try daemon.status().missing
        #expect(missing.map(\.vdi) == ["disk"])
        #expect(missing.first?.reason.contains("not a socket") == true)
        // The other disk serves meanwhile.
        #expect(try Command.succeed(["nbdinfo", "--size", other]) == "1048576\n")
        unlink(socket)
        try daemon.waitUntilReady(notifications)
        try daemon.client.ready()
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try disk.flush()
    }
}
