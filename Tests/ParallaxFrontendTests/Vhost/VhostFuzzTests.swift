// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxSimulation
import ParallaxVhost
import Testing

/// Seeded nonsense. The device may do anything but trap, hang, leak or touch what is not the
/// guest's; afterwards a new front end must be served.
@Suite("vhost-user fuzzing")
struct VhostFuzzTests {
    @Test("any bytes decode to a message or to a fault", arguments: 1...4)
    func decoding(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for _ in 0..<20_000 {
            let header = MessageHeader(
                request: UInt32(random.integer(in: 0...45)), flags: 1, payloadByteCount: 0)
            let count =
                random.oneIn(3)
                ? [0, 8, 40, 12, 264][random.index(below: 5)]
                : random.integer(in: 0...300)
            var payload = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            if random.chance(percent: 50), count >= 4 {
                payload.replaceSubrange(0..<4, with: UInt32(random.integer(in: 0...17)).bytes)
            }
            _ = try? FrontendMessage(
                decoding: header, payload: payload.span.bytes,
                fileDescriptorCount: random.integer(in: 0...8))
        }
    }

    @Test(
        "any stream of messages, with any descriptors, leaves a device that works",
        arguments: 1...12)
    func messageStreams(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let fixture = try VhostFixture()
        fixture.rig.isRecording = false
        var front = fixture.frontEnd
        var queue = PretendedQueue(front)
        for _ in 0..<400 {
            if !fixture.rig.isConnected || random.oneIn(60) {
                front.hangUp()
                fixture.rig.release()
                fixture.rig.settle()
                front = PretendedFrontEnd(fixture.rig, path: fixture.path)
                queue = PretendedQueue(front)
                if random.chance(percent: 70) { front.negotiate() }
                if random.chance(percent: 50) { queue.start() }
            }
            fixture.rig.isHolding = random.chance(percent: 30)
            if random.oneIn(4) { poke(queue, &random) }
            sendAny(front, queue, &random)
            if random.oneIn(3) { fixture.rig.release() }
            while front.receive() != nil {}
        }
        try expectService(fixture, front)
    }

    @Test("any ring, tables and chains leave a device that works", arguments: 1...12)
    func rings(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let fixture = try VhostFixture(queueCapacity: 32)
        fixture.rig.isRecording = false
        let queue = fixture.start(size: 16)
        for _ in 0..<600 {
            fixture.rig.isHolding = random.chance(percent: 30)
            poke(queue, &random)
            if random.oneIn(3) { fixture.rig.release() }
            guard random.oneIn(4) else { continue }
            fixture.rig.isHolding = false
            fixture.rig.release()
            _ = queue.stop()
            queue.nextDescriptor = 0
            queue.start(at: UInt16(truncatingIfNeeded: random.next()))
            fixture.frontEnd.freeAll()
        }
        fixture.rig.isHolding = false
        try expectService(fixture, fixture.frontEnd)
    }

    /// A likely request of a wrong shape, or an unlikely one.
    private func sendAny(
        _ front: PretendedFrontEnd, _ queue: PretendedQueue, _ random: inout SeededRandom
    ) {
        let request =
            random.oneIn(8)
            ? UInt32(random.integer(in: 0...45))
            : FrontendRequest.allCases[random.index(below: FrontendRequest.allCases.count)].rawValue
        let queueNumber = UInt32(random.oneIn(20) ? 17 : random.integer(in: 0...3))
        let number = [0, 1, 2, 16, 128, 1024, 4096, UInt32.max][random.index(below: 8)]
        let region = front.region(
            at: random.integer(in: 0...3) * 4096, byteCount: random.integer(in: 0...2048) * 4096)
        let payloads: [[UInt8]] = [
            [], UInt64(random.oneIn(2) ? 0x100 : 0).bytes, queueNumber.bytes + number.bytes,
            queue.addresses, UInt64(0).bytes + region.bytes,
            UInt32(1).bytes + UInt32(0).bytes + region.bytes,
            UInt32(32).bytes + UInt32(1).bytes + UInt32(0).bytes + [UInt8(number & 1)],
            VirtioFeatures.offered(readOnly: false).rawValue.bytes,
            // The guest's own memory, rings included, as the area.
            KeptArea.description(
                random.oneIn(4) ? random.next() : 1 << 20, offset: UInt64(number) & ~4095,
                queues: UInt16(random.integer(in: 1...3)), size: 128),
            (0..<random.integer(in: 0...64)).map { _ in UInt8(truncatingIfNeeded: random.next()) },
        ]
        let payload = payloads[random.index(below: payloads.count)]
        // Not the front end's own socket: a device that holds it would never see it closed.
        var files = [queue.kick, queue.call, front.memoryFile, front.deadSocket]
        // Seldom, as the sixteenth is the end.
        if random.oneIn(200) { files[3] = 0 }
        let count = random.weightedIndex([4, 8, 1, 1])
        let flags: UInt32 = random.oneIn(30) ? UInt32(random.integer(in: 0...15)) : 1 | 8
        var bytes = request.bytes + flags.bytes + UInt32(payload.count).bytes + payload
        if random.oneIn(40) { bytes.removeLast() }
        front.sendBytes(bytes, files: (0..<count).map { _ in files[random.index(below: 4)] })
    }

