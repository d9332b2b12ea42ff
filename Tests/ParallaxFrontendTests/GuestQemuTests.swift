// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxGuest
import Testing

/// The driver against a device that is not ours. Skipped where qemu-storage-daemon is missing.
@Suite(.enabled(if: QemuStorageDaemon.isInstalled, "needs qemu-storage-daemon"), .serialized)
struct GuestQemuTests {
    private static let diskBytes = 8 << 20

    private func options(
        without features: VirtioFeatures = [],
        withoutProtocol: VhostUserProtocolFeatures = []
    ) -> BlockDriverOptions {
        var options = BlockDriverOptions()
        options.features.subtract(features)
        options.protocolFeatures.subtract(withoutProtocol)
        options.requestsPerQueue = 8
        options.bufferBytes = 32 << 10
        options.dataSegmentBytes = 8 << 10
        return options
    }

    private func pattern(_ count: Int, seed: UInt8) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) &+ seed }
    }

    @Test(
        "data survives the round trip under every choice of ring features",
        arguments: [
            [], [.eventIndex], [.indirectDescriptors], [.eventIndex, .indirectDescriptors],
        ] as [VirtioFeatures])
    func roundTrip(without: VirtioFeatures) throws {
        let daemon = try QemuStorageDaemon(diskBytes: Self.diskBytes)
        var disk = try BlockDriver(
            connectingTo: daemon.socketPath, options: options(without: without))
        let features = disk.features
        #expect(features.isDisjoint(with: without))
        let bytes = pattern(100 << 10, seed: 5)
        try disk.writeBlocking(sector: 3, bytes)
        try disk.flush()
        let back = try disk.readBlocking(sector: 3, byteCount: bytes.count)
        #expect(back == bytes)
        try disk.writeZeroes(sector: 8, sectorCount: 8)
        try disk.discard(sector: 1024, sectorCount: 128)
        let zeroes = try disk.readBlocking(sector: 8, byteCount: 4096)
        #expect(zeroes == [UInt8](repeating: 0, count: 4096))
        let identifier = try disk.identifier()
        #expect(!identifier.isEmpty)
        try disk.stop()
    }

    @Test(
        "a session works without each of the optional protocol features",
        arguments: [.replyAcknowledge, .configureMemorySlots, [.replyAcknowledge, .multiQueue]]
            as [VhostUserProtocolFeatures])
    func protocolFeatures(without: VhostUserProtocolFeatures) throws {
        let daemon = try QemuStorageDaemon(diskBytes: Self.diskBytes)
        var disk = try BlockDriver(
            connectingTo: daemon.socketPath, options: options(withoutProtocol: without))
        let agreed = disk.protocolFeatures
        #expect(agreed.isDisjoint(with: without))
        let bytes = pattern(4096, seed: 1)
        try disk.writeBlocking(sector: 0, bytes)
        let back = try disk.readBlocking(sector: 0, byteCount: 4096)
        #expect(back == bytes)
    }

    @Test("the configuration says what the disk is")
    func config() throws {
        let daemon = try QemuStorageDaemon(diskBytes: Self.diskBytes, queueCount: 3)
        let disk = try BlockDriver(connectingTo: daemon.socketPath, options: options())
        let config = disk.config
        #expect(config.capacityBytes == UInt64(Self.diskBytes))
        #expect(config.dataSegmentCountMax > 0)
        #expect(config.queueCount == 3)
        let peer = disk.connection.peerProcess
        #expect(peer == daemon.pid)
    }

    @Test("several queues work at once, each completion in its own")
    func queues() throws {
        let daemon = try QemuStorageDaemon(diskBytes: Self.diskBytes, queueCount: 3)
        var wanted = options()
        wanted.queueCount = 3
        var disk = try BlockDriver(connectingTo: daemon.socketPath, options: wanted)
        for queue in 0..<3 {
            while let slot = disk.reserve(queue: queue) {
                let buffer = disk.buffer(queue: queue, slot: slot)
                buffer.initializeMemory(as: UInt8.self, repeating: UInt8(queue * 16 + slot))
                disk.submit(
                    queue: queue, slot: slot, .write,
                    firstSector: UInt64(queue * 64 + slot) * 8, byteCount: 4096,
                    tag: UInt64(queue * 64 + slot))
            }
            disk.publish(queue: queue)
        }
        var tags: Set<UInt64> = []
        for queue in 0..<3 {
            for _ in 0..<8 {
                let completion = try disk.awaitCompletion(queue: queue)
                #expect(completion.status == BlockStatusByte.ok)
                #expect(completion.tag / 64 == UInt64(queue))
                tags.insert(completion.tag)
            }
        }
        #expect(tags.count == 24)
        for queue in 0..<3 {
            let bytes = try disk.readBlocking(
                sector: UInt64(queue * 64 + 7) * 8, byteCount: 4096, queue: 2 - queue)
            #expect(bytes == [UInt8](repeating: UInt8(queue * 16 + 7), count: 4096))
        }
    }

    @Test("more queues than there are is refused with the number that there are")
    func tooManyQueues() throws {
        let daemon = try QemuStorageDaemon(diskBytes: Self.diskBytes, queueCount: 2)
        var wanted = options()
        wanted.queueCount = 3
        do throws(GuestError) {
            _ = try BlockDriver(connectingTo: daemon.socketPath, options: wanted)
            Issue.record("three queues were accepted")
        } catch {
            #expect(error.kind == .unsupported)
            #expect(error.message.contains("has 2 queues"))
        }
    }

    @Test("a request past the end ends with its status, and the next one works")
    func pastTheEnd() throws {
        let daemon = try QemuStorageDaemon(diskBytes: Self.diskBytes)
        var disk = try BlockDriver(connectingTo: daemon.socketPath, options: options())
        let last = UInt64(Self.diskBytes / 512)
        do throws(GuestError) {
            _ = try disk.readBlocking(sector: last, byteCount: 512)
            Issue.record("a sector past the end was read")
        } catch {
            #expect(error.kind == .requestFailed(BlockStatusByte.ioError))
        }
        let bytes = try disk.readBlocking(sector: last - 1, byteCount: 512)
        #expect(bytes.count == 512)
        let unknown = try disk.performForStatus(
            BlockOperation(rawValue: 999), firstSector: 0, byteCount: 512)
        #expect(unknown.status == BlockStatusByte.unsupported)
    }

    @Test("the device's death is an error, not a hang")
    func death() throws {
        let daemon = try QemuStorageDaemon(diskBytes: Self.diskBytes)
        var disk = try BlockDriver(connectingTo: daemon.socketPath, options: options())
        try disk.writeBlocking(sector: 0, [UInt8](repeating: 1, count: 512))
        kill(daemon.pid, SIGKILL)
        do throws(GuestError) {
            while true { try disk.flush() }
        } catch {
            #expect(error.kind == .deviceGone)
        }
    }
}
