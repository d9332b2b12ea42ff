// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

/// What a front end could do to stop the shard, which serves others too. Where the device failed,
/// these tests would wait for ever.
@Suite("front ends that want to hold up the shard")
struct VhostHoldUpTests {
    enum Place: CaseIterable { case call, kick, error }

    @Test(
        "a write to a full eventfd that waits is ended, once for each device",
        arguments: Place.allCases)
    func fullEvent(place: Place) throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        switch place {
        case .call:
            Self.fill(queue.call)
            _ = queue.add(VhostRequestTests.read, read: 512)
            queue.run()
        case .kick:
            // First the message that makes the device kick itself, as it empties the kick as well.
            let enable = FrontendRequest.setQueueEnable.rawValue.bytes + UInt32(1).bytes
            let bytes = enable + UInt32(8).bytes + fixture.frontEnd.queueNumber(0, 1)
            #expect(parallax_send(fixture.frontEnd.socket, bytes, bytes.count) == bytes.count)
            Self.fill(queue.kick)
        case .error:
            Self.fill(queue.error)
            queue.setAvailableIndex(1000)
            queue.kickAlways()
        }
        fixture.rig.settle()
        #expect(fixture.frontEnd.becomesDisconnected)
        #expect(fixture.hasNotice { if case .heldUp = $0 { true } else { false } })
        let next = PretendedFrontEnd(fixture.rig, path: fixture.path)
        #expect(next.becomesDisconnected)
        #expect(fixture.hasNotice { if case .refusedAsBarred = $0 { true } else { false } })
    }

    /// Whoever writes to it waits now.
    private static func fill(_ event: Int32) {
        #expect(parallax_eventfd_write(event, .max - 1) == 0)
        #expect(parallax_set_nonblocking(event, 0) >= 0)
    }

    @Test("files on a disk, pipes and devices end the connection; sixteen end the service")
    func strangeFiles() throws {
        let fixture = try VhostFixture()
        var pipe: [Int32] = [-1, -1]
        #expect(parallax_pipe(&pipe, 0) == 0)
        let files = [open("/proc/self/exe", O_RDONLY), open("/dev/zero", O_RDWR)] + pipe
        defer { for file in files { close(file) } }
        var front = fixture.frontEnd
        for round in 0..<16 {
            #expect(front.ask(.getFeatures) != nil, "file \(round)")
            front.negotiate(regions: [])
            let region = front.region(byteCount: 4096, guest: 0)
            front.send(
                round % 2 == 0 ? .addMemoryRegion : .setBackendRequestSocket,
                round % 2 == 0 ? UInt64(0).bytes + region.bytes : [], files: [files[round % 4]])
            #expect(front.becomesDisconnected)
            front = PretendedFrontEnd(fixture.rig, path: fixture.path)
        }
        #expect(front.becomesDisconnected)
        #expect(fixture.hasNotice { if case .strangeFile = $0 { true } else { false } })
        #expect(fixture.hasNotice { if case .refusedAsBarred = $0 { true } else { false } })
    }

    /// Where a front end can put a file, so that the kernel closes it for us.
    enum Wrapping: CaseIterable {
        case alone
        /// Behind more files than any message has.
        case beyondTheLast
        /// Behind a message that ends the connection.
        case unreceived
        /// In the queue of the socket that the back end's requests go to.
        case inSocket
        /// In the queue of a socket in the queue of one.
        case inSocketInSocket
    }

    @Test("a file whose closing takes minutes is closed elsewhere", arguments: Wrapping.allCases)
    func slowClosing(wrapping: Wrapping) throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        let connection = try LingeringConnection()
        let sender = connection.takeSender()
        switch wrapping {
        case .alone: Self.give(front.socket, [sender])
        case .beyondTheLast: Self.give(front.socket, [Int32](repeating: 0, count: 12) + [sender])
        case .unreceived:
            front.rig.settle()
            let garbage = [UInt8](repeating: 0xff, count: 12)
            #expect(parallax_send(front.socket, garbage, 12) == 12)
            Self.give(front.socket, [sender])
        case .inSocket: Self.give(front.socket, [Self.wrap(sender)])
        case .inSocketInSocket: Self.give(front.socket, [Self.wrap(Self.wrap(sender))])
        }
        fixture.rig.settle()
        #expect(front.becomesDisconnected)
        let next = PretendedFrontEnd(fixture.rig, path: fixture.path)
        #expect(next.ask(.getFeatures) != nil)
    }

    @Test("files of front ends that are turned away, or never accepted, are closed elsewhere too")
    func slowClosingUnaccepted() throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        let connections = try (0..<3).map { _ in try LingeringConnection() }
        for connection in connections {
            let second = PretendedFrontEnd.connect(fixture.path)
            defer { close(second) }
            Self.give(second, [connection.takeSender()])
            // The last one is still in the queue when the device stops.
            if connection !== connections.last { fixture.rig.settle() }
        }
        fixture.rig.device.pointee.stop(registrar: &fixture.rig.registrar)
        #expect(fixture.rig.isDrained)
    }

    /// The other end has the only descriptors afterwards, except of those of this process's own.
    private static func give(_ socket: Int32, _ files: [Int32]) {
        let message =
            FrontendRequest.setBackendRequestSocket.rawValue.bytes + UInt32(1).bytes
            + UInt32(0).bytes
        #expect(
            parallax_send_with_fds(socket, message, message.count, files, files.count)
                == message.count)
        for file in files where file > 2 { close(file) }
    }

    /// A socket in whose queue the file is.
    private static func wrap(_ file: Int32) -> Int32 {
        var pair: [Int32] = [-1, -1]
        #expect(parallax_socket_pair(&pair, 1) == 0)
        give(pair[0], [file])
        close(pair[0])
        return pair[1]
    }
}
