// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxCore
import ParallaxGuest
import Testing

/// Stores that are none, or not whole: each gets one clear sentence, and is left as it is.
@Suite struct BadStoreTests {
    private static let copyOffsets = [0, (1 << 20) - 4096]

    /// Changes bytes of a superblock copy and makes its checksum right again.
    private func patchSuperblock(
        _ daemon: DaemonHarness, copy: Int, at offset: Int, _ patch: [UInt8]
    ) throws {
        let base = Self.copyOffsets[copy]
        var block = Array(try daemon.storeHead()[base..<base + 4096])
        block.replaceSubrange(offset..<offset + patch.count, with: patch)
        let checksum = block[..<4092].withUnsafeBytes { Checksum.crc32c($0) }
        block.replaceSubrange(
            4092..<4096, with: (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (8 * $0)) })
        try daemon.patchStore(at: base, block)
    }

    /// The daemon must refuse, say `words`, name the store, and have changed nothing.
    private func expectRefusal(_ daemon: DaemonHarness, _ words: String) throws {
        let before = try daemon.storeHead()
        let outcome = try daemon.refusal()
        #expect(outcome.code == 1, "\(outcome)")
        #expect(outcome.errors.contains(words), "\(outcome)")
        #expect(outcome.errors.contains(daemon.store), "\(outcome)")
        #expect(!exists(daemon.controlSocket) && !exists(daemon.nbdSocket))
        let isUnchanged = try daemon.storeHead() == before
        #expect(isUnchanged)
    }

    @Test("what is no store is refused")
    func noStore() throws {
        let daemon = try DaemonHarness(makesStore: false)
        let missing = try daemon.refusal()
        #expect(missing.code == 1, "\(missing)")
        #expect(missing.errors.contains("does not exist"), "\(missing)")
        mkdir(daemon.store, 0o700)
        let directory = try daemon.refusal()
        #expect(directory.code == 1, "\(directory)")
        #expect(directory.errors.contains("neither a file nor a block device"), "\(directory)")
        rmdir(daemon.store)
        try writeFile(daemon.store, Array("hello\n".utf8))
        let text = try daemon.refusal()
        #expect(text.code == 1, "\(text)")
        #expect(text.errors.contains("no Parallax store"), "\(text)")
        try writeFile(daemon.store, (0..<4 << 20).map { UInt8(truncatingIfNeeded: $0 &* 7) })
        try expectRefusal(daemon, "no Parallax store")
        // Nothing but a hole.
        #expect(truncate(daemon.store, 0) == 0)
        #expect(truncate(daemon.store, 1 << 30) == 0)
        try expectRefusal(daemon, "no Parallax store")
    }

    @Test("a store of a newer version is refused as newer, and not as damaged", arguments: [0, 1])
    func otherVersion(copy: Int) throws {
        let daemon = try DaemonHarness()
        // The other copy may still be old: the upgrade was cut off between the two.
        try patchSuperblock(daemon, copy: copy, at: 8, [99, 0, 0, 0])
        try expectRefusal(daemon, "newer program")
        try patchSuperblock(daemon, copy: 1 - copy, at: 8, [99, 0, 0, 0])
        try expectRefusal(daemon, "newer program")
    }

    @Test("a store of the first version is refused with a way out")
    func firstVersion() throws {
        let daemon = try DaemonHarness()
        for copy in 0...1 { try patchSuperblock(daemon, copy: copy, at: 8, [1, 0, 0, 0]) }
        try expectRefusal(daemon, "copy its disks out with the program that made it")
    }

    @Test(
        "a store with a feature that we do not know is refused; one that may be ignored is not")
    func features() throws {
        let daemon = try DaemonHarness()
        for copy in 0...1 { try patchSuperblock(daemon, copy: copy, at: 32, [1]) }
        try daemon.start()
        #expect(try daemon.terminate() == 0)
        for copy in 0...1 { try patchSuperblock(daemon, copy: copy, at: 16, [0, 0x80]) }
        try expectRefusal(daemon, "newer program")
    }

    @Test("a store that was cut off is refused")
    func truncated() throws {
        let daemon = try DaemonHarness()
        #expect(truncate(daemon.store, 100 << 20) == 0)
        try expectRefusal(daemon, "cut off")
    }

    @Test("one damaged superblock is repaired from the other, aloud and once", arguments: [0, 1])
    func oneDamagedCopy(copy: Int) throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.ctl("vdi", "create", "kept", "--size", "1M")
        #expect(try daemon.terminate() == 0)
        try daemon.patchStore(
            at: Self.copyOffsets[copy] + 100, [UInt8](repeating: 0xAA, count: 64))
        try daemon.start()
        let notice = "Superblock copy \(copy) was damaged and is repaired from copy \(1 - copy)."
        #expect(daemon.log.contains(notice), "\(daemon.log)")
        #expect(try daemon.client.vdis().map(\.name) == ["kept"])
        try daemon.restart()
        #expect(daemon.log.ranges(of: notice).count == 1, "\(daemon.log)")
    }

    @Test("two damaged superblocks are refused")
    func bothDamaged() throws {
        let daemon = try DaemonHarness()
        for offset in Self.copyOffsets { try daemon.patchStore(at: offset + 2000, [1]) }
        try expectRefusal(daemon, "damaged")
    }

    @Test("a damaged checkpoint root falls back to the other one; two are refused")
    func checkpointRoots() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "4M")
        var load = VerifiedLoad(seed: 7, sectorCount: (4 << 20) / 512)
        for _ in 0..<2 {
            do {
                var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
                try load.run(&disk, completions: 50)
                try load.drain(&disk)
            }
            // Each clean end writes one of the two roots.
            try daemon.restart()
        }
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.verify(&disk)
        let shard = try daemon.client.vdi("disk").shard
        #expect(try daemon.terminate() == 0)
        let offset = Superblock.checkpointRootOffsets(stream: shard, copy: 0)[0]
        try daemon.patchStore(at: Int(offset) + 50, [0xFF, 0xFE])
        try daemon.start()
        let kept = try daemon.client.vdis().map(\.name)
        #expect(kept == ["disk"])
        #expect(try daemon.terminate() == 0)
        for copy in 0...1 {
            for offset in Superblock.checkpointRootOffsets(stream: shard, copy: copy) {
                try daemon.patchStore(at: Int(offset) + 50, [0xFD, 0xFC])
            }
        }
        let outcome = try daemon.refusal()
        #expect(outcome.code == 1, "\(outcome)")
        #expect(outcome.errors.contains("no checkpoint of shard \(shard)"), "\(outcome)")
    }

    @Test("a block that rots is an error of who reads it, and of nobody else")
    func rot() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "1M")
        // Each block can be found in the store by its first bytes.
        let block = { (number: UInt8) in
            Array("rot-test-block".utf8) + [number] + [UInt8](repeating: 0xC3, count: 4081)
        }
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            for number in 0..<16 {
                try disk.writeBlocking(sector: UInt64(number) * 8, block(UInt8(number)))
            }
        }
        #expect(try daemon.terminate() == 0)
        let copies = try find(daemon, Array(block(9).prefix(15)))
        #expect(!copies.isEmpty)
        for offset in copies { try daemon.patchStore(at: offset + 4000, [0xC2]) }
        try daemon.start()
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        for number in 0..<16 {
            let done = try disk.performForStatus(
                .read, firstSector: UInt64(number) * 8, byteCount: 4096)
            let isRotten = number == 9
            #expect(
                done.status == (isRotten ? BlockStatusByte.ioError : BlockStatusByte.ok),
                "block \(number)")
        }
        #expect(try daemon.status().shards.map(\.checksumErrors).reduce(0, +) > 0)
        #expect(daemon.log.contains("checksum"), "\(daemon.log)")
        // Writing it anew heals it.
        try disk.writeBlocking(sector: 72, block(9))
        #expect(try disk.readBlocking(sector: 72, byteCount: 4096) == block(9))
        #expect(try daemon.terminate() == 0)
    }

    /// Offsets of the blocks of the store that begin with `start`.
    private func find(_ daemon: DaemonHarness, _ start: [UInt8]) throws -> [Int] {
        let file = open(daemon.store, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw TestFailure("cannot open \(daemon.store)") }
        defer { close(file) }
        var offsets: [Int] = []
        var piece = [UInt8](repeating: 0, count: start.count)
        var offset = 0
        while pread(file, &piece, piece.count, off_t(offset)) == piece.count {
            if piece == start { offsets.append(offset) }
            offset += 4096
        }
        return offsets
    }

    @Test("a store that exists is formatted only with --force, and bad sizes make none")
    func formatting() throws {
        let daemon = try DaemonHarness()
        let before = try daemon.storeHead()
        let again = try daemon.run("store", "init", daemon.store, "--size", "256M")
        #expect(again.code == 1 && again.errors.contains("--force"), "\(again)")
        let isUnchanged = try daemon.storeHead() == before
        #expect(isUnchanged)
        let small = daemon.directory.file("small")
        for size in [["--size", "1M"], ["--size", "3M", "--extent-size", "1M"], []] {
            let outcome = try daemon.run(["store", "init", small] + size)
            #expect(outcome.code == 1, "\(size): \(outcome)")
            #expect(outcome.errors.filter(\.isNewline).count == 1, "\(size): \(outcome)")
            #expect(!exists(small), "\(size)")
        }
        let nowhere = try daemon.run("store", "init", "/nonexistent/store", "--size", "1G")
        #expect(nowhere.code == 1 && nowhere.errors.contains("directory"), "\(nowhere)")
    }
}