    /// A chain of likely and unlikely descriptors, shown in a likely or unlikely way.
    private func poke(_ queue: PretendedQueue, _ random: inout SeededRandom) {
        for position in 0..<random.integer(in: 0...6) {
            queue.setDescriptor(position, descriptor(queue, &random))
        }
        let table = queue.frontEnd.allocate(16 * 4)
        let kind = [0, 1, 4, 8, 11, 13, 2][random.index(below: 7)] as UInt32
        queue.frontEnd.store(
            kind.bytes + UInt32(0).bytes + UInt64(random.integer(in: 0...4)).bytes, at: table)
        queue.setDescriptor(0, Descriptor(address: table, byteCount: 16, flags: 1, next: 1))
        if random.oneIn(3) {
            let inner = (0..<4).flatMap { _ in descriptor(queue, &random).bytes }
            queue.frontEnd.store(inner, at: table)
            queue.setDescriptor(0, Descriptor(address: table, byteCount: 64, flags: 4))
        }
        queue.setAvailableEntry(UInt16(random.oneIn(10) ? random.integer(in: 0...40) : 0))
        if random.oneIn(20) { queue.nextAvailable = UInt16(truncatingIfNeeded: random.next()) }
        queue.setUsedEvent(UInt16(truncatingIfNeeded: random.next()))
        queue.run()
        if queue.frontEnd.isCrowded { queue.frontEnd.freeAll() }
    }

    private func descriptor(
        _ queue: PretendedQueue, _ random: inout SeededRandom
    ) -> Descriptor {
        let end = PretendedFrontEnd.guestBase + UInt64(PretendedFrontEnd.memoryBytes)
        let addresses = [queue.frontEnd.allocate(4096), end - 512, 0, .max, random.next()]
        let lengths = [0, 1, 16, 17, 511, 512, 513, 4096, UInt32.max]
        return Descriptor(
            address: addresses[random.weightedIndex([20, 2, 1, 1, 1])],
            byteCount: lengths[random.index(below: lengths.count)],
            flags: UInt16(
                [0, 1, 2, 3, 4, 5, 6, 7][random.weightedIndex([4, 8, 8, 12, 1, 1, 1, 1])]),
            next: UInt16(
                random.oneIn(20) ? random.integer(in: 0...65535) : random.integer(in: 0...5)))
    }

    private func expectService(_ fixture: VhostFixture, _ last: PretendedFrontEnd) throws {
        last.hangUp()
        fixture.rig.isHolding = false
        fixture.rig.release()
        fixture.rig.settle()
        #expect(fixture.rig.inFlight == 0)
        let front = PretendedFrontEnd(fixture.rig, path: fixture.path)
        front.negotiate()
        let queue = PretendedQueue(front)
        queue.start()
        let data = VhostFixture.pattern(1024)
        let write = queue.add(VhostRequestTests.write, sector: 3, write: data)
        queue.run()
        #expect(queue.status(write) == 0)
        #expect(fixture.holds(data, atSector: 3))
    }
}
