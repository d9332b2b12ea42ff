// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxGuest
import Testing

extension BlockDriver {
    /// As many requests of 128 KiB as the queue takes, all at once; nobody waits for them.
    mutating func flood(_ operation: BlockOperation) {
        while let slot = reserve(queue: 0) {
            submit(
                queue: 0, slot: slot, operation, firstSector: UInt64(slot % 8) * 256,
                byteCount: 128 << 10, tag: 0)
        }
        publish(queue: 0)
    }
}

/// A daemon with a disk `good` that has requests in flight, and a disk `bad` to attack.
struct HostileScene: ~Copyable {
    let daemon: DaemonHarness
    let badSocket: String
    private var disk: BlockDriver
    private var load: VerifiedLoad
    private let openFilesBefore: Int

    private init(
        _ daemon: DaemonHarness, badSocket: String, disk: consuming BlockDriver, load: VerifiedLoad,
        openFilesBefore: Int
    ) {
        self.daemon = daemon
        self.badSocket = badSocket
        self.disk = disk
        self.load = load
        self.openFilesBefore = openFilesBefore
    }

    static func make() throws -> HostileScene {
        var options = DaemonHarness.Options()
        // One shard, so that both disks share one thread.
        options.shards = 1
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let badSocket = try daemon.createVhost("bad", size: "1M")
        let socket = try daemon.createVhost("good", size: "8M")
        var load = VerifiedLoad(seed: 10, sectorCount: (8 << 20) / 512)
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try load.run(&disk, completions: 20)
        let openFiles = try openFiles(daemon)
        return HostileScene(
            daemon, badSocket: badSocket, disk: disk, load: load, openFilesBefore: openFiles)
    }

    /// Carries out one attack with the good disk's queue full before and answered after.
    mutating func attack(_ attack: () throws -> Void) throws {
        try load.run(&disk, completions: 10)
        try attack()
        try load.run(&disk, completions: 10)
    }

    /// The good disk is right, the bad one works again, and no descriptor was left open.
    mutating func finish() throws {
        try load.drain(&disk)
        try load.verify(&disk)
        do {
            var bad = try BlockDriver(connectingTo: badSocket, options: patientOptions())
            try bad.writeBlocking(sector: 0, [UInt8](repeating: 1, count: 512))
            try bad.stop()
        }
        try daemon.ctl("detach", "bad")
        // The listener of the bad disk is gone; nothing else may have been added.
        #expect(try Self.openFiles(daemon) <= openFilesBefore - 1)
        #expect(try daemon.terminate() == 0)
    }

    private static func openFiles(_ daemon: DaemonHarness) throws -> Int {
        let folder = opendir("/proc/\(daemon.process?.processID ?? 0)/fd")
        guard let folder else { throw TestFailure("the daemon has gone") }
        defer { closedir(folder) }
        var count = 0
        while readdir(folder) != nil { count += 1 }
        return count
    }
}
