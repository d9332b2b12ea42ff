// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxVhost
import Testing

@Suite("virtio-blk requests")
struct VhostRequestTests {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let getID: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeroes: UInt32 = 13

    static func range(_ sector: UInt64, _ count: UInt32, _ flags: UInt32 = 0) -> [UInt8] {
        sector.bytes + count.bytes + flags.bytes
    }

    @Test(
        "what is written is read back, however the bytes are cut into descriptors",
        arguments: [1, 3, 15, 16, 17, 511, 512, 513, 4096, .max], [false, true])
    func writeAndRead(cut: Int, isIndirect: Bool) throws {
        let fixture = try VhostFixture()
        let queue = fixture.start(size: 1024)
        let count = cut <= 3 ? 512 : 4096
        let data = VhostFixture.pattern(count, seed: cut & 0xff)

        let write = queue.add(Self.write, sector: 9, write: data, cut: cut, isIndirect: isIndirect)
        queue.run()
        #expect(queue.status(write) == 0)
        #expect(queue.reap()?.byteCount == 1)
        #expect(fixture.disk(sector: 9, count: count) == data)

        queue.nextDescriptor = 0
        let read = queue.add(Self.read, sector: 9, read: count, cut: cut, isIndirect: isIndirect)
        queue.run()
        #expect(queue.status(read) == 0)
        #expect(queue.data(read) == data)
        let used = queue.reap()
        #expect(used?.head == UInt32(read.head))
        #expect(used?.byteCount == UInt32(count + 1))
        #expect(fixture.rig.seen.map(\.operation) == [.write, .read])
        #expect(fixture.rig.seen.allSatisfy { $0.vdi == 3 && $0.session == 7 })
    }

