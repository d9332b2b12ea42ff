// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxCore
import ParallaxGuest
import Testing

extension DaemonHarness {
    /// Until every shard has stopped writing since the store is another's.
    func waitUntilFenced() throws {
        let start = ContinuousClock.now
        while true {
            let reasons = try status().shards.map(\.readOnlyReason)
            let words = "another program has written to the store \(store)"
            if reasons.allSatisfy({ $0?.contains(words) == true }) { return }
            guard ContinuousClock.now - start < .seconds(ChildProcess.patienceSeconds) else {
                throw TestFailure("the daemon goes on: \(reasons)\n\(log)")
            }
            usleep(20_000)
        }
    }
}

/// A store that somebody else writes to, whom our locks do not keep out.
@Suite struct OwnershipTests {
    /// What another host's opening does to the superblock.
    private func raiseGeneration(_ daemon: DaemonHarness) throws {
        let head = try daemon.storeHead()
        for offset in Superblock.copyOffsets {
            var block = Array(head[Int(offset)..<Int(offset) + blockBytes])
            var superblock = try block.withUnsafeBytes {
                try Superblock.decode(from: try #require($0.baseAddress))
            }
            superblock.generation += 1
            block.withUnsafeMutableBytes { bytes in
                if let base = bytes.baseAddress { superblock.encode(to: base) }
            }
            try daemon.patchStore(at: Int(offset), block)
        }
    }

    @Test(
        "a daemon whose store another has opened says so, writes no further root, and goes on reading",
        arguments: bothEngines)
    func fenced(engine: String) throws {
        var options = DaemonHarness.Options()
        options.engine = engine
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "16M")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let piece = [UInt8](repeating: 7, count: 64 << 10)
        try disk.writeBlocking(sector: 0, piece)
        // A growth writes the superblock too, and is nobody else's.
        try daemon.ctl("store", "grow", "320M")
        try disk.writeBlocking(sector: 128, piece)
        try disk.flush()
        #expect(try daemon.status().shards.allSatisfy { $0.readOnlyReason == nil })

        try raiseGeneration(daemon)
        try daemon.waitUntilFenced()
        let before = try daemon.storeHead()
        let refused = try disk.performForStatus(.write, firstSector: 0, byteCount: 4096)
        #expect(refused.status == BlockStatusByte.ioError)
        let isThere = try disk.readBlocking(sector: 128, byteCount: piece.count) == piece
        #expect(isThere)
        let grown = try daemon.run("store", "grow", "400M")
        #expect(grown.code == 1, "\(grown)")
        #expect(grown.errors.contains("not grown: another program has written"), "\(grown)")
        let made = try daemon.run("vdi", "create", "other", "--size", "1M")
        #expect(made.code == 1, "\(made)")
        let lines = daemon.log.split(separator: "\n").filter {
            $0.contains("another program has written to the store \(daemon.store)")
        }
        #expect(lines.count == options.shards, "\(daemon.log)")
        #expect(try daemon.terminate() == 0)
        // The end would have written a checkpoint.
        let isUnchanged = try daemon.storeHead() == before
        #expect(isUnchanged)
    }

    @Test("a growth under the watch's eyes leaves the shards writing")
    func growths() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("disk", size: "16M")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        for number in 1...20 {
            // Each looks at the superblock itself, before it writes.
            try daemon.ctl("store", "grow", "\(256 + 4 * number)M")
            try disk.writeBlocking(
                sector: UInt64(number) * 8, [UInt8](repeating: UInt8(number), count: 4096))
        }
        try disk.flush()
        #expect(try daemon.status().shards.allSatisfy { $0.readOnlyReason == nil })
        try daemon.restart()
        #expect(try daemon.status().shards.allSatisfy { $0.readOnlyReason == nil })
        #expect(try daemon.terminate() == 0)
    }
}
