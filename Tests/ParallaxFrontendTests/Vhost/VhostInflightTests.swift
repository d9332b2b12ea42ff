// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

/// What happens to requests that were in flight when the daemon died. The first device of each
/// test is one that dies: it holds all requests for ever, or its area is edited into the state in
/// which a process that was killed would have left it.
@Suite("vhost-user in-flight area")
struct VhostInflightTests {
    private static let write = VhostRequestTests.write

    /// Two devices, of which the second takes over from the first.
    private final class Scene {
        let fixture: VhostFixture
        let queue: PretendedQueue
        let area: KeptArea
        private(set) var next: VhostRig?

        init(size: Int = 128) throws {
            fixture = try VhostFixture()
            fixture.frontEnd.negotiate()
            area = try #require(KeptArea(fixture.frontEnd, size: UInt16(size)))
            #expect(area.give(fixture.frontEnd) == 0)
            queue = PretendedQueue(fixture.frontEnd, size: size)
            queue.start()
        }

        var front: PretendedFrontEnd { fixture.frontEnd }

        /// The first device dies; the front end finds the second. `isHolding`: so does that one
        /// hold what it gets.
        func restart(
            isHolding: Bool = false, queueCapacity: Int = 256, readsConfig: Bool = false
        ) throws -> VhostRig {
            let path = fixture.folder + "/other.sock"
            let rig = try VhostRig(path: path, queueCapacity: queueCapacity)
            rig.isHolding = isHolding
            next = rig
            front.reconnect(to: rig, path: path)
            front.negotiate(readsConfig: readsConfig)
            #expect(area.give(front) == 0)
            queue.resume()
            return rig
        }

        func addWrite(_ sector: Int) -> PretendedQueue.Request {
            queue.add(
                write, sector: UInt64(sector), write: VhostFixture.pattern(512, seed: sector))
        }

        func holds(_ rig: VhostRig, _ sector: Int) -> Bool {
            let range = (sector * 512)..<(sector * 512 + 512)
            return [UInt8](rig.disk[range]) == VhostFixture.pattern(512, seed: sector)
        }
    }

