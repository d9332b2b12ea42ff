// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// How the daemon starts, ends, and stands in the way of a second one.
@Suite struct LifecycleTests {
    @Test("SIGTERM under load ends it with 0, and every answered write is there afterwards")
    func terminated() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "16M")
        var load = VerifiedLoad(seed: 3, sectorCount: (16 << 20) / 512)
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions(queues: 2))
            try load.run(&disk, completions: 300)
            #expect(try daemon.terminate() == 0)
            try load.abandon(&disk)
        }
        #expect(!exists(socket))
        #expect(!exists(daemon.controlSocket))
        #expect(!exists(daemon.nbdSocket))
        try daemon.start()
        // A clean end leaves nothing to replay but the chunks of its own checkpoint.
        let replayed = daemon.log.split(separator: " ").drop { $0 != "replayed" }.dropFirst().first
        #expect(Int(replayed ?? "0") ?? 0 <= 8, "\(daemon.log)")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
    }

    @Test("an idle daemon ends at once")
    func idle() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        #expect(try daemon.terminate() == 0)
    }

    @Test("a second daemon on the same store is refused and told who has it")
    func secondDaemon() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let pid = try #require(daemon.process?.processID)
        let second = try Command.run([
            Programs.daemon, "--store", daemon.store, "--control", daemon.directory.file("c2"),
            "--nbd", daemon.directory.file("n2"), "--state-dir", daemon.directory.file("s2"),
        ])
        #expect(second.code == 1)
        #expect(second.errors.contains("\(pid)"), "\(second)")
        #expect(second.errors.contains(daemon.store))
        // Nor may the store be formatted under its feet.
        let format = try daemon.run("store", "init", daemon.store, "--size", "64M", "--force")
        #expect(format.code == 1)
        #expect(format.errors.contains("\(pid)"), "\(format)")
        #expect(try daemon.status().state == .ready)
    }

    @Test("a stale control socket is replaced, a live one and a file are left alone")
    func controlSocket() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.kill()
        #expect(exists(daemon.controlSocket))
        try daemon.start()

        let other = try DaemonHarness()
        let live = try Command.run([
            Programs.daemon, "--store", other.store, "--control", daemon.controlSocket,
            "--nbd", other.nbdSocket, "--state-dir", other.directory.file("state"),
        ])
        #expect(live.code == 1)
        #expect(live.errors.contains("another process listens on it"), "\(live)")
        #expect(try daemon.status().state == .ready)

        try writeFile(other.controlSocket, Array("mine".utf8))
        let file = try other.refusal()
        #expect(file.code == 1)
        #expect(file.errors.contains("not a socket"), "\(file)")
        #expect(try readFile(other.controlSocket) == Array("mine".utf8))
    }

    /// Makes io_uring_setup fail as it does in most containers, then becomes the program given.
    private static let forbidIOUring = """
        import ctypes, os, struct, sys
        EPERM, SETUP, ARCH_X86_64 = 1, 425, 0xC000003E
        ALLOW, ERRNO = 0x7FFF0000, 0x00050000
        program = b"".join(struct.pack("HBBI", *line) for line in [
            (0x20, 0, 0, 0),  # load the number of the system call
            (0x15, 0, 1, SETUP),
            (0x06, 0, 0, ERRNO | EPERM),
            (0x06, 0, 0, ALLOW)])
        buffer = ctypes.create_string_buffer(program)
        filter = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
        assert libc.prctl(22, 2, filter) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
        os.execv(sys.argv[1], sys.argv[1:])
        """

    @Test("where io_uring is forbidden the daemon says so once and goes on with libaio")
    func withoutIOUring() throws {
        var options = DaemonHarness.Options()
        options.wrapper = ["python3", "-c", Self.forbidIOUring]
        let daemon = try DaemonHarness(options)
        try daemon.start()
        #expect(try daemon.status().engine == "libaio")
        let lines = daemon.log.split(separator: "\n").filter { $0.contains("io_uring") }
        #expect(lines.count == 1, "\(daemon.log)")
        let socket = try daemon.createVhost("disk", size: "4M")
        var load = VerifiedLoad(seed: 17, sectorCount: (4 << 20) / 512)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.run(&disk, completions: 100)
        try load.drain(&disk)
        try load.verify(&disk)
        #expect(try daemon.terminate() == 0)
    }

    @Test("the control socket belongs to its owner alone")
    func permissions() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        var information = stat()
        #expect(lstat(daemon.controlSocket, &information) == 0)
        #expect(information.st_mode & 0o777 == 0o600)
    }

    @Test("attachments of both kinds come back after a clean restart")
    func restart() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1M")
        let shared = try daemon.createNBD("shared", size: "2M")
        try daemon.ctl("vdi", "create", "alone", "--size", "3M")
        let alone = try daemon.ctl("attach", "alone", "--nbd", daemon.directory.file("own.sock"))
        try daemon.ctl("vdi", "create", "detached", "--size", "1M")
        try daemon.ctl("attach", "detached", "--nbd")
        try daemon.ctl("detach", "detached")
        let before = try daemon.client.vdis()
        try daemon.restart()
        #expect(try daemon.client.vdis() == before)
        #expect(try Command.succeed(["nbdinfo", "--size", shared]) == "2097152\n")
        #expect(try Command.succeed(["nbdinfo", "--size", alone]) == "3145728\n")
        let disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        #expect(disk.capacityBytes == 1 << 20)
    }

    /// A connection to the control socket on which a request has been answered.
    private func idleConnection(_ daemon: DaemonHarness) throws -> StreamSocket {
        let stream: StreamSocket
        switch StreamSocket.connect(to: try UnixAddress(path: daemon.controlSocket)) {
        case .connected(let connected): stream = connected
        case .failed(let number): throw TestFailure("cannot connect: \(number)")
        }
        let request = HTTPMessage(
            startLine: .request(method: "GET", target: "/v1/ready"),
            headers: ["host": "localhost"], keepsAlive: true)
        let isSent = stream.send(request.serialized())
        let answer = stream.receive(limit: 4096)
        #expect(isSent && answer?.isEmpty == false)
        return stream
    }

    /// What must hold after any end: the store is whole, and the daemon starts with it.
    private func requireWhole(_ daemon: DaemonHarness) throws {
        let check = try daemon.run("store", "check", daemon.store)
        #expect(check.code == 0, "\(check)")
        try daemon.start()
    }

    @Test("SIGTERM ends it while a connection idles and another has sent half a request")
    func idleConnections() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let idle = try idleConnection(daemon)
        let half = try idleConnection(daemon)
        let isSent = half.send(Array("GET /v1/sta".utf8))
        #expect(try daemon.terminate() == 0)
        let end = idle.receive(limit: 1)
        #expect(isSent && end == [])
        try requireWhole(daemon)
    }

    @Test("SIGTERM ends it while versions are compared, which is answered or given up")
    func whileComparing() throws {
        var options = DaemonHarness.Options()
        options.storeSize = "512M"
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let uri = try daemon.createNBD("disk", size: "16G")
        try daemon.ctl("snapshot", "disk", "--name", "empty")
        // A block in each of 8,000 leaves.
        var words = ["qemu-io", "-f", "raw", "-t", "writeback"]
        for number in 0..<8_000 { words += ["-c", "write -q \(number * 2)M 4k"] }
        try Command.succeed(words + [uri])
        let client = try daemon.client
        let comparing = BackgroundThread {
            while true {
                do throws(ControlError) {
                    _ = try client.diff(from: "disk@empty", to: "disk")
                } catch {
                    guard error.kind == .stopping || error.kind == .unreachable else { throw error }
                    return
                }
            }
        }
        _ = try client.diff(from: "disk@empty", to: "disk")
        #expect(try daemon.terminate() == 0)
        try comparing.join()
        try requireWhole(daemon)
        #expect(try daemon.client.diff(from: "disk@empty", to: "disk").ranges.count == 8_000)
    }

    @Test("SIGTERM ends it while a policy is applied; what is left is what the next run finds")
    func whileApplying() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.ctl("vdi", "create", "disk", "--size", "4M")
        let client = try daemon.client
        for number in 0..<700 {
            _ = try client.createSnapshot(
                of: "disk", CreateSnapshotRequest(name: "\(number)", scheduled: true))
        }
        try daemon.ctl("retention", "set", "disk", "--keep-last", "5")
        let applying = BackgroundThread {
            do throws(ControlError) {
                _ = try client.applyRetention(to: "disk")
            } catch {
                guard error.kind == .stopping || error.kind == .unreachable else { throw error }
            }
        }
        while try client.vdi("disk").snapshotCount == 700, !applying.isFinished {}
        #expect(try daemon.terminate() == 0)
        try applying.join()
        try requireWhole(daemon)
        let left = try daemon.client.vdi("disk").snapshotCount
        #expect(left >= 5 && left < 700)
        let report = try daemon.client.applyRetention(to: "disk")
        #expect(report.deletedCount == left - 5 && report.keptCount == 5)
    }

    @Test("SIGTERM ends it while the store is cleaned, and the disk is what it was")
    func whileCleaning() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "64M")
        var load = VerifiedLoad(seed: 29, sectorCount: (64 << 20) / 512)
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try load.run(&disk, completions: 3000)
            try load.drain(&disk)
            try disk.stop()
        }
        try daemon.client.cleanStore(untilPercent: nil)
        #expect(try daemon.terminate() == 0)
        try requireWhole(daemon)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
    }
}
