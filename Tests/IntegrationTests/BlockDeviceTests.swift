// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// A loop device over a file that can be made larger.
private final class LoopDevice {
    private let file: String
    let path: String

    /// Nil where nobody lets us make one.
    init?(over file: String, size: String, sectorBytes: Int = 512) {
        let setUp = ["losetup", "--sector-size", "\(sectorBytes)", "--find", "--show", file]
        guard let made = try? Command.run(["truncate", "-s", size, file]), made.succeeded,
            let device = try? Command.run(setUp), device.succeeded
        else { return nil }
        self.file = file
        path = String(device.output.prefix { $0 != "\n" })
    }

    deinit { _ = try? Command.run(["losetup", "--detach", path]) }

    func grow(to size: String) throws {
        try Command.succeed(["truncate", "-s", size, file])
        try Command.succeed(["losetup", "--set-capacity", path])
    }

    static let isAvailable: Bool = {
        guard let directory = try? TemporaryDirectory() else { return false }
        return LoopDevice(over: directory.file("image"), size: "4M") != nil
    }()
}

@Suite(
    "A store on a block device",
    .enabled(if: LoopDevice.isAvailable, "needs the right to make a loop device"))
struct BlockDeviceStoreTests {
    @Test(
        "a guest's buffers may be odd on a device of 4096-byte sectors, too", arguments: bothEngines
    )
    func largeSectors(engine: String) throws {
        var options = DaemonHarness.Options()
        options.engine = engine
        let daemon = try DaemonHarness(options, makesStore: false)
        let device = try #require(
            LoopDevice(over: daemon.directory.file("image"), size: "48M", sectorBytes: 4096))
        try #require(symlink(device.path, daemon.store) == 0)
        try Command.succeed([
            Programs.control, "store", "init", daemon.store, "--extent-size", "1M", "--shards", "1",
        ])
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1G")
        let bytes = (0..<128 << 10).map { UInt8(truncatingIfNeeded: $0 / 512) }
        do {
            // Aligned memory, but not where the blocks begin.
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try disk.writeBlocking(sector: 0, bytes)
            try disk.flush()
            let middle = try disk.readBlocking(sector: 1, byteCount: 8192)
            #expect(middle == Array(bytes[512..<8704]))
        }
        // Pieces of seven sectors: whole blocks in memory that such a device cannot read into.
        var odd = patientOptions()
        odd.dataSegmentBytes = 3584
        var disk = try BlockDriver(connectingTo: socket, options: odd)
        let isRight = try disk.readBlocking(sector: 0, byteCount: bytes.count) == bytes
        #expect(isRight)
        #expect(try daemon.terminate() == 0)
    }

    @Test("a daemon stops writing when another one opens its store by another path")
    func openedTwice() throws {
        let first = try DaemonHarness()
        try first.start()
        let piece = [UInt8](repeating: 1, count: 64 << 10)
        let firstSocket = try first.createVhost("disk", size: "16M")
        var firstDisk = try BlockDriver(connectingTo: firstSocket, options: patientOptions())
        try firstDisk.writeBlocking(sector: 0, piece)
        try firstDisk.flush()

        let device = try #require(LoopDevice(over: first.store, size: "256M"))
        let second = try DaemonHarness(makesStore: false)
        try #require(symlink(device.path, second.store) == 0)
        try second.start()
        try first.waitUntilFenced()
        let refused = try firstDisk.performForStatus(
            .write, firstSector: 0, byteCount: 4096)
        #expect(refused.status == BlockStatusByte.ioError)

        let secondSocket = second.directory.file("disk.vhost")
        try second.ctl("attach", "disk", "--vhost-user", secondSocket)
        do {
            var disk = try BlockDriver(connectingTo: secondSocket, options: patientOptions())
            let isThere = try disk.readBlocking(sector: 0, byteCount: piece.count) == piece
            #expect(isThere)
            for number in 0..<64 {
                let bytes = [UInt8](repeating: UInt8(100 + number), count: piece.count)
                try disk.writeBlocking(sector: UInt64(number) * 128, bytes)
            }
            try disk.flush()
        }
        // Nor does its end write over what the other has written.
        #expect(try first.terminate() == 0)
        try second.kill()
        try second.start()
        #expect(try second.status().shards.allSatisfy { $0.readOnlyReason == nil })
        var disk = try BlockDriver(connectingTo: secondSocket, options: patientOptions())
        for number in 0..<64 {
            let bytes = try disk.readBlocking(
                sector: UInt64(number) * 128, byteCount: piece.count)
            #expect(Set(bytes) == [UInt8(100 + number)])
        }
        #expect(try second.terminate() == 0)
    }

    @Test("a device that became larger makes the store larger, while a guest writes, and stays so")
    func grow() throws {
        var options = DaemonHarness.Options()
        options.extentSize = "1M"
        options.shards = 1
        let daemon = try DaemonHarness(options, makesStore: false)
        let device = try #require(
            LoopDevice(over: daemon.directory.file("image"), size: "48M"))
        try #require(symlink(device.path, daemon.store) == 0)
        try Command.succeed([
            Programs.control, "store", "init", daemon.store, "--extent-size", "1M", "--shards", "1",
        ])
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let piece = [UInt8](repeating: 9, count: 128 << 10)
        for number in 0..<64 { try disk.writeBlocking(sector: UInt64(number) * 256, piece) }
        #expect(try daemon.ctl("store", "grow").hasSuffix(": 48 MiB already"))
        let larger = try daemon.run("store", "grow", "96M")
        #expect(larger.code == 1 && larger.errors.contains("only 50331648 bytes"), "\(larger)")

        try device.grow(to: "96M")
        let printed = try daemon.ctl("store", "grow")
        #expect(printed.hasSuffix("grown from 48 MiB to 96 MiB, 48 extents more"), "\(printed)")
        for number in 64..<512 { try disk.writeBlocking(sector: UInt64(number) * 256, piece) }
        try disk.flush()
        try daemon.kill()
        try daemon.start()
        #expect(try daemon.status().store.extentCount == 95)
        disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        for number in 0..<512 {
            let isRight =
                try disk.readBlocking(sector: UInt64(number) * 256, byteCount: 128 << 10) == piece
            #expect(isRight, "piece \(number)")
        }
        #expect(try daemon.terminate() == 0)
    }
}