    @Test("the area has the layout of the specification, and room behind it", arguments: [20, 24])
    func layout(payloadByteCount: Int) throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        let asked = KeptArea.description(0, queues: 3, size: 256)
        fixture.frontEnd.send(.getInflightArea, Array(asked.prefix(payloadByteCount)))
        let answer = try #require(fixture.frontEnd.receiveWithFile())
        defer { close(answer.file) }
        // 16 + 256 * 16 is not a multiple of 64: 4160 a queue. Then 64 bytes of our own.
        let expected = KeptArea.description(3 * 4160 + 64, queues: 3, size: 256)
        #expect(answer.payload == Array(expected.prefix(payloadByteCount)))
        var status = stat()
        fstat(answer.file, &status)
        #expect(status.st_size == 3 * 4160 + 64)
        let layout = try #require(InflightLayout(queueCount: 3, queueSize: 256))
        #expect(layout.offset(ofQueue: 2) == 2 * 4160)
        #expect(ftruncate(answer.file, 0) != 0, "whoever has the file must not be able to cut it")
    }

    @Test("a request is marked from its taking to its answer, with a counter that grows")
    func marks() throws {
        let scene = try Scene()
        scene.fixture.rig.isHolding = true
        let heads = [scene.addWrite(0), scene.addWrite(1), scene.addWrite(2)].map(\.head)
        scene.queue.run()
        #expect(scene.area.version == 1)
        #expect(scene.area.markedHeads == heads)
        let counters = heads.map(scene.area.counter)
        #expect(counters == [counters[0], counters[0] + 1, counters[0] + 2])
        scene.fixture.rig.release()
        #expect(scene.area.markedHeads == [])
        #expect(scene.area.usedIndex == 3)
        #expect(scene.queue.usedIndex == 3)
    }

    @Test("what was in flight is made again, oldest first, before what is new; each once")
    func resubmission() throws {
        let scene = try Scene()
        scene.fixture.rig.isHolding = true
        // Heads in an order that is not that of their numbers.
        scene.queue.nextDescriptor = 40
        var requests = [scene.addWrite(0), scene.addWrite(1)]
        scene.queue.nextDescriptor = 10
        requests += [scene.addWrite(2), scene.addWrite(3)]
        scene.queue.nextDescriptor = 80
        requests.append(scene.addWrite(4))
        scene.queue.run()
        // One is answered before, out of order, and its place in the ring is used again.
        let middle = scene.fixture.rig.held.remove(at: 2)
        scene.fixture.rig.answerNow(middle)
        #expect(scene.queue.usedIndex == 1)
        let new = scene.addWrite(5)
        scene.queue.setAvailableIndex(scene.queue.nextAvailable)

        let rig = try scene.restart(isHolding: true)
        #expect(rig.seen.map(\.firstSector) == [0, 1, 3, 4, 5])
        #expect(scene.queue.usedIndex == 1)
        rig.release()
        #expect(scene.queue.usedIndex == 6)
        let reaped = (0..<6).map { _ in scene.queue.reap()?.head ?? 999 }
        #expect(reaped.first == UInt32(requests[2].head))
        #expect(reaped.sorted() == (requests + [new]).map { UInt32($0.head) }.sorted())
        #expect((requests + [new]).allSatisfy { scene.queue.status($0) == 0 })
        for sector in [0, 1, 3, 4, 5] { #expect(scene.holds(rig, sector)) }
        #expect(scene.area.markedHeads == [])
        // Business as usual.
        rig.isHolding = false
        let last = scene.addWrite(6)
        scene.queue.run()
        #expect(scene.queue.status(last) == 0)
    }

    @Test("killed with answers written and not yet shown: they are made again")
    func killedBeforeShown() throws {
        let scene = try Scene()
        scene.fixture.rig.isHolding = true
        let requests = [scene.addWrite(0), scene.addWrite(1)]
        scene.queue.run()
        // `complete` without `finishBatch` is where the process ends.
        for request in scene.fixture.rig.held {
            scene.fixture.rig.device.pointee.complete(tag: request.tag, status: .ok)
        }
        scene.fixture.rig.held = []
        #expect(scene.queue.usedIndex == 0)
        let rig = try scene.restart()
        #expect(rig.seen.map(\.firstSector) == [0, 1])
        #expect(scene.queue.usedIndex == 2)
        #expect(requests.allSatisfy { scene.queue.status($0) == 0 })
    }

    @Test(
        "killed between showing a batch and clearing it: nothing of it is made again",
        arguments: 0...3)
    func killedBeforeClear(cleared: Int) throws {
        let scene = try Scene()
        let old = (0..<2).map { scene.addWrite($0) }
        scene.queue.run()
        scene.fixture.rig.isHolding = true
        let batch = (2..<5).map { scene.addWrite($0) }
        let waiting = scene.addWrite(5)
        scene.queue.run()
        let last = scene.fixture.rig.held.removeLast()
        scene.fixture.rig.release()
        scene.fixture.rig.held = [last]
        #expect(scene.queue.usedIndex == 5)
        // `release` answers the newest first, and the clearing begins with the last answer.
        for request in batch.dropFirst(cleared) { scene.area.mark(request.head) }
        scene.area.usedIndex = 2

        let rig = try scene.restart()
        #expect(rig.seen.map(\.firstSector) == [5])
        #expect(scene.queue.usedIndex == 6)
        #expect(scene.area.usedIndex == 6)
        #expect(scene.area.markedHeads == [])
        #expect((old + batch + [waiting]).allSatisfy { scene.queue.status($0) == 0 })
        let next = scene.addWrite(6)
        scene.queue.run()
        #expect(scene.queue.status(next) == 0)
    }

    @Test("requests that find no room keep their order, over a second death")
    func secondDeath() throws {
        let scene = try Scene()
        scene.fixture.rig.isHolding = true
        for sector in 0..<40 { _ = scene.addWrite(sector) }
        scene.queue.run()
        // The engine takes a few at a time, and then this device dies as well.
        let second = try scene.restart(isHolding: true, queueCapacity: 8)
        second.settle()
        #expect(second.seen.map(\.firstSector) == (0..<40).map(UInt64.init))
        let path = scene.fixture.path
        scene.front.reconnect(to: scene.fixture.rig, path: path)
        scene.fixture.rig.release()
        scene.fixture.rig.settle()
        scene.fixture.rig.seen = []
        scene.fixture.rig.isHolding = false
        scene.front.negotiate(readsConfig: false)
        #expect(scene.area.give(scene.front) == 0)
        scene.queue.resume()
        #expect(scene.fixture.rig.seen.map(\.firstSector) == (0..<40).map(UInt64.init))
        #expect(scene.queue.usedIndex == 40)
        #expect(scene.area.markedHeads == [])
    }

    @Test("a guest that was not called before the death is called after it")
    func lostCall() throws {
        let scene = try Scene()
        _ = scene.addWrite(0)
        scene.queue.run()
        _ = scene.queue.takeCalls()
        let rig = try scene.restart()
        #expect(rig.seen.isEmpty)
        #expect(scene.queue.takeCalls() > 0)
    }

    @Test("indexes that wrap around, and requests that are answered without the engine")
    func wrap() throws {
        let scene = try Scene(size: 16)
        for round in 0..<5000 {
            let known = scene.queue.add(8, read: 20)
            let unknown = scene.queue.add(77)
            scene.queue.run()
            #expect(scene.queue.status(known) == 0)
            #expect(scene.queue.status(unknown) == 2)
            if scene.front.isCrowded { scene.front.freeAll() }
            if round % 500 == 499 { #expect(scene.area.markedHeads == []) }
            scene.queue.nextDescriptor = (scene.queue.nextDescriptor + 15) / 16 * 16 % 16
        }
        let count: UInt16 = 10_000
        #expect(scene.area.usedIndex == count)
        scene.fixture.rig.isHolding = true
        _ = scene.addWrite(9)
        scene.queue.run()
        let rig = try scene.restart()
        #expect(rig.seen.map(\.firstSector) == [9])
        #expect(scene.queue.usedIndex == count + 1)
    }
}

extension VhostInflightTests {
    private func setWriteback(_ front: PretendedFrontEnd, _ isOn: Bool) -> UInt64? {
        front.acknowledge(
            .setConfig,
            UInt32(32).bytes + UInt32(1).bytes + UInt32(0).bytes + [UInt8(isOn ? 1 : 0)])
    }

    @Test("the guest's choice of writeback is kept over a restart", arguments: [false, true])
    func writeback(isOn: Bool) throws {
        let scene = try Scene()
        if !isOn { #expect(setWriteback(scene.front, false) == 0) }
        let rig = try scene.restart()
        _ = scene.addWrite(0)
        scene.queue.run()
        #expect(rig.seen.map(\.forceUnitAccess) == [!isOn])
    }

    @Test("without an area a front end that connects again gets durable writes, to be safe")
    func unknownWriteback() throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate(readsConfig: false)
        let queue = PretendedQueue(fixture.frontEnd)
        queue.start()
        _ = queue.add(Self.write, write: VhostFixture.pattern(512))
        queue.run()
        #expect(fixture.rig.seen.map(\.forceUnitAccess) == [true])
    }
}
