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

    @Test("a file whose closing takes minutes is closed elsewhere")
    func slowClosing() throws {
        let fixture = try VhostFixture()
        let connection = try LingeringConnection()
        connection.giveAway(to: fixture.frontEnd)
        fixture.rig.settle()
        #expect(fixture.frontEnd.becomesDisconnected)
        let next = PretendedFrontEnd(fixture.rig, path: fixture.path)
        #expect(next.ask(.getFeatures) != nil)
    }
}

/// A TCP connection whose last close(2) waits until the peer, who never does, has read everything.
private final class LingeringConnection {
    private let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    private let sender = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    private let receiver: Int32

    init() throws {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let (listener, sender) = (self.listener, self.sender)
        receiver = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                guard bind(listener, generic, length) == 0, listen(listener, 1) == 0,
                    getsockname(listener, generic, &length) == 0,
                    connect(sender, generic, length) == 0
                else { return -1 }
                return accept(listener, nil, nil)
            }
        }
        try #require(receiver >= 0)
        var wish = linger(l_onoff: 1, l_linger: 600)
        setsockopt(
            sender, SOL_SOCKET, SO_LINGER, &wish, socklen_t(MemoryLayout<linger>.size))
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        while send(sender, zeros, zeros.count, Int32(MSG_DONTWAIT)) > 0 {}
    }

    /// The device has the only descriptor afterwards.
    func giveAway(to frontEnd: PretendedFrontEnd) {
        let message =
            FrontendRequest.setLogFileDescriptor.rawValue.bytes + UInt32(1).bytes + UInt32(0).bytes
        _ = parallax_send_with_fds(frontEnd.socket, message, message.count, [sender], 1)
        close(sender)
    }

    deinit {
        // What is unread makes this a reset, which ends the wait.
        close(receiver)
        close(listener)
    }
}
