// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// A small file system for a store that may become larger than it.
private final class TinyFileSystem {
    let path: String

    /// Nil where nobody lets us mount one, or it has no direct I/O (a tmpfs has since Linux 6.6).
    init?(at path: String, size: String) {
        guard mkdir(path, 0o700) == 0,
            let mounted = try? Command.run([
                "mount", "-t", "tmpfs", "-o", "size=\(size)", "tmpfs", path,
            ]), mounted.succeeded
        else { return nil }
        self.path = path
        let file = open(path + "/try", O_CREAT | O_RDWR | PARALLAX_O_DIRECT, 0o600)
        guard file >= 0 else { return nil }
        close(file)
        unlink(path + "/try")
    }

    deinit { _ = try? Command.run(["umount", "--lazy", path]) }

    static let isAvailable: Bool = {
        guard let directory = try? TemporaryDirectory() else { return false }
        return TinyFileSystem(at: directory.file("tiny"), size: "1M") != nil
    }()
}

@Suite(
    "A store on a full file system",
    .enabled(
        if: TinyFileSystem.isAvailable, "needs the right to mount a tmpfs with direct I/O"))
struct FullHostTests {
    @Test("writes are told that there is no space, reads go on, and what is deleted makes room")
    func full() throws {
        let daemon = try DaemonHarness(makesStore: false)
        let host = try #require(TinyFileSystem(at: daemon.directory.file("tiny"), size: "48M"))
        try Command.succeed([
            Programs.control, "store", "init", host.path + "/store", "--size", "256M",
            "--extent-size", "1M", "--shards", "1",
        ])
        try #require(symlink(host.path + "/store", daemon.store) == 0)
        try daemon.start()
        let piece = [UInt8](repeating: 7, count: 128 << 10)
        do {
            let socket = try daemon.createVhost("old", size: "1G")
            var old = try BlockDriver(connectingTo: socket, options: patientOptions())
            for number in 0..<128 { try old.writeBlocking(sector: UInt64(number) * 256, piece) }
        }
        try daemon.ctl("detach", "old")
        let socket = try daemon.createVhost("disk", size: "1G")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        var written = 0
        while written < 1024, try write(piece, written, to: &disk) { written += 1 }
        #expect(written > 32 && written < 256, "\(written) more pieces of 128 KiB fit into 48 MiB")
        let first = try disk.readBlocking(sector: 0, byteCount: piece.count)
        #expect(first == piece)
        // No write that waits keeps the administrator from making room.
        try daemon.ctl("vdi", "delete", "old")
        try daemon.ctl("store", "clean")
        var tries = 0
        while try !write(piece, written, to: &disk) {
            tries += 1
            try #require(tries < 10_000, "what was deleted has made no room")
        }
        try disk.flush()
        #expect(try daemon.status().shards.allSatisfy { $0.readOnlyReason == nil })
        #expect(try daemon.terminate() == 0)
    }

    /// False: there is no space.
    private func write(
        _ piece: [UInt8], _ number: Int, to disk: inout BlockDriver
    ) throws -> Bool {
        let done = try disk.performForStatus(
            .write, firstSector: UInt64(number) * 256, byteCount: piece.count
        ) { $0.copyBytes(from: piece) }
        return done.status == BlockStatusByte.ok
    }
}