    @Test("direct descriptors may lead into an indirect table")
    func mixedChain() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let header = fixture.frontEnd.allocate(16)
        fixture.frontEnd.store(Self.read.bytes + UInt32(0).bytes + UInt64(0).bytes, at: header)
        let data = fixture.frontEnd.allocate(513)
        let table = fixture.frontEnd.allocate(32, alignment: 1)
        let inner = [
            Descriptor(address: data, byteCount: 512, flags: 3, next: 1),
            Descriptor(address: data + 512, byteCount: 1, flags: 2),
        ]
        fixture.frontEnd.store(inner.flatMap(\.bytes), at: table)
        queue.setDescriptor(5, Descriptor(address: header, byteCount: 16, flags: 1, next: 2))
        queue.setDescriptor(2, Descriptor(address: table, byteCount: 32, flags: 4))
        fixture.rig.disk[0] = 0x5a
        queue.setAvailableEntry(5)
        queue.run()
        #expect(queue.reap()?.head == 5)
        #expect(fixture.frontEnd.bytes(at: data, count: 1) == [0x5a])
    }

    @Test("the serial number is the name, cut to 20 bytes between characters")
    func getID() throws {
        for (name, expected) in [
            ("disk", "disk"), ("abcdefghijklmnopqrst", "abcdefghijklmnopqrst"),
            ("abcdefghijklmnopqrstu", "abcdefghijklmnopqrst"),
            ("abcdefghijklmnopqrsé", "abcdefghijklmnopqrs"),
        ] {
            let fixture = try VhostFixture(name: name)
            let queue = fixture.start()
            let request = queue.add(Self.getID, read: 20, cut: 7)
            queue.run()
            #expect(queue.status(request) == 0)
            let text = String(decoding: queue.data(request).prefix { $0 != 0 }, as: UTF8.self)
            #expect(text == expected)
            #expect(queue.reap()?.byteCount == 21)
        }
    }

    @Test("a serial number fits any buffer")
    func getIDLengths() throws {
        let fixture = try VhostFixture(name: "abcdefghijklmnopqrstu")
        let queue = fixture.start()
        for (length, used) in [(0, 1), (5, 6), (20, 21), (40, 20)] {
            let request = queue.add(Self.getID, read: length)
            queue.run()
            #expect(queue.status(request) == 0)
            #expect(queue.reap()?.byteCount == UInt32(used))
        }
    }

    @Test("each range of a discard is one request, and the last answer ends it")
    func discardRanges() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        let ranges = Self.range(0, 8) + Self.range(100, 0) + Self.range(16, 4)
        let request = queue.add(Self.discard, write: ranges, cut: 5)
        queue.run()
        #expect(fixture.rig.held.map(\.sectorCount).sorted() == [4, 8])
        #expect(fixture.rig.held.allSatisfy { $0.operation == .discard && !$0.forceUnitAccess })
        #expect(Set(fixture.rig.held.map(\.tag)).count == 1)
        #expect(fixture.rig.inFlight == 1)
        let first = fixture.rig.held.removeFirst()
        fixture.rig.device.pointee.complete(tag: first.tag, status: .noSpace)
        #expect(queue.reap() == nil)
        fixture.rig.release()
        #expect(queue.reap()?.head == UInt32(request.head))
        #expect(queue.status(request) == 1)
        #expect(fixture.rig.inFlight == 0)
    }

    @Test("write-zeroes may unmap; unknown flags are unsupported")
    func rangeFlags() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        for (kind, flags, status) in [
            (Self.writeZeroes, 0, 0), (Self.writeZeroes, 1, 0), (Self.writeZeroes, 2, 2),
            (Self.discard, 0, 0), (Self.discard, 1, 2), (Self.discard, 0x8000_0000, 2),
        ] as [(UInt32, UInt32, UInt8)] {
            let request = queue.add(kind, write: Self.range(8, 8, flags))
            queue.run()
            #expect(queue.status(request) == status)
        }
        #expect(fixture.rig.seen.map(\.operation) == [.writeZeroes, .writeZeroes, .discard])
    }

    @Test("a request with 64 ranges is taken, with 65 or a piece of one it is not")
    func rangeCounts() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        for (bytes, status) in [(64 * 16, 0), (65 * 16, 1), (24, 1), (0, 1)] as [(Int, UInt8)] {
            let ranges = (0..<65).flatMap { Self.range(UInt64($0) * 8, 8) }
            let request = queue.add(Self.discard, write: Array(ranges.prefix(bytes)))
            queue.run()
            #expect(queue.status(request) == status)
        }
        #expect(fixture.rig.seen.count == 64)
    }

    @Test("requests that make no sense are answered with an error, and the queue goes on")
    func errors() throws {
        let fixture = try VhostFixture(sectors: 100)
        let queue = fixture.start()
        func outcome(
            _ kind: UInt32, _ sector: UInt64 = 0, write: Int = 0, read: Int = 0
        ) -> UInt8 {
            let request = queue.add(
                kind, sector: sector, write: [UInt8](repeating: 1, count: write), read: read)
            queue.run()
            return queue.status(request)
        }
        #expect(outcome(Self.read, 99, read: 512) == 0)
        #expect(outcome(Self.read, 100, read: 512) == 1)
        #expect(outcome(Self.read, 99, read: 1024) == 1)
        #expect(outcome(Self.read, .max, read: 512) == 1)
        #expect(outcome(Self.read, .max / 512, read: 512) == 1)
        #expect(outcome(Self.read, 0, read: 511) == 1)
        #expect(outcome(Self.write, 0, write: 513) == 1)
        #expect(outcome(Self.write, 100, write: 512) == 1)
        #expect(outcome(Self.read, 100, read: 0) == 0)
        #expect(outcome(Self.read, 101, read: 0) == 1)
        #expect(outcome(7) == 2)
        #expect(outcome(14, write: 16) == 2)
        #expect(outcome(.max) == 2)
        #expect(fixture.rig.seen.count == 1)
        #expect(fixture.rig.counters.brokenQueues == 0)
    }

    @Test("a data buffer outside guest memory is an error of that request alone")
    func unmappedData() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let front = fixture.frontEnd
        let header = front.allocate(16)
        let status = front.allocate(1)
        for address: UInt64 in [0, PretendedFrontEnd.guestBase - 256, .max - 100] {
            front.store(Self.read.bytes + UInt32(0).bytes + UInt64(0).bytes, at: header)
            front.store([0xff], at: status)
            queue.setAvailableEntry(
                queue.chain([
                    .init(address: header, byteCount: 16, isWritable: false),
                    .init(address: address, byteCount: 512, isWritable: true),
                    .init(address: status, byteCount: 1, isWritable: true),
                ]))
            queue.run()
            #expect(front.bytes(at: status, count: 1) == [1])
        }
        #expect(fixture.rig.seen.isEmpty)
        #expect(fixture.rig.counters.brokenQueues == 0)
    }

    @Test("a read-only disk offers and does nothing that writes")
    func readOnly() throws {
        let fixture = try VhostFixture(readOnly: true)
        let offered = VirtioFeatures(rawValue: fixture.frontEnd.ask(.getFeatures)?.number ?? 0)
        #expect(offered.contains(.readOnly))
        #expect(offered.isDisjoint(with: [.discard, .writeZeroes]))
        let queue = fixture.start()
        for (kind, bytes, status) in [
            (Self.write, 512, 1), (Self.discard, 16, 1), (Self.writeZeroes, 16, 1),
            (Self.flush, 0, 0),
        ] as [(UInt32, Int, UInt8)] {
            let request = queue.add(kind, write: [UInt8](repeating: 0, count: bytes))
            queue.run()
            #expect(queue.status(request) == status)
        }
        #expect(fixture.rig.seen.isEmpty)
        let read = queue.add(Self.read, read: 512)
        queue.run()
        #expect(queue.status(read) == 0)
    }

    @Test("the engine's errors become I/O errors, and claim no data")
    func engineErrors() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        for status: BlockStatus in [.ioError, .corrupt, .noSpace, .shuttingDown] {
            fixture.rig.failure = status
            let read = queue.add(Self.read, read: 512)
            queue.run()
            #expect(queue.status(read) == 1)
            #expect(queue.reap()?.byteCount == 0)
        }
    }

    /// virtio 1.2, 5.2.6.2: when a completed write is stable without a flush.
    static let durability: [(VirtioFeatures, UInt8?, Bool)] = [
        ([.version1], nil, true),
        ([.version1, .flush], nil, false),
        ([.version1, .flush, .configWriteback], nil, false),
        ([.version1, .flush, .configWriteback], 0, true),
        ([.version1, .flush, .configWriteback], 1, false),
        ([.version1, .flush], 0, false),
        ([.version1, .configWriteback], 1, true),
    ]

    @Test("writes are durable where the guest cannot or does not flush", arguments: durability)
    func forceUnitAccess(features: VirtioFeatures, writeback: UInt8?, expected: Bool) throws {
        let fixture = try VhostFixture()
        let queue = fixture.start(features: features.union([.discard, .writeZeroes]))
        if let writeback {
            let access = UInt32(32).bytes + UInt32(1).bytes + UInt32(0).bytes + [writeback]
            #expect(fixture.frontEnd.acknowledge(.setConfig, access) == 0)
        }
        fixture.frontEnd.send(.setQueueEnable, fixture.frontEnd.queueNumber(0, 1))
        _ = queue.add(Self.write, write: [UInt8](repeating: 1, count: 512))
        _ = queue.add(Self.writeZeroes, write: Self.range(0, 1))
        _ = queue.add(Self.discard, write: Self.range(0, 1))
        _ = queue.add(Self.read, read: 512)
        queue.run()
        #expect(fixture.rig.seen.map(\.forceUnitAccess) == [expected, expected, expected, false])
    }

    @Test("a request larger than 32 MiB or of too many pieces is an error")
    func tooLarge() throws {
        let fixture = try VhostFixture(sectors: 1 << 17)
        let queue = fixture.start(size: 1024)
        let front = fixture.frontEnd
        let header = front.allocate(16)
        front.store(Self.read.bytes + UInt32(0).bytes + UInt64(0).bytes, at: header)
        let buffer = front.allocate(4 << 20)
        let status = front.allocate(1)
        for (pieces, bytes, expected) in [(8, 4 << 20, 0), (9, 4 << 20, 1), (1022, 512, 0)] {
            var chain = [PretendedQueue.Buffer(address: header, byteCount: 16, isWritable: false)]
            chain += (0..<pieces).map { _ in
                .init(address: buffer, byteCount: bytes, isWritable: true)
            }
            chain.append(.init(address: status, byteCount: 1, isWritable: true))
            queue.nextDescriptor = 0
            queue.setAvailableEntry(queue.chain(chain))
            queue.run()
            #expect(front.bytes(at: status, count: 1) == [UInt8(expected)])
        }
    }
}
