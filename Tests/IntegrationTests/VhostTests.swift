// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// A disk as a guest's driver sees it, on both I/O engines.
@Suite struct VhostTests {
    private func start(_ engine: String) throws -> DaemonHarness {
        var options = DaemonHarness.Options()
        options.engine = engine
        let daemon = try DaemonHarness(options)
        try daemon.start()
        #expect(try daemon.status().engine == engine)
        return daemon
    }

    @Test("the configuration space and the serial are what the VDI is", arguments: bothEngines)
    func configuration(engine: String) throws {
        let daemon = try start(engine)
        let socket = try daemon.createVhost("a-name-of-more-than-twenty-bytes", size: "20G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let config = disk.config
        #expect(config.capacitySectors == 20 << 21)
        #expect(config.blockBytes == 512 || config.blockBytes == 4096)
        #expect(config.dataSegmentCountMax > 0)
        #expect(config.queueCount > 1)
        #expect(config.discardSectorsMax > 0 && config.writeZeroesSectorsMax > 0)
        #expect(config.discardRangesMax > 0 && config.writeZeroesRangesMax > 0)
        #expect(disk.queueCountMax > 1)
        let wanted: VirtioFeatures = [
            .segmentMax, .blockSize, .flush, .topology, .multiQueue, .discard, .writeZeroes,
            .indirectDescriptors, .eventIndex, .version1,
        ]
        #expect(disk.features.isSuperset(of: wanted))
        #expect(!disk.features.contains(.readOnly))
        #expect(try disk.identifier() == "a-name-of-more-than-")
    }

    @Test("a fresh disk reads as zeroes, from its first sector to its last", arguments: bothEngines)
    func fresh(engine: String) throws {
        let daemon = try start(engine)
        let socket = try daemon.createVhost("disk", size: "1G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let zeroes = [UInt8](repeating: 0, count: 131_072)
        #expect(try disk.readBlocking(sector: 0, byteCount: 131_072) == zeroes)
        let last = disk.config.capacitySectors - 1
        #expect(try disk.readBlocking(sector: last, byteCount: 512) == Array(zeroes.prefix(512)))
        let beyond = try disk.performForStatus(.read, firstSector: last, byteCount: 1024)
        #expect(beyond.status == BlockStatusByte.ioError)
        let farBeyond = try disk.performForStatus(.write, firstSector: .max, byteCount: 512)
        #expect(farBeyond.status == BlockStatusByte.ioError)
    }

    @Test("any range of sectors reads back as it was written", arguments: bothEngines)
    func oddRanges(engine: String) throws {
        let daemon = try start(engine)
        let socket = try daemon.createVhost("disk", size: "4M")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        var model = [UInt8](repeating: 0, count: 4 << 20)
        var random = RandomSource(seed: 4)
        for sectors in [(1, 1), (7, 2), (0, 8), (3, 30), (2047, 2), (2040, 200), (8191, 1)] {
            let bytes = (0..<sectors.1 * 512).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            try disk.writeBlocking(sector: UInt64(sectors.0), bytes)
            model.replaceSubrange(sectors.0 * 512..<(sectors.0 + sectors.1) * 512, with: bytes)
        }
        let same = try disk.readBlocking(sector: 0, byteCount: model.count) == model
        #expect(same)
        try disk.flush()
    }

    @Test(
        "discard and write-zeroes make zeroes of their range and of nothing else",
        arguments: bothEngines)
    func zeroes(engine: String) throws {
        let daemon = try start(engine)
        let socket = try daemon.createVhost("disk", size: "4M")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let ones = [UInt8](repeating: 1, count: 1 << 20)
        try disk.writeBlocking(sector: 0, ones)
        let full = try daemon.client.vdi("disk").allocatedBytes
        #expect(full >= 1 << 20)
        try disk.discard(sector: 8, sectorCount: 1024)
        try disk.writeZeroes(sector: 1100, sectorCount: 3)
        try disk.writeZeroes(sector: 1201, sectorCount: 600, mayUnmap: true)
        let bytes = try disk.readBlocking(sector: 0, byteCount: 1 << 20)
        for (sector, expected) in [
            (7, 1), (8, 0), (1031, 0), (1032, 1), (1099, 1), (1100, 0), (1102, 0), (1103, 1),
            (1200, 1), (1201, 0), (1800, 0), (1801, 1), (2047, 1),
        ] {
            let sectorBytes = bytes[sector * 512..<(sector + 1) * 512]
            let isRight = sectorBytes.allSatisfy { $0 == UInt8(expected) }
            #expect(isRight, "sector \(sector)")
        }
        #expect(try daemon.client.vdi("disk").allocatedBytes < full)
        let unknown = try disk.performForStatus(
            BlockOperation(rawValue: 99), firstSector: 0, byteCount: 512)
        #expect(unknown.status == BlockStatusByte.unsupported)
    }

    @Test(
        "random requests on several queues are answered with what the model says",
        arguments: bothEngines)
    func load(engine: String) throws {
        let daemon = try start(engine)
        let socket = try daemon.createVhost("disk", size: "32M")
        var load = VerifiedLoad(seed: 5, sectorCount: (32 << 20) / 512)
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions(queues: 4))
            try load.run(&disk, completions: 1500)
            try load.drain(&disk)
        }
        // A poorer guest sees the same disk.
        var options = patientOptions()
        options.features.remove(.eventIndex)
        options.features.remove(.indirectDescriptors)
        options.requestsPerQueue = 3
        options.protocolFeatures = [.config]
        var disk = try BlockDriver(connectingTo: socket, options: options)
        try load.verify(&disk)
        try disk.stop()
    }

