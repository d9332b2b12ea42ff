// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

@Suite("vhost-user protocol")
struct VhostProtocolTests {
    private let read = VhostRequestTests.read
    private let write = VhostRequestTests.write

    @Test("the front end learns what is offered, and nothing else")
    func offers() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        let features = VirtioFeatures(rawValue: front.ask(.getFeatures)?.number ?? 0)
        #expect(features == .offered(readOnly: false))
        let bits: [UInt64] = [1, 2, 6, 9, 10, 11, 12, 13, 14, 28, 29, 30, 32]
        #expect(features.rawValue == bits.reduce(0) { $0 | 1 << $1 })
        let protocolBits: [UInt64] = [0, 3, 5, 9, 12, 15]
        #expect(
            front.ask(.getProtocolFeatures)?.number == protocolBits.reduce(0) { $0 | 1 << $1 })
        #expect(front.ask(.getQueueCount)?.number == 16)
        #expect(front.ask(.getMemorySlots)?.number == 32)
        #expect(front.ask(.getFeatures)?.flags == 5)
    }

    @Test("need_reply is answered once it is negotiated, with zero or with an error")
    func acknowledgements() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        #expect(front.acknowledge(.setOwner) == nil)
        front.send(.setProtocolFeatures, ProtocolFeatures.offered.rawValue.bytes)
        #expect(front.acknowledge(.setOwner) == 0)
        #expect(front.acknowledge(.setFeatures, UInt64(1 << 32).bytes) == 0)
        #expect(front.acknowledge(.setFeatures, UInt64(1 << 26).bytes) == 1)
        #expect(front.acknowledge(.setQueueEnable, front.queueNumber(0, 2)) == 1)
        // The answer of its own comes instead of an acknowledgement.
        front.send(.getQueueCount, needsReply: true)
        #expect(front.receive()?.number == 16)
        #expect(front.receive() == nil)
    }

    @Test("a request that nobody knows is survived, and refused if it wants an answer")
    func unknownRequest() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate()
        for request: UInt32 in [6, 28, 33, 34, 99] {
            front.sendBytes(request.bytes + UInt32(1).bytes + UInt32(3).bytes + [1, 2, 3])
            front.sendBytes(request.bytes + UInt32(9).bytes + UInt32(3).bytes + [1, 2, 3])
            #expect(front.receive()?.number == 1)
        }
        #expect(!front.isDisconnected)
    }

    @Test("configuration is read at any offset, in any length up to 256")
    func config() throws {
        let fixture = try VhostFixture(sectors: 0x1234)
        let front = fixture.frontEnd
        func ask(_ offset: UInt32, _ count: UInt32) -> [UInt8]? {
            front.ask(
                .getConfig,
                offset.bytes + count.bytes + UInt32(0).bytes
                    + [UInt8](repeating: 0, count: Int(count))
            )?.payload
        }
        #expect(ask(0, 57)?.count == 12 + 57)
        #expect(ask(0, 57)?.load(at: 12, as: UInt64.self) == 0x1234)
        #expect(ask(20, 4)?.suffix(4) == [0, 2, 0, 0])
        #expect(ask(0, 256)?.count == 12 + 256)
        #expect(ask(1, 256) == [])
        #expect(ask(.max, 1) == [])
    }

    @Test("only the writeback byte can be set, and only by the guest")
    func setConfig() throws {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate()
        func set(_ offset: UInt32, _ flags: UInt32, _ bytes: [UInt8]) -> UInt64? {
            front.acknowledge(
                .setConfig, offset.bytes + UInt32(bytes.count).bytes + flags.bytes + bytes)
        }
        #expect(set(32, 0, [0]) == 0)
        let byte = front.ask(.getConfig, UInt32(32).bytes + UInt32(1).bytes + UInt32(0).bytes)
        #expect(byte?.payload.last == 0)
        #expect(set(32, 0, [1]) == 0)
        #expect(set(32, 0, [2]) == 1)
        #expect(set(32, 1, [0]) == 1)
        #expect(set(0, 0, [0]) == 1)
        #expect(set(32, 0, [0, 0]) == 1)
        #expect(set(.max, 0, [0]) == 1)
    }

    @Test("a new front end finds writeback on; one that comes back keeps the guest's choice")
    func writebackAcrossConnections() throws {
        let fixture = try VhostFixture()
        var front = fixture.frontEnd
        front.negotiate()
        _ = front.acknowledge(
            .setConfig, UInt32(32).bytes + UInt32(1).bytes + UInt32(0).bytes + [0])
        front.hangUp()
        fixture.rig.settle()

        front = PretendedFrontEnd(fixture.rig, path: fixture.path)
        front.send(.setProtocolFeatures, ProtocolFeatures.offered.rawValue.bytes)
        front.send(.setFeatures, PretendedFrontEnd.usualFeatures.rawValue.bytes)
        #expect(front.add(front.region()) == 0)
        let queue = PretendedQueue(front)
        queue.start()
        _ = queue.add(write, write: [UInt8](repeating: 1, count: 512))
        queue.run()
        #expect(fixture.rig.seen.last?.forceUnitAccess == true)
        front.hangUp()
        fixture.rig.settle()

        let last = PretendedFrontEnd(fixture.rig, path: fixture.path)
        last.negotiate()
        let byte = last.ask(.getConfig, UInt32(32).bytes + UInt32(1).bytes + UInt32(0).bytes)
        #expect(byte?.payload.last == 1)
    }

    @Test("a new size is told on the back end's socket")
    func resize() throws {
        let fixture = try VhostFixture(sectors: 8)
        let front = fixture.frontEnd
        front.negotiate()
        var pair: [Int32] = [0, 0]
        #expect(parallax_socket_pair(&pair, 1) == 0)
        defer { close(pair[0]) }
        #expect(front.acknowledge(.setBackendRequestSocket, files: [pair[1]]) == 0)
        close(pair[1])
        fixture.rig.device.pointee.resize(sectors: 16)
        var bytes = [UInt8](repeating: 0, count: 64)
        #expect(parallax_receive(pair[0], &bytes, 64) == 12)
        #expect(Array(bytes[..<12]) == UInt32(2).bytes + UInt32(1).bytes + UInt32(0).bytes)
        let size = front.ask(.getConfig, UInt32(0).bytes + UInt32(8).bytes + UInt32(0).bytes)
        #expect(size?.payload.load(at: 12, as: UInt64.self) == 16)
        let queue = PretendedQueue(front)
        queue.start()
        // Inside the new size; the pretended disk itself is not larger.
        let request = queue.add(read, sector: 15, read: 512)
        queue.run()
        #expect(fixture.rig.seen.count == 1)
        #expect(queue.status(request) == 1)
    }

    @Test("a socket for our requests that nobody reads does not stop the device")
    func resizeStorm() throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        var pair: [Int32] = [0, 0]
        #expect(parallax_socket_pair(&pair, 0) == 0)
        defer { close(pair[0]) }
        #expect(fixture.frontEnd.acknowledge(.setBackendRequestSocket, files: [pair[1]]) == 0)
        close(pair[1])
        for size in 1..<20_000 { fixture.rig.device.pointee.resize(sectors: UInt64(size)) }
        #expect(fixture.frontEnd.ask(.getFeatures) != nil)
    }

    @Test("GET_VRING_BASE stops the queue and answers after the last reply")
    func queueBaseWaits() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        for _ in 0..<3 { _ = queue.add(read, read: 512) }
        queue.run()
        #expect(queue.stop() == nil)
        // Messages behind it wait as well, and so do new requests.
        fixture.frontEnd.send(.getQueueCount)
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(fixture.frontEnd.receive() == nil)
        #expect(fixture.rig.held.count == 3)
        fixture.rig.release()
        fixture.rig.settle()
        #expect(queue.usedIndex == 3)
        #expect(fixture.frontEnd.receive()?.payload == UInt32(0).bytes + UInt32(3).bytes)
        #expect(fixture.frontEnd.receive()?.number == 16)

        // It goes on where it was.
        fixture.rig.isHolding = false
        fixture.frontEnd.send(.setQueueBase, fixture.frontEnd.queueNumber(0, 3))
        fixture.frontEnd.send(.setQueueKick, UInt64(0).bytes, files: [queue.kick])
        fixture.rig.settle()
        #expect(queue.usedIndex == 4)
    }

    @Test("a queue works when it is both started and enabled, and only then")
    func startedAndEnabled() throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        let queue = PretendedQueue(fixture.frontEnd)
        queue.start(enable: false)
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 0)
        // What came before it was enabled is found without another kick.
        fixture.frontEnd.send(.setQueueEnable, fixture.frontEnd.queueNumber(0, 1))
        fixture.rig.settle()
        #expect(queue.usedIndex == 1)
        fixture.frontEnd.send(.setQueueEnable, fixture.frontEnd.queueNumber(0, 0))
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 1)
    }

    @Test("without protocol features a queue starts enabled")
    func legacyEnable() throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate(features: [.version1, .flush])
        let queue = PretendedQueue(fixture.frontEnd)
        queue.start(enable: false)
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 1)
    }

    @Test("a running queue cannot be moved, resized or rewound; the same again is fine")
    func busyQueue() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        let front = fixture.frontEnd
        #expect(front.acknowledge(.setQueueSize, front.queueNumber(0, 64)) == 1)
        #expect(front.acknowledge(.setQueueSize, front.queueNumber(0, 128)) == 0)
        #expect(front.acknowledge(.setQueueBase, front.queueNumber(0, 0)) == 1)
        #expect(front.acknowledge(.setQueueAddresses, queue.addresses) == 0)
        let other = PretendedQueue(front, 1)
        let moved = UInt32(0).bytes + other.addresses.dropFirst(4)
        #expect(front.acknowledge(.setQueueAddresses, moved) == 1)
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(queue.usedIndex == 1)
    }

    @Test("the call descriptor may be replaced at any time, or taken away")
    func replaceCall() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start(features: [.version1, .flush, .protocolFeatures])
        let other = PretendedQueue(fixture.frontEnd, 1)
        fixture.frontEnd.send(.setQueueCall, UInt64(0).bytes, files: [other.call])
        // What had been signalled on the old one may be lost, so the new one is signalled.
        #expect(other.takeCalls() == 1)
        _ = queue.takeCalls()
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(other.takeCalls() == 1)
        #expect(queue.takeCalls() == 0)
        fixture.frontEnd.send(.setQueueCall, UInt64(0x100).bytes)
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(other.takeCalls() == 0)
        #expect(queue.usedIndex == 2)
    }

    @Test("after a disconnect the answers are dropped and nobody is let in before the last")
    func disconnectWithRequests() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        let request = queue.add(read, read: 512, cut: 256)
        _ = queue.add(write, write: VhostFixture.pattern(8192), cut: 256, isIndirect: true)
        queue.run()
        #expect(fixture.rig.held.count == 2)
        fixture.frontEnd.hangUp()
        fixture.rig.settle()
        #expect(fixture.rig.inFlight == 2)

        let next = PretendedFrontEnd(fixture.rig, path: fixture.path)
        next.send(.getFeatures)
        #expect(next.receive() == nil)
        // The engine still uses the memory of the one before.
        fixture.rig.release()
        #expect(fixture.disk(sector: 0, count: 8192) == VhostFixture.pattern(8192))
        #expect(queue.usedIndex == 0)
        #expect(queue.status(request) == 0xff)
        fixture.rig.settle()
        #expect(next.receive()?.request == 1)
        #expect(fixture.rig.inFlight == 0)
    }

    @Test("stop answers what is in flight, closes, and removes the path")
    func stopWithRequests() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        let request = queue.add(read, read: 512)
        queue.run()
        fixture.rig.device.pointee.stop(registrar: &fixture.rig.registrar)
        #expect(!fixture.rig.isDrained)
        #expect(PretendedFrontEnd.connect(fixture.path) == -ENOENT)
        _ = queue.add(read, read: 512)
        queue.run()
        #expect(fixture.rig.held.count == 1)
        fixture.rig.release()
        #expect(fixture.rig.isDrained)
        #expect(queue.status(request) == 0)
        #expect(queue.usedIndex == 1)
        #expect(fixture.frontEnd.becomesDisconnected)
        #expect(fixture.rig.registrar.watched.isEmpty)
    }

    @Test("stop without anything in flight ends at once", arguments: [false, true])
    func stopIdle(connected: Bool) throws {
        let fixture = try VhostFixture()
        if connected { _ = fixture.start() } else { fixture.frontEnd.hangUp() }
        fixture.rig.settle()
        fixture.rig.device.pointee.stop(registrar: &fixture.rig.registrar)
        #expect(fixture.rig.isDrained)
        #expect(fixture.rig.registrar.watched.isEmpty)
    }
}
