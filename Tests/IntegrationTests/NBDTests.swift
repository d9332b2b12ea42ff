// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Foundation
import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// The NBD clients that people use, against the real daemon.
@Suite struct NBDTests {
    private func start() throws -> DaemonHarness {
        let daemon = try DaemonHarness()
        try daemon.start()
        return daemon
    }

    private func nbdinfo(_ arguments: String...) throws -> [[String: Any]] {
        let text = try Command.succeed(["nbdinfo", "--json"] + arguments)
        let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        return try #require(object?["exports"] as? [[String: Any]], "\(text)")
    }

    /// A file of random bytes with holes of zeroes in it.
    private func makeImage(_ path: String, megabytes: Int) throws {
        var random = RandomSource(seed: 11)
        var bytes: [UInt8] = []
        for piece in 0..<megabytes * 16 {
            if piece % 3 == 2 {
                bytes += [UInt8](repeating: 0, count: 65_536)
            } else {
                let word = random.next()
                withUnsafeBytes(of: word) { for _ in 0..<8192 { bytes += $0 } }
            }
        }
        try writeFile(path, bytes)
    }

    @Test("nbdinfo sees an export as it is, and all of them on the shared socket")
    func information() throws {
        let daemon = try start()
        let uri = try daemon.createNBD("a disk", size: "20G")
        _ = try daemon.createNBD("second", size: "1M")
        try daemon.ctl("vdi", "create", "elsewhere", "--size", "2M")
        let own = try daemon.ctl("attach", "elsewhere", "--nbd", daemon.directory.file("own"))
        try daemon.ctl("vdi", "create", "unattached", "--size", "1M")

        let export = try #require(try nbdinfo(uri).first)
        #expect(export["export-name"] as? String == "a disk")
        #expect(export["export-size"] as? Int == 20 << 30)
        #expect(export["is_read_only"] as? Bool == false)
        #expect(export["can_flush"] as? Bool == true)
        #expect(export["can_trim"] as? Bool == true)
        #expect(export["can_zero"] as? Bool == true)
        #expect(export["can_fua"] as? Bool == true)
        #expect(export["block_size_minimum"] as? Int ?? 512 <= 4096)

        let shared = "nbd+unix:///?socket=\(daemon.nbdSocket)"
        let names = try nbdinfo("--list", shared).compactMap { $0["export-name"] as? String }
        #expect(names.sorted() == ["a disk", "second"])
        let alone = try nbdinfo("--list", own).compactMap { $0["export-name"] as? String }
        #expect(alone == ["elsewhere"])
        let unknown = try Command.run(
            ["nbdinfo", "nbd+unix:///nobody?socket=\(daemon.nbdSocket)"])
        #expect(unknown.code != 0)
        // Clients know it by name, so it keeps that while it is attached.
        let refused = try daemon.run(["vdi", "rename", "second", "zweite"])
        #expect(refused.code == 1 && refused.errors.contains("detach it first"), "\(refused)")
        try daemon.ctl("detach", "second")
        try daemon.ctl("vdi", "rename", "second", "zweite")
        try daemon.ctl("attach", "zweite", "--nbd")
        let renamed = try nbdinfo("--list", shared).compactMap { $0["export-name"] as? String }
        #expect(renamed.sorted() == ["a disk", "zweite"])
    }

