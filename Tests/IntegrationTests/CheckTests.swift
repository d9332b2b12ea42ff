// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import Testing

/// `store check`, its repair, and `store scrub`, through the programs.
@Suite struct CheckTests {
    /// A disk with a snapshot and a clone; its first MiB is what they share.
    private func makeStore() throws -> (daemon: DaemonHarness, uri: String) {
        let daemon = try DaemonHarness()
        try daemon.start()
        let uri = try daemon.createNBD("web", size: "64M")
        try io(uri, "write -P 0xA5 0 1M", "write -P 0x5A 8M 1M", "flush")
        try daemon.ctl("snapshot", "web", "--name", "mon")
        try daemon.ctl("clone", "web@mon", "copy")
        try io(uri, "write -P 0x11 8M 64k", "flush")
        return (daemon, uri)
    }

    private func io(_ uri: String, _ commands: String...) throws {
        var words = ["qemu-io", "-f", "raw"]
        for command in commands { words += ["-c", command] }
        let outcome = try Command.run(words + [uri])
        guard outcome.succeeded, !outcome.text.contains("failed") else {
            throw TestFailure("\(commands): \(outcome)")
        }
    }

    private func check(_ daemon: DaemonHarness, _ options: String...) throws -> Outcome {
        try daemon.run(["store", "check", daemon.store] + options)
    }

    /// Inverts a bit of the first block of the store that has nothing but `byte`s in it.
    private func damage(_ daemon: DaemonHarness, blockOf byte: UInt8) throws {
        let file = open(daemon.store, O_RDWR | O_CLOEXEC)
        guard file >= 0 else { throw TestFailure("cannot open \(daemon.store)") }
        defer { close(file) }
        var block = [UInt8](repeating: 0, count: 4096)
        var offset: off_t = 1 << 20
        while pread(file, &block, block.count, offset) == block.count {
            if block.allSatisfy({ $0 == byte }) {
                let wrong = [byte ^ 4]
                guard pwrite(file, wrong, 1, offset + 77) == 1 else { break }
                return
            }
            offset += 4096
        }
        throw TestFailure("no block of \(byte)s in \(daemon.store)")
    }

    private func flip(_ daemon: DaemonHarness, at offset: off_t) throws {
        let file = open(daemon.store, O_RDWR | O_CLOEXEC)
        guard file >= 0 else { throw TestFailure("cannot open \(daemon.store)") }
        defer { close(file) }
        var byte: [UInt8] = [0]
        guard pread(file, &byte, 1, offset) == 1 else { throw TestFailure("cannot read") }
        byte[0] ^= 0x10
        guard pwrite(file, byte, 1, offset) == 1 else { throw TestFailure("cannot write") }
    }

    @Test("a store is whole while it is served, after a crash and after a clean end")
    func whole() throws {
        let (daemon, _) = try makeStore()
        let served = try check(daemon)
        #expect(served.code == 0, "\(served)")
        #expect(served.output.contains("a daemon serves the store"), "\(served)")
        try daemon.kill()
        let crashed = try check(daemon)
        #expect(crashed.code == 0, "\(crashed)")
        #expect(crashed.output.contains("2 VDIs, 1 snapshots"), "\(crashed)")
        try daemon.start()
        #expect(try daemon.terminate() == 0)
        let json = try check(daemon, "--json")
        #expect(json.code == 0)
        #expect(json.output.contains("\"severity\" : \"clean\""), "\(json)")
        let repair = try check(daemon, "--repair")
        #expect(repair.code == 0, "\(repair)")
    }

    @Test("a scrub that somebody else stops has not succeeded for who waits for it")
    func stoppedScrub() throws {
        let (daemon, _) = try makeStore()
        let words = [
            Programs.control, "--socket", daemon.controlSocket, "store", "scrub", "--rate", "64K",
        ]
        let waiting = BackgroundThread {
            let outcome = try Command.run(words)
            guard outcome.code == 1, outcome.errors.contains("stopped before its end") else {
                throw TestFailure("\(outcome)")
            }
        }
        while try daemon.status().scrub?.state != .running, !waiting.isFinished {
            waiting.breathe()
        }
        try daemon.ctl("store", "scrub", "--stop")
        try waiting.join()
    }

