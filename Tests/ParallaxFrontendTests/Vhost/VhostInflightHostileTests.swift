// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxSimulation
import ParallaxVhost
import Testing

/// The front end has the area in its own memory, so it can hold anything, and change at any time.
@Suite("vhost-user in-flight area, hostile")
struct VhostInflightHostileTests {
    private func ready() throws -> (VhostFixture, KeptArea) {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        return (fixture, try #require(KeptArea(fixture.frontEnd)))
    }

    @Test("an area for queues that no device has is refused")
    func impossibleSizes() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate()
        for (queues, size) in [(0, 128), (17, 128), (65535, 128), (1, 0), (1, 100), (1, 2048)] {
            let asked = KeptArea.description(
                0, queues: UInt16(queues), size: UInt16(size))
            #expect(front.acknowledge(.getInflightArea, asked) == 1)
            #expect(front.acknowledge(.setInflightArea, asked, files: [front.memoryFile]) == 1)
        }
        for count in [0, 19, 25] {
            front.send(.getInflightArea, [UInt8](repeating: 0, count: count))
            #expect(front.isDisconnected)
            front.reconnect(to: fixture.rig, path: fixture.path)
            front.negotiate()
        }
    }

    @Test("a file that does not hold the area is refused")
    func wrongFiles() throws {
        let (fixture, area) = try ready()
        let front = fixture.frontEnd
        let needed = UInt64(area.layout.byteCount)
        func give(_ byteCount: UInt64, _ offset: UInt64, _ file: Int32) -> UInt64? {
            front.acknowledge(
                .setInflightArea,
                KeptArea.description(byteCount, offset: offset, queues: 1, size: 128),
                files: [file])
        }
        let short = parallax_memfd_create("short", 64)
        let large = parallax_memfd_create("large", 1 << 20)
        let event = parallax_eventfd_create(0, 1)
        defer { for number in [short, large, event] { close(number) } }
        #expect(give(needed, 0, short) == 1)
        #expect(give(64, 0, large) == 1)
        #expect(give(needed, 64, large) == 1)
        #expect(give(needed, .max - 4095, large) == 1)
        #expect(give(.max, 4096, large) == 1)
        #expect(give(needed, 1 << 20, large) == 1)
        #expect(give(needed, 0, event) == 1)
        #expect(give(needed, 4096, large) == 0)
        // Another back end's area ends with the queues.
        #expect(give(UInt64(area.layout.queuesByteCount), 0, large) == 0)
    }

    @Test("an area cannot be changed while a queue runs")
    func busy() throws {
        let (fixture, area) = try ready()
        #expect(area.give(fixture.frontEnd) == 0)
        let queue = PretendedQueue(fixture.frontEnd)
        queue.start()
        #expect(area.give(fixture.frontEnd) == 1)
        _ = queue.stop()
        #expect(area.give(fixture.frontEnd) == 0)
    }

    @Test("a queue that the area was not made for does not run", arguments: 0...3)
    func mismatch(kind: Int) throws {
        let (fixture, area) = try ready()
        if kind == 0 { area.version = 2 }
        if kind == 1 {
            area.version = 1  // With no entries.
        }
        #expect(area.give(fixture.frontEnd) == 0)
        let queue = PretendedQueue(
            fixture.frontEnd, kind == 2 ? 1 : 0, size: kind == 3 ? 256 : 128)
        queue.start()
        let request = queue.add(VhostRequestTests.write, write: VhostFixture.pattern(512))
        queue.run()
        #expect(queue.takeErrors() == 1)
        #expect(queue.status(request) == 0xff)
        #expect(fixture.rig.seen.isEmpty)
        // GET_VRING_BASE and an area that fits repair it.
        _ = queue.stop()
        let other = try #require(KeptArea(fixture.frontEnd, queues: 2, size: 256))
        #expect(other.give(fixture.frontEnd) == 0)
        queue.start()
        queue.run()
        #expect(fixture.rig.counters.brokenQueues == 1)
    }

    @Test("an area that is cut while it is in use ends the connection, not the daemon")
    func cut() throws {
        let (fixture, area) = try ready()
        let file = parallax_memfd_create("cut", Int64(area.layout.byteCount))
        defer { close(file) }
        #expect(
            fixture.frontEnd.acknowledge(.setInflightArea, area.description, files: [file]) == 0)
        let queue = PretendedQueue(fixture.frontEnd)
        queue.start()
        #expect(ftruncate(file, 0) == 0)
        _ = queue.add(VhostRequestTests.write, write: VhostFixture.pattern(512))
        queue.run()
        #expect(!fixture.rig.isConnected)
        #expect(fixture.frontEnd.becomesDisconnected)
        fixture.frontEnd.reconnect(to: fixture.rig, path: fixture.path)
        #expect(fixture.rig.isConnected)
    }

    @Test("any content leaves a device that works", arguments: 1...16)
    func content(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let fixture = try VhostFixture(queueCapacity: 64)
        fixture.rig.isRecording = false
        let front = fixture.frontEnd
        front.negotiate()
        let area = try #require(KeptArea(front, size: 16))
        for _ in 0..<60 {
            scramble(area, &random)
            #expect(area.giveWhatever(front))
            let queue = PretendedQueue(front, size: 16)
            queue.start(at: UInt16(truncatingIfNeeded: random.next()))
            for _ in 0..<random.integer(in: 1...4) {
                fixture.rig.isHolding = random.chance(percent: 40)
                _ = queue.add(
                    VhostRequestTests.write, sector: random.next() % 64,
                    write: VhostFixture.pattern(512), isIndirect: true)
                if random.oneIn(3) { scramble(area, &random) }
                queue.run()
                if random.oneIn(3) { fixture.rig.release() }
            }
            fixture.rig.isHolding = false
            fixture.rig.release()
            fixture.rig.settle()
            #expect(queue.stop() != nil)
            front.freeAll()
        }
        // A clean one.
        area.bytes.initializeMemory(as: UInt8.self, repeating: 0)
        #expect(area.give(front) == 0)
        let queue = PretendedQueue(front, size: 16)
        queue.start()
        let request = queue.add(
            VhostRequestTests.write, sector: 3, write: VhostFixture.pattern(512))
        queue.run()
        #expect(queue.status(request) == 0)
        #expect(fixture.holds(VhostFixture.pattern(512), atSector: 3))
    }

    /// Mostly an area that looks right, with nonsense in some of its fields.
    private func scramble(_ area: KeptArea, _ random: inout SeededRandom) {
        for _ in 0..<random.integer(in: 0...40) {
            let offset = random.integer(in: 0...(area.layout.byteCount - 1))
            area.bytes[offset] = UInt8(truncatingIfNeeded: random.next())
        }
        if random.oneIn(4) {
            area.disk = VhostDiskIdentity(
                store: VhostRig.identity.store, version: random.oneIn(2) ? 3 : random.next())
        }
        for head in 0..<UInt16(16) { area.mark(head, random.chance(percent: 30)) }
        if random.chance(percent: 80) {
            area.version = 1
            area.bytes.storeBytes(
                of: 16, toByteOffset: InflightLayout.entryCountOffset, as: UInt16.self)
        }
    }
}
