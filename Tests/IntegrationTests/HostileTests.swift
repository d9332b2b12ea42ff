// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// Clients that break every rule, while another disk of the same daemon is under load: its guest
/// must notice nothing, and the daemon must keep nothing of theirs.
@Suite struct HostileTests {
    /// Raw bytes, with a number of descriptors of files that cannot be what they should.
    private struct Message: Sendable {
        var bytes: [UInt8]
        var fileCount = 0

        init(_ bytes: [UInt8], files: Int = 0) {
            self.bytes = bytes
            fileCount = files
        }

        init(
            _ request: UInt32, _ payload: [UInt8] = [], size: UInt32? = nil, flags: UInt32 = 1,
            files: Int = 0
        ) {
            let header = VhostUserHeader(
                request: VhostUserRequest(rawValue: request), flags: flags,
                payloadByteCount: size ?? UInt32(payload.count))
            self.init(header.encoded + payload, files: files)
        }
    }

    private static func numbers(_ values: UInt64...) -> [UInt8] {
        var bytes: [UInt8] = []
        for value in values { bytes.append(number: value) }
        return bytes
    }

    private static func state(_ index: UInt32, _ value: UInt32) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(number: index)
        bytes.append(number: value)
        return bytes
    }

    private static let messages: [Message] = [
        Message((0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 171 &+ 3) }),
        Message([1, 0, 0]),  // less than a header
        Message(1, size: 8),  // the payload never comes
        Message(1, size: .max),
        Message(9999, numbers(1, 2, 3)),
        Message(1, flags: 2),  // another version of the protocol
        Message(1, flags: 1 | 4),  // a reply to nothing
        Message(2, numbers(.max)),  // features that were never offered
        Message(2, [1, 2, 3]),
        Message(16, numbers(.max)),
        Message(5, numbers(1, 0, 1 << 20, 0, 0)),  // memory without a file
        Message(5, numbers(1, 0, 1 << 20, 0, 0), files: 8),
        Message(5, numbers(1, 0, 1 << 20, 0, 0), files: 1),  // a file that is no memory
        Message(5, numbers(1000), files: 1),
        Message(5, numbers(1, .max - 4095, 1 << 20, .max - 4095, 0), files: 1),
        Message(8, state(0, 0)),
        Message(8, state(0, 3)),
        Message(8, state(0, 1 << 16)),
        Message(8, state(.max, 128)),
        Message(10, state(0, 1 << 20)),
        Message(9, numbers(0, 0x1000, 0x2000, 0x3000, 0)),  // rings where there is no memory
        Message(9, numbers(0, .max, .max, .max, 0)),
        Message(11, state(77, 0)),
        Message(12, numbers(0)),  // a kick without its eventfd
        Message(12, numbers(0), files: 1),
        Message(13, numbers(99), files: 1),
        Message(12, numbers(0), files: 20),
        Message(18, state(55, 1)),
        Message(24, state(0, 1 << 20) + [0, 0, 0, 0]),
        Message(24, state(.max, .max) + [0, 0, 0, 0]),
        Message(25, state(0, 4) + [0, 0, 0, 0]),
        Message(37, numbers(0, .max, .max, .max, .max), files: 1),
        Message(38, numbers(0, 0, 1 << 20, 0, 0)),
        Message(21, []),
        Message(21, [], files: 1),
        Message(31, numbers(1, 2, 3)),
    ]

    @Test("garbage on the socket ends that connection and nothing else")
    func garbage() throws {
        var scene = try HostileScene.make()
        // Not what is asked for, and not so strange that the disk would be served to nobody any more.
        var pair: [Int32] = [-1, -1]
        #expect(parallax_socket_pair(&pair, 1) == 0)
        defer { for file in pair { close(file) } }
        for message in Self.messages {
            let path = scene.badSocket
            try scene.attack {
                let connection = try VhostUserConnection(path: path, timeoutMilliseconds: 60_000)
                let files = [Int32](repeating: pair[0], count: message.fileCount)
                do {
                    try connection.sendRaw(message.bytes, fileDescriptors: files)
                } catch let error as GuestError where error.kind == .deviceGone {
                    return
                }
                // Whatever it makes of that, the end of the stream must end it.
                shutdown(connection.fileDescriptor, Int32(SHUT_WR))
                let isClosed = connection.waitForClose()
                #expect(isClosed, "\(message)")
            }
        }
        try scene.finish()
    }

    @Test("messages out of order and half a start are survived")
    func disorder() throws {
        var scene = try HostileScene.make()
        let path = scene.badSocket
        // Every message alone, then in pairs with its neighbour, without waiting for answers.
        for number in stride(from: UInt32(1), through: 44, by: 1) {
            try scene.attack {
                let connection = try VhostUserConnection(path: path, timeoutMilliseconds: 60_000)
                do {
                    for request in [3, number, number % 44 + 1] {
                        try connection.sendRaw(
                            Message(request, Self.numbers(0), flags: 1 | 8).bytes)
                    }
                } catch let error as GuestError where error.kind == .deviceGone {
                    return
                }
                shutdown(connection.fileDescriptor, Int32(SHUT_WR))
                let isClosed = connection.waitForClose()
                #expect(isClosed, "message \(number)")
            }
        }
        try scene.finish()
    }

    /// What a guest puts into its queue. The queue's 0th slot lends its memory.
    private struct RingAttack: Sendable {
        var name: String
        var act: @Sendable (inout DriverQueue) -> Void

        init(_ name: String, _ act: @escaping @Sendable (inout DriverQueue) -> Void) {
            self.name = name
            self.act = act
        }

        /// A chain of these descriptors, linked to each other.
        static func chain(
            _ name: String, _ chain: @escaping @Sendable (inout DriverQueue) -> [Descriptor]
        ) -> RingAttack {
            RingAttack(name) { queue in
                let descriptors = chain(&queue)
                for (index, descriptor) in descriptors.enumerated() {
                    var linked = descriptor
                    if index < descriptors.count - 1 {
                        linked.flags |= Descriptor.nextFlag
                        linked.next = UInt16(100 + index + 1)
                    }
                    queue.setDescriptor(100 + index, linked)
                }
                queue.pushAvailable(100)
            }
        }

        /// A well-made request with any numbers in it.
        static func request(
            _ name: String, _ operation: BlockOperation, sector: UInt64, dataBytes: UInt32,
            dataAddress: UInt64? = nil, dataFlags: UInt16 = 0, range: BlockRange? = nil
        ) -> RingAttack {
            chain(name) { queue in
                queue.setHeader(ofSlot: 0, operation, firstSector: sector)
                if let range {
                    queue.buffer(ofSlot: 0).storeBytes(of: range, as: BlockRange.self)
                }
                let places = queue.addresses(ofSlot: 0)
                return [
                    Descriptor(guestAddress: places.header, byteCount: 16),
                    Descriptor(
                        guestAddress: dataAddress ?? places.data, byteCount: dataBytes,
                        flags: dataFlags),
                    Descriptor(
                        guestAddress: places.status, byteCount: 1,
                        flags: Descriptor.deviceWritableFlag),
                ]
            }
        }
    }

    private static let writable = Descriptor.deviceWritableFlag

    private static let ringAttacks: [RingAttack] = [
        RingAttack("a head past the ring") { $0.pushAvailable(60_000) },
        RingAttack("an available index from nowhere") { $0.setAvailableIndex(30_000) },
        RingAttack("a chain that is a loop") { queue in
            let places = queue.addresses(ofSlot: 0)
            for (position, next) in [(100, 101), (101, 100)] {
                queue.setDescriptor(
                    position,
                    Descriptor(
                        guestAddress: places.header, byteCount: 16, flags: Descriptor.nextFlag,
                        next: UInt16(next)))
            }
            queue.pushAvailable(100)
        },
        RingAttack("a next past the ring") { queue in
            let places = queue.addresses(ofSlot: 0)
            queue.setDescriptor(
                100,
                Descriptor(
                    guestAddress: places.header, byteCount: 16, flags: Descriptor.nextFlag,
                    next: 40_000))
            queue.pushAvailable(100)
        },
        .chain("a header outside memory") { queue in
            [
                Descriptor(guestAddress: 1 << 60, byteCount: 16),
                Descriptor(
                    guestAddress: queue.addresses(ofSlot: 0).status, byteCount: 1,
                    flags: writable),
            ]
        },
        .chain("a status outside memory") { queue in
            [
                Descriptor(guestAddress: queue.addresses(ofSlot: 0).header, byteCount: 16),
                Descriptor(guestAddress: .max, byteCount: 1, flags: writable),
            ]
        },
        .chain("no status at all") { queue in
            [Descriptor(guestAddress: queue.addresses(ofSlot: 0).header, byteCount: 16)]
        },
        .chain("half a header") { queue in
            let places = queue.addresses(ofSlot: 0)
            return [
                Descriptor(guestAddress: places.header, byteCount: 7),
                Descriptor(guestAddress: places.status, byteCount: 1, flags: writable),
            ]
        },
        .chain("a table in a table") { queue in
            let places = queue.addresses(ofSlot: 0)
            queue.buffer(ofSlot: 0).storeBytes(
                of: Descriptor(
                    guestAddress: places.data, byteCount: 16, flags: Descriptor.indirectFlag),
                as: Descriptor.self)
            return [
                Descriptor(
                    guestAddress: places.data, byteCount: 16, flags: Descriptor.indirectFlag)
            ]
        },
        .chain("a table of an odd length") { queue in
            [
                Descriptor(
                    guestAddress: queue.addresses(ofSlot: 0).data, byteCount: 17,
                    flags: Descriptor.indirectFlag)
            ]
        },
        .chain("a table outside memory") { _ in
            [
                Descriptor(
                    guestAddress: 1 << 50, byteCount: 1 << 20, flags: Descriptor.indirectFlag)
            ]
        },
        .request(
            "a read past the end", .read, sector: 2047, dataBytes: 4096, dataFlags: writable),
        .request("a write at the end of all", .write, sector: .max, dataBytes: 4096),
        .request("a write that wraps", .write, sector: .max - 1, dataBytes: 512),
        .request("half a sector", .write, sector: 0, dataBytes: 100),
        .request("4 GiB of data", .write, sector: 0, dataBytes: .max),
        .request("data outside memory", .write, sector: 0, dataBytes: 512, dataAddress: 1 << 55),
        .request("a read into read-only memory", .read, sector: 0, dataBytes: 512),
        .request(
            "a discard past the end", .discard, sector: 0, dataBytes: 16,
            range: BlockRange(firstSector: 2000, sectorCount: .max)),
        .request(
            "write-zeroes that wrap", .writeZeroes, sector: 0, dataBytes: 16,
            range: BlockRange(firstSector: .max, sectorCount: 8)),
        .request("half a range", .discard, sector: 0, dataBytes: 9),
        .request("an unknown request", BlockOperation(rawValue: 77), sector: 0, dataBytes: 512),
    ]

    @Test("a guest that breaks its rings hurts only itself")
    func rings() throws {
        var scene = try HostileScene.make()
        let path = scene.badSocket
        for attack in Self.ringAttacks {
            try scene.attack {
                var bad = try BlockDriver(connectingTo: path, options: patientOptions())
                try bad.withQueue(0) { (queue) throws(GuestError) in
                    attack.act(&queue)
                    _ = queue.publish()
                }
                do {
                    // Answers to messages come after the kick was seen.
                    for _ in 0..<2 { _ = try bad.connection.askNumber(.getFeatures) }
                    try bad.stop()
                } catch let error as GuestError where error.kind == .deviceGone {
                    return
                } catch let error as GuestError {
                    Issue.record("\(attack.name): \(error)")
                }
            }
        }
        try scene.finish()
    }

    @Test("guests that vanish in the middle of their requests leave nothing behind")
    func vanishing() throws {
        var scene = try HostileScene.make()
        let path = scene.badSocket
        for round in 0..<12 {
            try scene.attack {
                var bad = try BlockDriver(connectingTo: path, options: patientOptions())
                bad.flood(round % 2 == 0 ? .write : .read)
                // Also in the middle of a message.
                if round % 3 == 0 { try bad.connection.sendRaw([5, 0, 0, 0, 1]) }
            }
        }
        try scene.finish()
    }

    @Test("garbage on the NBD and control sockets is survived")
    func otherSockets() throws {
        var scene = try HostileScene.make()
        let sockets = [scene.daemon.nbdSocket, scene.daemon.controlSocket]
        let garbage: [[UInt8]] = [
            [], [0], Array("GET / HTTP/9.9\r\n\r\n".utf8),
            Array("POST /v1/vdis HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".utf8),
            Array("POST /v1/vdis HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}}".utf8),
            [UInt8](repeating: 0x41, count: 100_000),
            [0, 0, 0, 3] + Array("IHAVEOPT".utf8) + [0, 0, 0, 7, 0xFF, 0xFF, 0xFF, 0xFF],
            [0, 0, 0, 3] + Array("IHAVEOPT".utf8) + [0, 0, 0, 1, 0, 0, 0, 5] + [1, 2, 3, 4, 5],
        ]
        for bytes in garbage {
            for path in sockets {
                try scene.attack {
                    let connection = try VhostUserConnection(
                        path: path, timeoutMilliseconds: 60_000)
                    do {
                        try connection.sendRaw(bytes)
                    } catch let error as GuestError where error.kind == .deviceGone {
                        return
                    }
                    shutdown(connection.fileDescriptor, Int32(SHUT_WR))
                    let isClosed = connection.waitForClose()
                    #expect(isClosed, "\(bytes.count) bytes on \(path)")
                }
            }
        }
        try scene.finish()
    }
}
