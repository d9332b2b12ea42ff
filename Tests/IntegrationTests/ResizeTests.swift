// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// Growing and shrinking a VDI, seen by the clients that use it.
@Suite struct ResizeTests {
    @Test("a live guest is told that its disk has grown, and can use the new space at once")
    func growUnderVhost() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1M")
        var disk = try BlockDriver(connectingTo: socket, options: withoutAcknowledgements())
        var pair: [Int32] = [-1, -1]
        #expect(parallax_socket_pair(&pair, 0) == 0)
        defer { for descriptor in pair { close(descriptor) } }
        // The device sends its own messages on a socket that the driver gives it.
        try disk.connection.command(.setBackendRequestFD, fileDescriptors: [pair[1]])
        try disk.writeBlocking(sector: 0, [UInt8](repeating: 5, count: 512))

        try daemon.ctl("vdi", "resize", "disk", "3M")
        let notices = VhostUserConnection(adopting: dup(pair[0]), timeoutMilliseconds: 60_000)
        let notice = try notices.receive()
        #expect(notice.header.request.rawValue == 2)  // CONFIG_CHANGE_MSG
        let config = BlockDeviceConfig(
            decoding: try disk.connection.readConfig(byteCount: BlockDeviceConfig.byteCount))
        #expect(config.capacityBytes == 3 << 20)
        let last = config.capacitySectors - 1
        try disk.writeBlocking(sector: last, [UInt8](repeating: 6, count: 512))
        let sixes = try disk.readBlocking(sector: last, byteCount: 512).allSatisfy { $0 == 6 }
        #expect(sixes)
        let fives = try disk.readBlocking(sector: 0, byteCount: 512).allSatisfy { $0 == 5 }
        #expect(fives)
    }

    /// With the protocol feature for messages of the device's own.
    private func withoutAcknowledgements() -> BlockDriverOptions {
        var options = patientOptions()
        options.protocolFeatures = [.multiQueue, .config, .backendRequests]
        return options
    }

    @Test("a disk grows many times under load, and nobody notices")
    func growUnderLoad() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "4M")
        var load = VerifiedLoad(seed: 15, sectorCount: (4 << 20) / 512)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions(queues: 2))
        // Past every height of the tree.
        for size in ["5M", "300M", "1G", "200G", "1T", "64T"] {
            try load.run(&disk, completions: 30)
            try daemon.ctl("vdi", "resize", "disk", size)
        }
        try load.drain(&disk)
        try load.verify(&disk)
        let last = UInt64(64 << 31) - 1
        try disk.writeBlocking(sector: last, [UInt8](repeating: 1, count: 512))
        let bytes = try disk.readBlocking(sector: last, byteCount: 512)
        #expect(Set(bytes) == [1])
    }

    @Test("an NBD client sees the new size when it connects again")
    func growUnderNBD() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let uri = try daemon.createNBD("disk", size: "1M")
        #expect(try Command.succeed(["nbdinfo", "--size", uri]) == "1048576\n")
        try daemon.ctl("vdi", "resize", "disk", "5M")
        #expect(try Command.succeed(["nbdinfo", "--size", uri]) == "5242880\n")
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "write -P 7 4M 1M", uri])
    }

    @Test("what was cut off reads as zeroes when the disk grows again")
    func shrinkAndGrow() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "4M")
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try disk.writeBlocking(sector: 0, [UInt8](repeating: 1, count: 4 << 20))
        }
        let refused = try daemon.run("vdi", "resize", "disk", "1M")
        #expect(refused.code == 1 && refused.errors.contains("--shrink"), "\(refused)")
        let attached = try daemon.run("vdi", "resize", "disk", "1M", "--shrink")
        #expect(attached.code == 1 && attached.errors.contains("detach it first"), "\(attached)")
        try daemon.ctl("detach", "disk")
        // To an end that is not on a radix leaf.
        try daemon.ctl("vdi", "resize", "disk", "1540K", "--shrink")
        #expect(try daemon.client.vdi("disk").allocatedBytes <= 1540 << 10)
        try daemon.ctl("vdi", "resize", "disk", "6M")
        try daemon.restart()
        try daemon.ctl("attach", "disk", "--vhost-user", socket)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let bytes = try disk.readBlocking(sector: 0, byteCount: 6 << 20)
        let kept = bytes[..<(1540 << 10)].allSatisfy { $0 == 1 }
        let zeroes = bytes[(1540 << 10)...].allSatisfy { $0 == 0 }
        #expect(kept)
        #expect(zeroes)
    }
}