    @Test("qemu-img converts to a disk and back, and finds both the same")
    func convert() throws {
        let daemon = try start()
        let uri = try daemon.createNBD("disk", size: "8M")
        let image = daemon.directory.file("image")
        try makeImage(image, megabytes: 8)
        try Command.succeed(
            ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri])
        try Command.succeed(["qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri])
        let back = daemon.directory.file("back")
        try Command.succeed(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, back])
        try Command.succeed(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, back])
        // The zeroes of the image take no space.
        #expect(try daemon.client.vdi("disk").allocatedBytes < 6 << 20)
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "write -P 1 5M 4k", uri])
        let differs = try Command.run(
            ["qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri])
        #expect(differs.code == 1, "\(differs)")
    }

    @Test("qemu-img makes an image of its own format inside a disk")
    func create() throws {
        let daemon = try start()
        let uri = try daemon.createNBD("disk", size: "4M")
        try Command.succeed(["qemu-img", "create", "-f", "qcow2", uri, "64M"])
        try Command.succeed([
            "qemu-io", "-f", "qcow2", "-c", "write -P 3 60M 1M", "-c", "read -P 3 60M 1M", uri,
        ])
        try daemon.restart()
        try Command.succeed(["qemu-img", "check", "-f", "qcow2", uri])
        try Command.succeed(["qemu-io", "-f", "qcow2", "-c", "read -P 3 60M 1M", uri])
    }

    @Test("qemu-io's patterns come back, in odd ranges, zeroed and discarded")
    func patterns() throws {
        let daemon = try start()
        let uri = try daemon.createNBD("disk", size: "16M")
        try Command.succeed([
            "qemu-io", "-f", "raw", "-d", "unmap",
            "-c", "read -P 0 0 16M",
            "-c", "write -P 0x11 0 1M", "-c", "write -P 0x22 512 512", "-c", "write -P 0x33 5k 9k",
            "-c", "write -f -P 0x44 15M 1M", "-c", "flush",
            "-c", "read -P 0x11 0 512", "-c", "read -P 0x22 512 512", "-c", "read -P 0x11 1k 4k",
            "-c", "read -P 0x33 5k 9k", "-c", "read -P 0x44 15M 1M",
            "-c", "write -z 6k 2k", "-c", "read -P 0x33 5k 1k", "-c", "read -P 0 6k 2k",
            "-c", "read -P 0x33 8k 1k", "-c", "discard 512k 256k", "-c", "read -P 0 512k 256k",
            "-c", "aio_write -P 0x55 2M 1M", "-c", "aio_write -P 0x66 3M 1M", "-c", "aio_flush",
            "-c", "read -P 0x55 2M 1M", "-c", "read -P 0x66 3M 1M", uri,
        ])
        try daemon.kill()
        try daemon.start()
        try Command.succeed([
            "qemu-io", "-f", "raw", "-c", "read -P 0x22 512 512", "-c", "read -P 0 6k 2k",
            "-c", "read -P 0x55 2M 1M", "-c", "read -P 0x44 15M 1M", uri,
        ])
        let beyond = try Command.run(["qemu-io", "-f", "raw", "-c", "read 16M 512", uri])
        #expect(beyond.code != 0)
    }

    @Test("nbdcopy copies there and back on several connections")
    func copy() throws {
        let daemon = try start()
        let uri = try daemon.createNBD("disk", size: "16M")
        let image = daemon.directory.file("image")
        try makeImage(image, megabytes: 16)
        try Command.succeed(["nbdcopy", "--flush", image, uri])
        let back = daemon.directory.file("back")
        try Command.succeed(["nbdcopy", uri, back])
        let isSame = try readFile(back) == readFile(image)
        #expect(isSame)
        // From one disk to another.
        let second = try daemon.createNBD("second", size: "16M")
        try Command.succeed(["nbdcopy", uri, second])
        try Command.succeed(["qemu-img", "compare", "-f", "raw", "-F", "raw", uri, second])
    }

    @Test("fio's verification passes")
    func fio() throws {
        let daemon = try start()
        let uri = try daemon.createNBD("disk", size: "16M")
        let output = try Command.succeed([
            "fio", "--name=verify", "--ioengine=nbd", "--uri=\(uri)", "--rw=randrw", "--bs=4k",
            "--iodepth=16", "--size=6M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
            "--verify_state_save=0", "--randseed=12", "--output-format=terse",
        ])
        #expect(!output.isEmpty)
    }

    @Test("what a guest writes over vhost-user is read over NBD, and the other way round")
    func bothWays() throws {
        let daemon = try start()
        let socket = try daemon.createVhost("disk", size: "4M")
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try disk.writeBlocking(sector: 3, [UInt8](repeating: 0x5A, count: 10 * 512))
        }
        try daemon.ctl("detach", "disk")
        let uri = try daemon.ctl("attach", "disk", "--nbd")
        try Command.succeed([
            "qemu-io", "-f", "raw", "-c", "read -P 0x5A 1536 5k", "-c", "write -P 0x6B 2M 64k", uri,
        ])
        try daemon.ctl("detach", "disk")
        try daemon.ctl("attach", "disk", "--vhost-user", socket)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let bytes = try disk.readBlocking(sector: 4096, byteCount: 65_536)
        let isRight = bytes.allSatisfy { $0 == 0x6B }
        #expect(isRight)
    }

    @Test("a read-only attachment refuses writes")
    func readOnly() throws {
        let daemon = try start()
        let writable = try daemon.createNBD("disk", size: "1M")
        try Command.succeed(["qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", writable])
        try daemon.ctl("detach", "disk")
        let uri = try daemon.ctl("attach", "disk", "--nbd", "--read-only")
        #expect(try nbdinfo(uri).first?["is_read_only"] as? Bool == true)
        try Command.succeed(["qemu-io", "-r", "-f", "raw", "-c", "read -P 1 0 1M", uri])
        let write = try Command.run(["qemu-io", "-f", "raw", "-c", "write -P 2 0 4k", uri])
        #expect(write.code != 0 || write.text.contains("rror"), "\(write)")
        let copy = try Command.run(["nbdcopy", "/dev/zero", uri])
        #expect(copy.code != 0, "\(copy)")
        try Command.succeed(["qemu-io", "-r", "-f", "raw", "-c", "read -P 1 0 1M", uri])
    }

    @Test("detaching ends the connections of busy and idle clients")
    func detach() throws {
        let daemon = try start()
        let uri = try daemon.createNBD("disk", size: "16M")
        let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer { close(null) }
        let busy = try ChildProcess(
            [
                "fio", "--name=busy", "--ioengine=nbd", "--uri=\(uri)", "--rw=randwrite",
                "--bs=4k", "--iodepth=8", "--size=8M", "--time_based", "--runtime=300",
            ], output: null, errors: null)
        let idle = try VhostUserConnection(path: daemon.nbdSocket, timeoutMilliseconds: 60_000)
        try negotiate(idle, export: "disk")
        let deadline = ContinuousClock.now + .seconds(ChildProcess.patienceSeconds)
        while try daemon.status().shards.allSatisfy({ $0.writes < 50 }) {
            try #require(ContinuousClock.now < deadline, "fio does not write")
        }
        try daemon.ctl("detach", "disk")
        let isClosed = idle.waitForClose()
        #expect(isClosed)
        #expect(try busy.wait() != 0)
        let gone = try Command.run(["nbdinfo", uri])
        #expect(gone.code != 0)
        try daemon.ctl("vdi", "delete", "disk")
        #expect(try daemon.terminate() == 0)
    }

    @Test("an export has 64 connections at most, says so once, and has room when one ends")
    func crowd() throws {
        final class Client {
            let stream: VhostUserConnection
            init(_ path: String) throws {
                stream = try VhostUserConnection(path: path, timeoutMilliseconds: 60_000)
            }
        }
        let daemon = try start()
        for name in ["disk", "other"] { _ = try daemon.createNBD(name, size: "1M") }
        func client(_ export: String) throws -> Client {
            let client = try Client(daemon.nbdSocket)
            try negotiate(client.stream, export: export)
            return client
        }
        var clients = try (0..<64).map { _ in try client("disk") }
        for _ in 0..<3 {
            let isTurnedAway = try client("disk").stream.waitForClose()
            #expect(isTurnedAway)
        }
        let sentence = "VDI disk: an NBD client was turned away; at most 64 connections"
        #expect(daemon.log.components(separatedBy: sentence).count == 2)
        // Others do not suffer, and neither does who comes later.
        _ = try Command.succeed([
            "nbdinfo", "--map", "nbd+unix:///other?socket=\(daemon.nbdSocket)",
        ])
        clients.removeAll()
        _ = try Command.succeed(["nbdinfo", "--map", "nbd+unix:///disk?socket=\(daemon.nbdSocket)"])
        #expect(try daemon.terminate() == 0)
    }

    /// NBD_OPT_EXPORT_NAME, the shortest way into the transmission phase.
    private func negotiate(_ stream: borrowing VhostUserConnection, export: String) throws {
        let name = Array(export.utf8)
        try stream.sendRaw(
            [0, 0, 0, 3] + Array("IHAVEOPT".utf8) + [0, 0, 0, 1, 0, 0, 0, UInt8(name.count)] + name)
        var received = 0
        var bytes = [UInt8](repeating: 0, count: 28)
        while received < 28 {  // greeting 18, size 8, flags 2
            let count = parallax_receive(stream.fileDescriptor, &bytes, 28 - received)
            guard count > 0 else { throw TestFailure("the NBD server hung up") }
            received += count
        }
    }

    /// qemu-io with a client that looks for its server again, fed a command at a time: two at once
    /// would wait for each other in its buffer.
    private final class PatientClient {
        private let process: ChildProcess
        private var input: [Int32] = [-1, -1]
        private var output: [Int32] = [-1, -1]

        init(_ daemon: DaemonHarness, export: String) throws {
            #expect(parallax_pipe(&input, 0) == 0)
            #expect(parallax_pipe(&output, 0) == 0)
            process = try ChildProcess(
                [
                    "qemu-io", "--image-opts",
                    "driver=nbd,server.type=unix,server.path=\(daemon.nbdSocket),"
                        + "export=\(export),reconnect-delay=60",
                ], input: input[0], output: output[1], errors: output[1])
            _ = try answer()
        }

        deinit { for number in input + output { close(number) } }

        func say(_ line: String) {
            let bytes = Array((line + "\n").utf8)
            #expect(write(input[1], bytes, bytes.count) == bytes.count)
        }

        /// What it says until it is ready for the next command.
        func answer() throws -> String {
            var text = ""
            var bytes = [UInt8](repeating: 0, count: 4096)
            while !text.hasSuffix("qemu-io> ") {
                var ready = pollfd(fd: output[0], events: Int16(POLLIN), revents: 0)
                guard poll(&ready, 1, Int32(ChildProcess.patienceSeconds * 1000)) == 1 else {
                    throw TestFailure("qemu-io says nothing after: \(text)")
                }
                text += String(
                    decoding: bytes[..<read(output[0], &bytes, bytes.count)], as: UTF8.self)
            }
            return text
        }

        func quit() throws -> Int32 {
            say("quit")
            return try process.wait()
        }
    }

    @Test("a client that can connect again goes on after kill -9 and after a restart")
    func reconnecting() throws {
        let daemon = try start()
        _ = try daemon.createNBD("disk", size: "16M")
        let client = try PatientClient(daemon, export: "disk")
        for round in 1...4 {
            client.say("write -P \(round) \(round)M 1M")
            let written = try client.answer()
            #expect(written.contains("wrote 1048576/1048576"))
            if round % 2 == 0 { try daemon.kill() } else { #expect(try daemon.terminate() == 0) }
            // Nobody is there to hear it.
            client.say("read -P \(round) \(round)M 1M")
            try daemon.start()
            let read = try client.answer()
            #expect(read.contains("read 1048576/1048576"))
            #expect(!read.contains("verification failed"), "\(read)")
        }
        let code = try client.quit()
        #expect(code == 0)
    }
}
