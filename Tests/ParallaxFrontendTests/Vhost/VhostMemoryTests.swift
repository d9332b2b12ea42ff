// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

@Suite("guest memory")
struct VhostMemoryTests {
    private static let megabyte = 1 << 20
    private static let base = PretendedFrontEnd.guestBase

    @Test("a buffer that crosses regions is split where our addresses are not adjacent")
    func crossing() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        // The guest sees [2,3) MiB of the file followed by [1,2): in the file they are reversed.
        let queues = front.region(at: 0, byteCount: Self.megabyte)
        let second = front.region(
            at: 2 * Self.megabyte, byteCount: Self.megabyte, guest: 0x10_0000)
        let first = front.region(at: Self.megabyte, byteCount: Self.megabyte, guest: 0x20_0000)
        front.negotiate(regions: [queues, second, first])
        let queue = PretendedQueue(front)
        queue.start()
        fixture.rig.isHolding = true
        let header = Self.base + 0x8000
        front.store(UInt32(0).bytes + UInt32(0).bytes + UInt64(0).bytes, at: header)
        queue.setAvailableEntry(
            queue.chain([
                .init(address: header, byteCount: 16, isWritable: false),
                .init(address: 0x20_0000 - 512, byteCount: 1024, isWritable: true),
                .init(address: header + 16, byteCount: 1, isWritable: true),
            ]))
        queue.run()
        let pieces = (0..<2).map { fixture.rig.held.first?.segments?[$0] }
        #expect(fixture.rig.held.first?.segmentCount == 2)
        #expect(pieces.map { $0?.count } == [512, 512])
        let data = VhostFixture.pattern(1024)
        for (index, byte) in data.enumerated() { fixture.rig.disk[index] = byte }
        fixture.rig.release()
        let end = Self.base + UInt64(3 * Self.megabyte) - 512
        #expect(front.bytes(at: end, count: 512) == Array(data.prefix(512)))
        #expect(
            front.bytes(at: Self.base + UInt64(Self.megabyte), count: 512)
                == Array(data.suffix(512)))
    }

    @Test("an indirect table and a header may cross regions as well")
    func crossingTable() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        let half = PretendedFrontEnd.memoryBytes / 2
        let middle = Self.base + UInt64(half)
        front.negotiate(regions: [
            front.region(at: 0, byteCount: half), front.region(at: half, byteCount: half),
        ])
        let queue = PretendedQueue(front)
        queue.start()
        let header = middle - 8
        front.store(UInt32(8).bytes + UInt32(0).bytes + UInt64(0).bytes, at: header)
        let data = front.allocate(21)
        let table = middle + 4096 - 24
        front.store(
            PretendedQueue.descriptors(
                [
                    .init(address: header, byteCount: 16, isWritable: false),
                    .init(address: data, byteCount: 21, isWritable: true),
                ], from: 0
            ).flatMap(\.bytes), at: table)
        queue.setDescriptor(0, Descriptor(address: table, byteCount: 32, flags: 4))
        queue.setAvailableEntry(0)
        queue.run()
        #expect(queue.usedIndex == 1)
        #expect(front.bytes(at: data, count: 4) == Array("disk".utf8))
    }

    static let bad: [(UInt64, UInt64, UInt64, UInt64)] = [
        (0, 0, 0, 0), (1, 4096, 0, 0), (0, 4097, 0, 0), (0, 4096, 1, 0), (0, 4096, 0, 1),
        (.max - 4095, 8192, 0, 0), (0, 8192, .max - 4095, 0), (0, 8192, 0, .max - 4095),
        (0, 1 << 62, 0, 0), (0, 16 << 20, 0, 0), (0, 4096, 0, 8 << 20),
        (0, 8192, 0, (8 << 20) - 4096),
        (base, 4096, 0, 0), (base - 4096, 8192, 0, 0), (base + (8 << 20) - 4096, 8192, 0, 0),
    ]

    @Test(
        "a region that is empty, unaligned, overlapping, wrapping or past its file is refused",
        arguments: bad)
    func refused(guest: UInt64, count: UInt64, user: UInt64, offset: UInt64) throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let region = MemoryRegion(
            guestAddress: guest, byteCount: count, userAddress: user, fileOffset: offset)
        #expect(fixture.frontEnd.add(region) == 1)
        // The memory that was there is untouched.
        _ = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 1)
    }

    @Test("a descriptor that is no file, or not readable, is refused")
    func wrongFiles() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate()
        let region = front.region(byteCount: 4096, guest: 0)
        let event = parallax_eventfd_create(0, 1)
        let readOnly = open("/proc/self/fd/\(front.memoryFile)", O_RDONLY)
        for file in [event, readOnly, front.deadSocket] {
            #expect(
                front.acknowledge(
                    .addMemoryRegion, UInt64(0).bytes + region.bytes, files: [file]) == 1)
        }
        for file in [event, readOnly] { close(file) }
    }

    @Test("32 regions are taken, one more is not, and a removed one makes room")
    func slots() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate(regions: [])
        let regions = (0..<33).map { front.region(at: $0 * 4096, byteCount: 4096) }
        for region in regions.dropLast() { #expect(front.add(region) == 0) }
        #expect(front.add(regions[32]) == 1)
        #expect(front.remove(regions[32]) == 1)
        #expect(front.remove(regions[5]) == 0)
        #expect(front.remove(regions[5]) == 1)
        #expect(front.add(regions[32]) == 0)
    }

    @Test("removing memory waits for requests in flight, and stops queues that lived in it")
    func removal() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let front = fixture.frontEnd
        fixture.rig.isHolding = true
        _ = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        #expect(front.remove(front.region()) == nil)
        _ = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        #expect(fixture.rig.held.count == 1)
        fixture.rig.release()
        fixture.rig.settle()
        #expect(front.receive()?.number == 0)
        #expect(queue.usedIndex == 1)
        queue.kickAlways()
        fixture.rig.settle()
        #expect(queue.usedIndex == 1)

        // With the memory back the queue goes on, where it was.
        fixture.rig.isHolding = false
        #expect(front.add(front.region()) == 0)
        fixture.rig.settle()
        #expect(queue.usedIndex == 2)
    }

    @Test("a memory table replaces all memory while queues run")
    func tableWhileRunning() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let front = fixture.frontEnd
        fixture.rig.isHolding = true
        _ = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        let half = PretendedFrontEnd.memoryBytes / 2
        let table =
            UInt32(2).bytes + UInt32(0).bytes
            + front.region(at: 0, byteCount: half).bytes
            + front.region(at: half, byteCount: half).bytes
        #expect(
            front.acknowledge(
                .setMemoryTable, table, files: [front.memoryFile, front.memoryFile]) == nil)
        fixture.rig.isHolding = false
        fixture.rig.release()
        fixture.rig.settle()
        #expect(front.receive()?.number == 0)
        let request = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        #expect(queue.status(request) == 0)
        #expect(queue.usedIndex == 2)
    }

    @Test("a table with a bad region leaves no memory, and the front end is told")
    func badTable() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let front = fixture.frontEnd
        let region = front.region()
        let table = UInt32(2).bytes + UInt32(0).bytes + region.bytes + region.bytes
        #expect(
            front.acknowledge(
                .setMemoryTable, table, files: [front.memoryFile, front.memoryFile]) == 1)
        _ = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 0)
    }

    @Test("queues outside the memory, unaligned or wrapping do not run; others do")
    func badQueues() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let front = fixture.frontEnd
        let user = PretendedFrontEnd.userBase + UInt64(PretendedFrontEnd.queueBytes)
        let good = (user, user + 20480, user + 16384)
        let end = PretendedFrontEnd.userBase + UInt64(PretendedFrontEnd.memoryBytes)
        for (table, used, available) in [
            (0, good.1, good.2), (good.0, 0, good.2), (good.0, good.1, 0),
            (good.0 + 8, good.1, good.2), (good.0, good.1 + 2, good.2),
            (good.0, good.1, good.2 + 1), (end - 16, good.1, good.2), (end, good.1, good.2),
            (UInt64.max - 8, good.1, good.2), (good.0, end - 512, good.2),
        ] {
            let payload =
                UInt32(1).bytes + UInt32(0).bytes + table.bytes + used.bytes + available.bytes
                + UInt64(0).bytes
            #expect(front.acknowledge(.setQueueAddresses, payload) == 1)
            front.send(.setQueueKick, UInt64(1).bytes, files: [queue.kick])
            front.send(.setQueueEnable, front.queueNumber(1, 1))
            _ = front.ask(.getQueueBase, front.queueNumber(1, 0))
        }
        _ = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 1)
        #expect(!front.isDisconnected)
    }

    @Test("queue sizes are powers of two up to 1024", arguments: [0, 3, 100, 1025, 2048, 1 << 31])
    func badSizes(size: UInt32) throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        let payload = UInt32(0).bytes + size.bytes
        #expect(fixture.frontEnd.acknowledge(.setQueueSize, payload) == 1)
        for power in 0...10 {
            let good = fixture.frontEnd.queueNumber(0, 1 << power)
            #expect(fixture.frontEnd.acknowledge(.setQueueSize, good) == 0)
        }
    }
}
