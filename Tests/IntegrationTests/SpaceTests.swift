// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// Thin disks, small caches and full stores.
@Suite struct SpaceTests {
    @Test("a hundred empty disks of 64 TiB cost nothing, and the last block of one works")
    func thin() throws {
        var options = DaemonHarness.Options()
        options.extentSize = "1M"
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let client = try daemon.client
        // The first ones make the logs take the extents that they always hold.
        for number in 0..<4 { _ = try client.create(name: "thin\(number)", sizeBytes: 64 << 40) }
        try daemon.restart()
        let before = try daemon.status().store.usedBytes
        for number in 4..<100 { _ = try client.create(name: "thin\(number)", sizeBytes: 64 << 40) }
        try daemon.restart()
        let vdis = try daemon.client.vdis()
        #expect(vdis.count == 100)
        #expect(Set(vdis.map(\.allocatedBytes)) == [0])
        #expect(Set(vdis.map(\.sizeBytes)) == [64 << 40])
        // Whole extents are counted: one more on each shard is 21 KiB for each disk.
        let after = try daemon.status().store.usedBytes
        #expect(after <= before + (2 << 20), "\(after) bytes are used, \(before) were")

        let socket = daemon.directory.file("s")
        try daemon.ctl("attach", "thin42", "--vhost-user", socket)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let last = disk.config.capacitySectors - 8
        #expect(last == (64 << 31) - 8)
        let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 / 16) }
        try disk.writeBlocking(sector: last, bytes)
        try disk.flush()
        try daemon.restart()
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        #expect(try disk.readBlocking(sector: last, byteCount: 4096) == bytes)
        let before4K = try disk.readBlocking(sector: last - 8, byteCount: 4096)
        #expect(Set(before4K) == [0])
        #expect(try daemon.client.vdi("thin42").allocatedBytes <= 64 << 10)
    }

    @Test("the smallest disk can be filled to its end")
    func smallest() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1M")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let bytes = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 / 4096 &+ 1) }
        try disk.writeBlocking(sector: 0, bytes)
        #expect(try daemon.client.vdi("disk").allocatedBytes == 1 << 20)
        try daemon.kill()
        try daemon.start()
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let same = try disk.readBlocking(sector: 0, byteCount: 1 << 20) == bytes
        #expect(same)
    }

    @Test(
        "a disk whose tree is larger than the cache works, also after kill -9",
        arguments: ["8G", "64T"])
    func tinyCache(size: String) throws {
        var options = DaemonHarness.Options()
        options.storeSize = "1G"
        options.cacheSize = "4M"
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: size)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        // Each block has a leaf of its own; the shard's half of the cache holds 512 nodes.
        var load = SparseLoad(seed: 8, blockCount: disk.config.capacitySectors / 8, count: 1200)
        try load.write(&disk, generation: 1)
        try load.verify(&disk)
        try daemon.kill()
        try daemon.start()
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
        try load.write(&disk, generation: 2)
        try daemon.restart()
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
        let cached = try daemon.status().shards.map(\.cacheBytes)
        #expect(cached.reduce(0, +) <= 4 << 20, "\(cached)")
        // What is deleted has to be walked, and that must not need the whole tree in memory.
        try daemon.ctl("detach", "disk")
        try daemon.ctl("vdi", "delete", "disk")
        #expect(try daemon.client.vdis().isEmpty)
    }

    // With two shards the space that comes back belonged to the other one.
    @Test(
        "a full store refuses writes, goes on reading, and works again after a deletion",
        arguments: [1, 2])
    func full(shards: Int) throws {
        let daemon = try startDaemon(storeSize: "64M", shards: shards)
        let victimSocket = try daemon.createVhost("victim", size: "16M")
        var victimLoad = VerifiedLoad(seed: 9, sectorCount: (4 << 20) / 512)
        do {
            var victim = try BlockDriver(connectingTo: victimSocket, options: patientOptions())
            try victimLoad.run(&victim, completions: 100)
            try victimLoad.drain(&victim)
            let piece = [UInt8](repeating: 7, count: 128 << 10)
            for number in 32..<128 {
                try victim.writeBlocking(sector: UInt64(number) * 256, piece)
            }
        }
        let socket = try daemon.createVhost("disk", size: "1G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let written = try fill(&disk)
        #expect(written > 64, "only \(written) writes of 128 KiB fitted")
        #expect(written < 512)

        let full = try daemon.status()
        #expect(full.store.liveBytes >= UInt64(written) << 17)
        #expect(full.store.fullPercent >= 80, "\(full.store)")
        #expect(full.shards.map(\.space.refusedRequests).reduce(0, +) == 1)
        #expect(full.store.host.map(\.allocatedBytes) ?? 0 >= full.store.liveBytes)
        try waitUntil("the log does not say how full it is: \(daemon.log)") {
            daemon.log.contains(" % full: ") && daemon.log.contains("writes are refused")
        }

        // Everybody can read what was acknowledged.
        var victim = try BlockDriver(connectingTo: victimSocket, options: patientOptions())
        try victimLoad.verify(&victim)
        try checkFill(&disk, written)
        try disk.flush()
        #expect(try daemon.status().state == .ready)

        // Also after the daemon's death, with the store as full as it is.
        try daemon.kill()
        try daemon.start()
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try checkFill(&disk, written)

        // Giving space back needs none.
        try disk.discard(sector: 0, sectorCount: 256)
        try disk.writeZeroes(sector: 256, sectorCount: 256, mayUnmap: true)
        let zeroes = try disk.readBlocking(sector: 0, byteCount: 256 << 10)
        #expect(Set(zeroes) == [0])

        try daemon.ctl("detach", "victim")
        try daemon.ctl("vdi", "delete", "victim")
        try writeUntilItWorks(&disk, sector: 1 << 20)
        try checkFill(&disk, from: 2, written)
        #expect(try daemon.terminate() == 0)
    }

    @Test("a full store that grows takes writes at once, also after kill -9", arguments: [1, 2])
    func grow(shards: Int) throws {
        let daemon = try startDaemon(storeSize: "48M", shards: shards)
        let socket = try daemon.createVhost("disk", size: "1G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let before = try fill(&disk)
        #expect(before < 48 * 8)

        let printed = try daemon.ctl("store", "grow", "96M")
        #expect(printed == "\(daemon.store): grown from 48 MiB to 96 MiB, 48 extents more")
        let after = try fill(&disk, from: before)
        #expect(after > before + 32 * 8, "\(before) pieces fitted before, \(after) after")
        let store = try daemon.status().store
        #expect(store.sizeBytes == 96 << 20)
        #expect(store.extentCount == 95)
        let smaller = try daemon.run("store", "grow", "64M")
        #expect(smaller.errors.contains("A store cannot shrink"), "\(smaller)")
        #expect(try daemon.run("store", "grow").errors.contains("give the size"))
        #expect(try daemon.run("store", "grow", "much").code == 64)
        #expect(try daemon.ctl("store", "grow", "96M").hasSuffix(": 96 MiB already"))

        try daemon.kill()
        try daemon.start()
        #expect(try daemon.status().store.extentCount == 95)
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try checkFill(&disk, after)
        #expect(try readFileSize(daemon.store) == 96 << 20)
    }

    @Test("what is dead among what lives becomes free, by hand and by itself, and nothing is lost")
    func cleaning() throws {
        let daemon = try startDaemon(storeSize: "64M", shards: 1)
        let socket = try daemon.createVhost("disk", size: "1G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        // 40 MiB of which every second piece dies: every extent is half dead.
        let pieces = 320
        let write = { (disk: inout BlockDriver, number: Int, byte: UInt8) in
            try disk.writeBlocking(
                sector: UInt64(number) * 256, [UInt8](repeating: byte, count: 128 << 10))
        }
        for number in 0..<pieces { try write(&disk, number, UInt8(number % 250 + 1)) }
        for number in stride(from: 0, to: pieces, by: 2) {
            try disk.discard(sector: UInt64(number) * 256, sectorCount: 256)
        }
        let before = try daemon.status()
        #expect(before.store.deadBytes > 15 << 20, "\(before.store)")
        let cleaned = try daemon.ctl("store", "clean", "--until", "45%")
        #expect(cleaned.contains("extents cleaned"))
        let after = try daemon.status()
        #expect(after.store.freeBytes * 100 >= 45 * 63 << 20, "\(after.store)")
        #expect(after.shards[0].cleaner.cleanedExtents > 0)
        #expect(after.shards[0].cleaner.movedBytes > 1 << 20)
        let refused = try daemon.run("store", "clean", "--until", "99%")
        #expect(refused.code == 1 && refused.errors.contains("cannot be made free"), "\(refused)")
        #expect(try daemon.run("store", "clean", "--until", "101%").code == 64)
        for number in stride(from: 1, to: pieces, by: 2) {
            try checkFill(&disk, from: number, number + 1)
        }

        // Three times the store goes through it, by pieces that are spread over all extents.
        for round in 0..<1536 {
            try write(&disk, (round * 37 % (pieces / 2)) * 2, UInt8(round % 200 + 1))
        }
        try daemon.kill()
        try daemon.start()
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        for number in stride(from: 1, to: pieces, by: 2) {
            try checkFill(&disk, from: number, number + 1)
        }
    }

    @Test("an NBD client of a full store is told that there is no space, and can read on")
    func fullNBD() throws {
        let daemon = try startDaemon(storeSize: "32M", shards: 1)
        let uri = try daemon.createNBD("disk", size: "1G")
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "write -P 5 0 1M", "-c", "flush", uri])
        let full = try Command.run(["qemu-io", "-f", "raw", "-c", "write -P 6 1M 64M", uri])
        #expect("\(full)".contains("No space left on device"), "\(full)")
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "read -P 5 0 1M", uri])
        // What was full a moment ago may have to be cleaned first.
        try waitUntil("the discard is refused") {
            try Command.run(["qemu-io", "-f", "raw", "-c", "discard 1M 64M", uri]).succeeded
        }
        let refused = try daemon.status().shards[0].space.refusedRequests
        #expect(refused > 0)
        let metrics = try daemon.client.exchange("GET", "/metrics").body
        #expect(
            String(decoding: metrics, as: UTF8.self).contains(
                #"parallax_no_space_total{shard="0"} \#(refused)"#))
    }

    @Test("what is deleted leaves the file, also what a daemon that was killed has left")
    func punching() throws {
        var options = DaemonHarness.Options()
        options.storeSize = "256M"
        options.extentSize = "1M"
        options.shards = 1
        options.punchAfter = "0"
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        var load = VerifiedLoad(seed: 21, sectorCount: (2 << 20) / 512)
        try load.run(&disk, completions: 50)
        try load.drain(&disk)
        for round in 0..<2 {
            let other = try daemon.createVhost("other\(round)", size: "1G")
            do {
                var second = try BlockDriver(connectingTo: other, options: patientOptions())
                let piece = [UInt8](repeating: 7, count: 128 << 10)
                for number in 0..<(100 * 8) {
                    try second.writeBlocking(sector: UInt64(number) * 256, piece)
                }
                try second.flush()
            }
            #expect(try fileBytes(daemon.store) > 100 << 20)
            try daemon.ctl("detach", "other\(round)")
            try daemon.ctl("vdi", "delete", "other\(round)")
            if round == 1 {
                try daemon.kill()
                try daemon.start()
                disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            }
            try waitUntil("the file is still \(try fileBytes(daemon.store)) bytes") {
                // Writes make the checkpoints come that give the extents back.
                try load.run(&disk, completions: 20)
                return try fileBytes(daemon.store) < 60 << 20
            }
            try load.drain(&disk)
            try load.verify(&disk)
        }
        #expect(try readFileSize(daemon.store) == 256 << 20)
    }

    private func startDaemon(storeSize: String, shards: Int) throws -> DaemonHarness {
        var options = DaemonHarness.Options()
        options.storeSize = storeSize
        options.extentSize = "1M"
        options.shards = shards
        let daemon = try DaemonHarness(options)
        try daemon.start()
        return daemon
    }

    private func fileBytes(_ path: String) throws -> Int {
        var status = stat()
        guard stat(path, &status) == 0 else { throw TestFailure("no \(path)") }
        return status.st_blocks * 512
    }

    private func waitUntil(
        _ complaint: @autoclosure () throws -> String, _ condition: () throws -> Bool
    ) throws {
        let start = ContinuousClock.now
        while try !condition() {
            guard ContinuousClock.now - start < .seconds(ChildProcess.patienceSeconds) else {
                throw TestFailure(try complaint())
            }
            usleep(20_000)
        }
    }

    private func readFileSize(_ path: String) throws -> Int {
        var status = stat()
        guard stat(path, &status) == 0 else { throw TestFailure("no \(path)") }
        return status.st_size
    }

    /// Writes pieces of 128 KiB until one fails; the number of the first that did.
    private func fill(_ disk: inout BlockDriver, from first: Int = 0) throws -> Int {
        for number in first..<1024 {
            let done = try disk.performForStatus(
                .write, firstSector: UInt64(number) * 256, byteCount: 128 << 10
            ) { $0.initializeMemory(as: UInt8.self, repeating: UInt8(number % 250 + 1)) }
            if done.status != BlockStatusByte.ok {
                #expect(done.status == BlockStatusByte.ioError)
                return number
            }
        }
        return 1024
    }

    private func checkFill(_ disk: inout BlockDriver, from first: Int = 0, _ count: Int) throws {
        for number in first..<count {
            let slot = try disk.perform(
                .read, firstSector: UInt64(number) * 256, byteCount: 128 << 10)
            let buffer = disk.buffer(queue: 0, slot: slot)
            guard let base = buffer.baseAddress, buffer[0] == UInt8(number % 250 + 1),
                memcmp(base, base + 1, (128 << 10) - 1) == 0
            else { throw TestFailure("piece \(number) does not hold what was written") }
        }
    }

    /// The space of what was deleted comes back in the background.
    private func writeUntilItWorks(_ disk: inout BlockDriver, sector: UInt64) throws {
        let start = ContinuousClock.now
        while ContinuousClock.now - start < .seconds(ChildProcess.patienceSeconds) {
            let done = try disk.performForStatus(
                .write, firstSector: sector, byteCount: 128 << 10)
            if done.status == BlockStatusByte.ok { return }
        }
        throw TestFailure("no space came back")
    }
}