    @Test("disks on all shards work side by side")
    func severalDisks() throws {
        let daemon = try start("io_uring")
        var loads: [VerifiedLoad] = []
        for number in 0..<4 {
            let socket = try daemon.createVhost("disk\(number)", size: "4M")
            var load = VerifiedLoad(seed: UInt64(100 + number), sectorCount: (4 << 20) / 512)
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try load.run(&disk, completions: 100)
            try load.drain(&disk)
            loads.append(load)
        }
        #expect(Set(try daemon.client.vdis().map(\.shard)) == [0, 1])
        for number in 0..<4 {
            let socket = daemon.directory.file("disk\(number).vhost")
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try loads[number].verify(&disk)
        }
    }

    @Test("a second front end is turned away, and the first does not notice")
    func secondFrontEnd() throws {
        let daemon = try start("io_uring")
        let socket = try daemon.createVhost("disk", size: "4M")
        var load = VerifiedLoad(seed: 16, sectorCount: (4 << 20) / 512)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.run(&disk, completions: 20)
        do {
            let second = try VhostUserConnection(path: socket, timeoutMilliseconds: 60_000)
            let isClosed = second.waitForClose()
            #expect(isClosed)
        }
        try load.run(&disk, completions: 20)
        try load.drain(&disk)
        try load.verify(&disk)
    }

    @Test("forty disks are served at once, and all come back")
    func manyDisks() throws {
        let daemon = try start("io_uring")
        let client = try daemon.client
        let names = (0..<40).map { "disk\($0)" }
        for name in names {
            _ = try client.create(name: name, sizeBytes: 1 << 20)
            _ = try client.attach(
                name,
                AttachRequest(kind: .vhostUser, socket: daemon.directory.file("\(name).vhost")))
        }
        for round in 0..<2 {
            for (number, name) in names.enumerated() {
                var disk = try BlockDriver(
                    connectingTo: daemon.directory.file("\(name).vhost"),
                    options: patientOptions())
                let bytes = [UInt8](repeating: UInt8(number + 1), count: 512)
                if round == 0 { try disk.writeBlocking(sector: 5, bytes) }
                #expect(try disk.readBlocking(sector: 5, byteCount: 512) == bytes, "\(name)")
            }
            if round == 0 { try daemon.restart() }
        }
    }

    @Test("a read-only attachment reads, and refuses to change anything")
    func readOnly() throws {
        let daemon = try start("io_uring")
        let socket = try daemon.createVhost("disk", size: "1M")
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try disk.writeBlocking(sector: 0, [UInt8](repeating: 9, count: 4096))
        }
        try daemon.ctl("detach", "disk")
        try daemon.ctl("attach", "disk", "--vhost-user", socket, "--read-only")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        #expect(disk.features.contains(.readOnly))
        let write = try disk.performForStatus(.write, firstSector: 0, byteCount: 512)
        #expect(write.status == BlockStatusByte.ioError)
        do throws(GuestError) {
            try disk.discard(sector: 0, sectorCount: 8)
            Issue.record("a discard of a read-only disk succeeded")
        } catch {
            #expect(error.kind == .requestFailed(BlockStatusByte.ioError))
        }
        let nines = try disk.readBlocking(sector: 0, byteCount: 4096).allSatisfy { $0 == 9 }
        #expect(nines)
        try daemon.restart()
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        #expect(disk.features.contains(.readOnly))
    }

    @Test("detaching a disk in use ends its connection, and its data stay")
    func detach() throws {
        let daemon = try start("io_uring")
        let socket = try daemon.createVhost("disk", size: "8M")
        var load = VerifiedLoad(seed: 6, sectorCount: (8 << 20) / 512)
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try load.run(&disk, completions: 100)
            try daemon.ctl("detach", "disk")
            try load.abandon(&disk)
        }
        #expect(!exists(socket))
        try daemon.ctl("attach", "disk", "--vhost-user", socket)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
    }
}
