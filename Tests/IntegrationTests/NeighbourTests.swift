// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxGuest
import Synchronization
import Testing

/// What one guest does to itself, or takes for itself, is no concern of another on the same shard.
@Suite struct NeighbourTests {
    @Test(
        "guests that cut their memory under their requests hurt only themselves", arguments: 0...1)
    func cutting(writes: Int) throws {
        var scene = try HostileScene.make()
        let path = scene.badSocket
        for round in 0..<12 {
            try scene.attack {
                var bad = try BlockDriver(connectingTo: path, options: patientOptions())
                bad.flood(writes == 1 ? .write : .read)
                let file = bad.memory.fileDescriptor
                // All of it; or all but the rings, so that only the data are missing.
                let rings = off_t(bad.memory.regions[0].byteCount)
                #expect(ftruncate(file, round % 2 == 0 ? 0 : rings) == 0)
                try bad.withQueue(0) { (queue) throws(GuestError) in queue.kick() }
                // Answers to messages come after the kick was seen.
                do {
                    for _ in 0..<2 { _ = try bad.connection.askNumber(.getFeatures) }
                } catch let error as GuestError where error.kind == .deviceGone {
                    return
                }
            }
        }
        try scene.finish()
    }

    @Test("guests that always have more requests than the engine takes do not starve another")
    func hogs() throws {
        var options = DaemonHarness.Options()
        options.shards = 1
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let isOver = Atomic(false)
        let started = Atomic(0)
        let count = 9
        let hogs = try (0..<count).map { number in
            let socket = try daemon.createVhost("hog-\(number)", size: "1M")
            return BackgroundThread {
                var options = patientOptions()
                options.queueCount = 2
                options.queueSize = 256
                options.requestsPerQueue = 256
                options.bufferBytes = 4096
                var disk = try BlockDriver(connectingTo: socket, options: options)
                started.add(1, ordering: .relaxed)
                while !isOver.load(ordering: .relaxed) {
                    for queue in 0..<2 {
                        while let slot = disk.reserve(queue: queue) {
                            disk.submit(
                                queue: queue, slot: slot, .read,
                                firstSector: UInt64(slot % 256) * 8,
                                byteCount: 4096, tag: 0)
                        }
                        disk.publish(queue: queue)
                        while try disk.reap(queue: queue) != nil {}
                    }
                    _ = try disk.wait(timeoutMilliseconds: 1000)
                }
                try disk.stop()
            }
        }
        while started.load(ordering: .relaxed) < count { hogs[0].breathe() }
        // The last session of the shard.
        let socket = try daemon.createVhost("guest", size: "1M")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        for number in 0..<100 {
            let bytes = [UInt8](repeating: UInt8(number), count: 4096)
            try disk.writeBlocking(sector: UInt64(number), bytes)
            let read = try disk.readBlocking(sector: UInt64(number), byteCount: 4096)
            #expect(read == bytes)
        }
        isOver.store(true, ordering: .relaxed)
        for hog in hogs { try hog.join() }
    }
}