    @Test("damaged data are listed with all who have them, and a repair leaves errors, not zeros")
    func damagedData() throws {
        let (daemon, uri) = try makeStore()
        #expect(try daemon.terminate() == 0)
        try damage(daemon, blockOf: 0xA5)
        let found = try check(daemon)
        #expect(found.code == 3, "\(found)")
        for name in ["web ", "web@mon ", "copy "] {
            #expect(found.output.contains("\n\(name)"), "\(found)")
        }
        #expect(try check(daemon, "--no-data").code == 0)
        let refused = try check(daemon, "--repair")
        #expect(refused.code == 1 && refused.errors.contains("--yes"), "\(refused)")
        #expect(refused.output.isEmpty && refused.errors.contains("not repaired"), "\(refused)")
        #expect(try check(daemon, "--repair", "--yes").code == 3)
        #expect(try check(daemon).code == 3)
        try daemon.start()
        let read = try Command.run(["qemu-io", "-f", "raw", "-c", "read -P 0xA5 0 1M", uri])
        #expect(read.text.contains("Input/output error"), "\(read)")
        try io(uri, "read -P 0x11 8M 64k", "read -P 0x5A 8256k 960k")
        // What is written again is well again.
        try io(uri, "write -P 0xA5 0 1M", "read -P 0xA5 0 1M")
        #expect(try daemon.terminate() == 0)
    }

    @Test("what is there twice is repaired without loss; a daemon keeps a repair out")
    func repairable() throws {
        let (daemon, uri) = try makeStore()
        let refused = try check(daemon, "--repair", "--yes")
        #expect(refused.code == 1, "\(refused)")
        #expect(refused.errors.contains("is using it"), "\(refused)")
        #expect(try daemon.terminate() == 0)
        // A superblock, and a checkpoint root of the first shard.
        for offset: off_t in [17, (64 << 10) + 50] { try flip(daemon, at: offset) }
        let found = try check(daemon)
        #expect(found.code == 2, "\(found)")
        let repaired = try check(daemon, "--repair", "--yes")
        #expect(repaired.code == 0, "\(repaired)")
        #expect(try check(daemon).code == 0)
        try daemon.start()
        try io(uri, "read -P 0xA5 0 1M", "read -P 0x11 8M 64k")
        #expect(try daemon.terminate() == 0)
    }

    @Test("a scrub finds damage while guests go on, and goes on after a crash of the daemon")
    func scrub() throws {
        let (daemon, uri) = try makeStore()
        let clean = try daemon.run("store", "scrub", "--rate", "256M")
        #expect(clean.code == 0, "\(clean)")
        #expect(clean.output.contains("finished"), "\(clean)")
        #expect(try daemon.terminate() == 0)
        try damage(daemon, blockOf: 0xA5)
        try daemon.start()
        // So slow that it is not done when the daemon dies.
        try daemon.ctl("store", "scrub", "--rate", "64K", "--no-wait", "--restart")
        let begun = try daemon.status()
        #expect(begun.scrub?.state == .running)
        try daemon.kill()
        try daemon.start()
        let resumed = try daemon.status()
        #expect(resumed.scrub?.state == .running)
        try io(uri, "write -P 0x77 32M 1M", "read -P 0x77 32M 1M")
        try daemon.ctl("store", "scrub", "--stop")
        let paused = try daemon.status()
        #expect(paused.scrub?.state == .paused)
        let found = try daemon.run("store", "scrub", "--rate", "256M")
        #expect(found.code == 3, "\(found)")
        // What is met again after an interruption is counted again.
        #expect(
            found.output.contains("1 damaged blocks") || found.output.contains("2 damaged blocks"))
        for name in ["web", "web@mon", "copy"] { #expect(daemon.log.contains(name)) }
        #expect(daemon.log.contains("the scrub has found damage: block"), "\(daemon.log)")
        #expect(try daemon.terminate() == 0)
    }
}
