// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

@Suite("hostile guests and front ends")
struct VhostHostileTests {
    private let read = VhostRequestTests.read

    /// What a guest does to queue 0, and the fault that it must lead to.
    struct Attack: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var fault: RingFault
        var features = PretendedFrontEnd.usualFeatures
        var act: @Sendable (PretendedQueue) -> Void
    }

    static func push(_ queue: PretendedQueue, _ descriptors: [Descriptor]) {
        for (index, descriptor) in descriptors.enumerated() {
            queue.setDescriptor(index, descriptor)
        }
        queue.setAvailableEntry(0)
    }

    static let attacks: [Attack] = [
        Attack(testDescription: "the available index runs ahead", fault: .availableIndexTooFar) {
            $0.nextAvailable = 129
        },
        Attack(testDescription: "the available index runs back", fault: .availableIndexTooFar) {
            $0.nextAvailable = .max
        },
        Attack(testDescription: "a head past the table", fault: .headOutOfRange) {
            $0.setAvailableEntry(128)
        },
        Attack(testDescription: "a head far past the table", fault: .headOutOfRange) {
            $0.setAvailableEntry(.max)
        },
        Attack(testDescription: "a chain past the table", fault: .nextOutOfRange) {
            push($0, [Descriptor(address: 0, byteCount: 16, flags: 1, next: 128)])
        },
        Attack(testDescription: "a chain that is a loop", fault: .chainTooLong) {
            let data = $0.frontEnd.allocate(16)
            push(
                $0,
                [
                    Descriptor(address: data, byteCount: 16, flags: 1, next: 1),
                    Descriptor(address: data, byteCount: 16, flags: 1, next: 0),
                ])
        },
        Attack(testDescription: "a loop of empty descriptors", fault: .chainTooLong) {
            push($0, [Descriptor(address: 0, byteCount: 0, flags: 3, next: 0)])
        },
        Attack(testDescription: "readable after writable", fault: .readableAfterWritable) {
            let data = $0.frontEnd.allocate(16)
            push(
                $0,
                [
                    Descriptor(address: data, byteCount: 16, flags: 3, next: 1),
                    Descriptor(address: data, byteCount: 16, flags: 0),
                ])
        },
        Attack(testDescription: "no writable descriptor", fault: .noStatusByte) {
            push($0, [Descriptor(address: $0.frontEnd.allocate(16), byteCount: 16, flags: 0)])
        },
        Attack(testDescription: "an empty status descriptor", fault: .noStatusByte) {
            let data = $0.frontEnd.allocate(16)
            push(
                $0,
                [
                    Descriptor(address: data, byteCount: 16, flags: 1, next: 1),
                    Descriptor(address: data, byteCount: 0, flags: 2),
                ])
        },
        Attack(testDescription: "a header of 15 bytes", fault: .headerTooShort) {
            let data = $0.frontEnd.allocate(16)
            push(
                $0,
                [
                    Descriptor(address: data, byteCount: 15, flags: 1, next: 1),
                    Descriptor(address: data, byteCount: 1, flags: 2),
                ])
        },
        Attack(testDescription: "a status byte outside memory", fault: .statusOutsideMemory) {
            let data = $0.frontEnd.allocate(16)
            push(
                $0,
                [
                    Descriptor(address: data, byteCount: 16, flags: 1, next: 1),
                    Descriptor(address: 5, byteCount: 1, flags: 2),
                ])
        },
        Attack(testDescription: "an indirect table of no length", fault: .indirectLength) {
            push($0, [Descriptor(address: $0.frontEnd.allocate(16), byteCount: 0, flags: 4)])
        },
        Attack(testDescription: "an indirect table of odd length", fault: .indirectLength) {
            push($0, [Descriptor(address: $0.frontEnd.allocate(32), byteCount: 17, flags: 4)])
        },
        Attack(testDescription: "an indirect table outside memory", fault: .indirectOutsideMemory) {
            push($0, [Descriptor(address: 64, byteCount: 16, flags: 4)])
        },
        Attack(
            testDescription: "an indirect table at the end of all", fault: .indirectOutsideMemory
        ) {
            push($0, [Descriptor(address: .max - 15, byteCount: 0xffff_fff0, flags: 4)])
        },
        Attack(testDescription: "a table in a table", fault: .indirectNested) {
            let table = $0.frontEnd.allocate(16)
            $0.frontEnd.store(
                Descriptor(address: table, byteCount: 16, flags: 4).bytes, at: table)
            push($0, [Descriptor(address: table, byteCount: 16, flags: 4)])
        },
        Attack(testDescription: "an indirect descriptor with next", fault: .indirectWithNext) {
            push($0, [Descriptor(address: $0.frontEnd.allocate(16), byteCount: 16, flags: 5)])
        },
        Attack(testDescription: "a chain past its indirect table", fault: .nextOutOfRange) {
            let table = $0.frontEnd.allocate(32)
            $0.frontEnd.store(
                Descriptor(address: table, byteCount: 16, flags: 1, next: 1).bytes, at: table)
            push($0, [Descriptor(address: table, byteCount: 16, flags: 4)])
        },
        Attack(
            testDescription: "indirect without negotiation", fault: .indirectNotNegotiated,
            features: [.version1, .protocolFeatures, .flush, .eventIndex]
        ) {
            push($0, [Descriptor(address: $0.frontEnd.allocate(16), byteCount: 16, flags: 4)])
        },
    ]

    @Test("a broken ring stops alone: it says so once, and other queues go on", arguments: attacks)
    func brokenRing(attack: Attack) throws {
        let fixture = try VhostFixture()
        let queue = fixture.start(features: attack.features)
        let other = PretendedQueue(fixture.frontEnd, 1)
        other.start()
        attack.act(queue)
        queue.run()
        #expect(queue.takeErrors() == 1)
        let faults = fixture.rig.notices.compactMap { notice in
            if case .queueBroken(0, let fault) = notice { fault } else { nil as RingFault? }
        }
        #expect(faults == [attack.fault])
        #expect(fixture.rig.seen.isEmpty)

        queue.run()
        #expect(queue.takeErrors() == 0)
        #expect(fixture.rig.counters.brokenQueues == 1)
        let request = other.add(read, read: 512)
        other.run()
        #expect(other.status(request) == 0)

        // A reset of the device repairs it.
        #expect(queue.stop() != nil)
        queue.nextDescriptor = 0
        queue.start()
        let again = queue.add(read, read: 512)
        queue.run()
        #expect(queue.status(again) == 0)
    }

    @Test("a head that is in flight cannot be used again, and its reply is dropped")
    func headInFlight() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        let request = queue.add(read, read: 512)
        queue.run()
        queue.setAvailableEntry(request.head)
        queue.run()
        #expect(queue.takeErrors() == 1)
        #expect(fixture.rig.held.count == 1)
        fixture.rig.release()
        #expect(queue.usedIndex == 0)
        #expect(fixture.rig.inFlight == 0)
        #expect(queue.stop() == 1)
    }

    /// Bytes that end the connection when they come first.
    static let nonsense: [[UInt8]] = [
        [UInt8](repeating: 0, count: 12), [UInt8](repeating: 0xff, count: 64),
        UInt32(1).bytes + UInt32(2).bytes + UInt32(0).bytes,
        UInt32(1).bytes + UInt32(5).bytes + UInt32(0).bytes,
        UInt32(1).bytes + UInt32(1).bytes + UInt32.max.bytes,
        UInt32(1).bytes + UInt32(1).bytes + UInt32(4097).bytes,
        UInt32(1).bytes + UInt32(1).bytes + UInt32(4).bytes + [0, 0, 0, 0],
        UInt32(2).bytes + UInt32(1).bytes + UInt32(0).bytes,
        UInt32(2).bytes + UInt32(1).bytes + UInt32(8).bytes + UInt64.max.bytes,
        UInt32(12).bytes + UInt32(1).bytes + UInt32(8).bytes + UInt64(0).bytes,
        UInt32(12).bytes + UInt32(1).bytes + UInt32(8).bytes + UInt64(0x100).bytes,
        UInt32(13).bytes + UInt32(1).bytes + UInt32(8).bytes + UInt64(0xff).bytes,
        UInt32(16).bytes + UInt32(1).bytes + UInt32(8).bytes + UInt64(1 << 14).bytes,
        UInt32(5).bytes + UInt32(1).bytes + UInt32(8).bytes + UInt64(9).bytes,
    ]

    @Test("garbage ends the connection, and the next front end is served", arguments: nonsense)
    func garbage(bytes: [UInt8]) throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.sendBytes(bytes)
        #expect(fixture.frontEnd.becomesDisconnected)
        #expect(fixture.rig.counters.protocolFaults == 1)
        #expect(fixture.rig.notices.filter { $0.isProblem }.count == 1)
        let next = PretendedFrontEnd(fixture.rig, path: fixture.path)
        #expect(next.ask(.getFeatures) != nil)
    }

    @Test("messages are understood byte by byte, and a front end may go in the middle of one")
    func halfMessages() throws {
        let message = UInt32(8).bytes + UInt32(1).bytes + UInt32(8).bytes + UInt64(64 << 32).bytes
        for length in 1..<message.count {
            let fixture = try VhostFixture()
            for byte in message.prefix(length) { fixture.frontEnd.sendBytes([byte]) }
            #expect(fixture.rig.counters.protocolFaults == 0)
            fixture.frontEnd.hangUp()
            fixture.rig.settle()
            #expect(!fixture.rig.isConnected)
        }
        let fixture = try VhostFixture()
        for byte in message { fixture.frontEnd.sendBytes([byte]) }
        #expect(fixture.frontEnd.ask(.getFeatures) != nil)
    }

    @Test("a front end that does not read its replies is disconnected, not waited for")
    func unreadReplies() throws {
        let fixture = try VhostFixture()
        let message = UInt32(1).bytes + UInt32(1).bytes + UInt32(0).bytes
        let many = [UInt8]((0..<200).flatMap { _ in message })
        for _ in 0..<100 where fixture.rig.isConnected { fixture.frontEnd.sendBytes(many) }
        #expect(!fixture.rig.isConnected)
    }

    @Test("kick, call and error must be eventfds")
    func wrongEvents() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate()
        for request: FrontendRequest in [.setQueueKick, .setQueueCall, .setQueueError] {
            for file in [front.memoryFile, front.deadSocket] {
                #expect(front.acknowledge(request, UInt64(0).bytes, files: [file]) == 1)
            }
        }
    }

    @Test("an eventfd whose flags and count the front end changes does not stop the shard")
    func hostileEvents() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        _ = parallax_set_nonblocking(queue.kick, 0)
        // Taken away between readiness and our read: the device must not wait for the next kick.
        queue.kickAlways()
        var count: UInt64 = 0
        _ = parallax_eventfd_read(queue.kick, &count)
        fixture.rig.device.pointee.handleEvent(
            source: 16, interest: .readable, registrar: &fixture.rig.registrar,
            requests: &fixture.rig.requests)
        // A full counter drops the call instead of waiting for room.
        _ = parallax_eventfd_write(queue.call, .max - 1)
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 1)
        #expect(fixture.rig.isConnected)
    }

    @Test("file descriptors that nobody asked for are closed")
    func noLeaks() throws {
        let name = "parallax-leak-\(UInt32.random(in: 0...UInt32.max))"
        let file = parallax_memfd_create(name, 4096)
        defer { close(file) }
        do {
            let fixture = try VhostFixture()
            var front = fixture.frontEnd
            let header = { (request: UInt32, size: UInt32) in
                request.bytes + UInt32(1).bytes + size.bytes
            }
            let messages: [([UInt8], Int)] = [
                (header(1, 0), 3), (header(99, 0), 8), (header(99, 0), 9),
                (header(12, 8) + UInt64(0).bytes, 2), (header(12, 8) + UInt64(0).bytes, 1),
                (header(38, 40) + [UInt8](repeating: 0, count: 40), 1), (header(7, 0), 1),
                (header(37, 40) + [UInt8](repeating: 0, count: 40), 1),
                (header(5, 8) + UInt64(1).bytes, 1), (header(12, 8), 1),
                ([1], 5), (header(21, 0), 1),
            ]
            for (bytes, count) in messages {
                front.sendBytes(bytes, files: [Int32](repeating: file, count: count))
                front.hangUp()
                fixture.rig.settle()
                #expect(Self.descriptors(to: name) == 1)
                front = PretendedFrontEnd(fixture.rig, path: fixture.path)
            }
        }
        #expect(Self.descriptors(to: name) == 1)
    }

    /// How many descriptors of this process lead to the memory file.
    static func descriptors(to name: String) -> Int {
        (0..<1024).filter { number in
            withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
                guard let base = buffer.baseAddress else { return false }
                let count = readlink("/proc/self/fd/\(number)", base, 255)
                guard count > 0 else { return false }
                base[count] = 0
                return String(cString: base).contains(name)
            }
        }.count
    }
}
