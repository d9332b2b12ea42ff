// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxSimulation
import ParallaxVhost
import Testing

@Suite("split virtqueues")
struct VhostRingTests {
    private let read = VhostRequestTests.read
    private let write = VhostRequestTests.write

    @Test("a batch is answered with one call, after one kick")
    func oneCallPerBatch() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.settle()
        _ = queue.takeCalls()
        for _ in 0..<16 { _ = queue.add(read, read: 512) }
        queue.setUsedEvent(queue.nextUsed)
        queue.show()
        #expect(queue.kickCount == 1)
        fixture.rig.settle()
        #expect(queue.usedIndex == 16)
        #expect(queue.takeCalls() == 1)
        #expect(queue.availableEvent == 16)
    }

    @Test("with EVENT_IDX the guest is called exactly when the used index passes its event")
    func eventIndex() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        // The first call after the start always comes.
        _ = queue.add(read, read: 512)
        queue.run()
        fixture.rig.release()
        _ = queue.takeCalls()

        for event: UInt16 in [0, 1, 2, 3, 4, 5, 6, 10, .max] {
            let old = queue.usedIndex
            queue.setUsedEvent(old &+ event)
            for _ in 0..<5 { _ = queue.add(read, read: 512) }
            queue.run()
            fixture.rig.release()
            #expect(queue.usedIndex == old &+ 5)
            #expect(queue.takeCalls() == (event < 5 ? 1 : 0))
            queue.frontEnd.freeAll()
        }
    }

    @Test("without EVENT_IDX the flag decides about calls, and the guest always kicks")
    func flags() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start(features: [.version1, .flush, .protocolFeatures])
        _ = queue.takeCalls()
        for flag: UInt16 in [0, 1, 0] {
            queue.setAvailableFlags(flag)
            _ = queue.add(read, read: 512)
            queue.run()
            #expect(queue.takeCalls() == (flag == 0 ? 1 : 0))
        }
        #expect(queue.usedIndex == 3)
    }

    @Test("while requests wait to be taken the guest need not kick")
    func kickSuppression() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        for number in 0..<40 {
            _ = queue.add(read, read: 512)
            queue.show()
            // The device sees only the first kick before its next turn.
            #expect(queue.kickCount == 1, "request \(number)")
        }
        fixture.rig.settle()
        #expect(fixture.rig.held.count == 40)
        _ = queue.add(read, read: 512)
        queue.show()
        #expect(queue.kickCount == 2)
        fixture.rig.settle()
        #expect(fixture.rig.held.count == 41)
    }

    @Test("indices wrap", arguments: [UInt16.max - 2, 0x7ffd, 65530])
    func wrap(first: UInt16) throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        let queue = PretendedQueue(fixture.frontEnd, size: 4)
        queue.start(at: first)
        for number in 0..<20 {
            let data = VhostFixture.pattern(512, seed: number)
            let write = queue.add(
                self.write, sector: UInt64(number), write: data, isIndirect: true)
            queue.run()
            #expect(queue.status(write) == 0)
            #expect(queue.reap()?.head == UInt32(write.head))
            #expect(fixture.disk(sector: number, count: 512) == data)
            fixture.frontEnd.freeAll()
        }
        #expect(queue.stop() == UInt32(first &+ 20))
    }

    @Test("queues are served side by side, with tags of their own")
    func multiQueue() throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        let queues = (0..<16).map { PretendedQueue(fixture.frontEnd, $0, size: 8) }
        for queue in queues { queue.start() }
        fixture.rig.isHolding = true
        let requests = queues.map { queue in
            queue.add(
                write, sector: UInt64(queue.index),
                write: [UInt8](repeating: UInt8(queue.index), count: 512))
        }
        for queue in queues { queue.run() }
        #expect(Set(fixture.rig.held.map(\.tag)).count == 16)
        fixture.rig.release()
        for (queue, request) in zip(queues, requests) {
            #expect(queue.status(request) == 0)
            #expect(queue.usedIndex == 1)
            #expect(fixture.disk(sector: queue.index, count: 1) == [UInt8(queue.index)])
        }
    }

    @Test("a full ring of 1024 requests is taken in turns, without losing one")
    func fullRing() throws {
        let fixture = try VhostFixture(queueCapacity: 2048)
        let queue = fixture.start(size: 1024)
        fixture.rig.isHolding = true
        for _ in 0..<1024 { _ = queue.add(read, read: 512, isIndirect: true) }
        queue.setAvailableIndex(1024)
        queue.kickAlways()
        fixture.rig.turn()
        #expect(fixture.rig.held.count == VhostLimits.requestsPerTurnMax)
        fixture.rig.settle()
        #expect(fixture.rig.held.count == VhostLimits.engineRequestsMax)
        while !fixture.rig.held.isEmpty {
            fixture.rig.release()
            fixture.rig.settle()
        }
        #expect(queue.usedIndex == 1024)
        #expect(Set((0..<1024).compactMap { _ in queue.reap()?.head }).count == 1024)
    }

    @Test("requests that find no room are taken when there is some, without a kick")
    func fullRequestQueue() throws {
        let fixture = try VhostFixture(queueCapacity: 4)
        let queue = fixture.start()
        let requests = (0..<30).map { _ in queue.add(read, read: 512) }
        queue.setAvailableIndex(30)
        queue.kickAlways()
        fixture.rig.settle()
        #expect(queue.usedIndex == 30)
        #expect(requests.allSatisfy { queue.status($0) == 0 })
    }

    @Test("ranges find their way to the engine one by one, while others keep it full")
    func rangesAsRoomAllows() throws {
        let fixture = try VhostFixture(queueCapacity: 4)
        let queue = fixture.start()
        fixture.rig.isHolding = true
        // Others: there is never more than one place.
        let other = BlockRequest(operation: .flush, vdi: 9, session: 9, tag: 0)
        for _ in 0..<3 { fixture.rig.requests.append(other) }
        let ranges = (0..<64).flatMap { VhostRequestTests.range(UInt64($0) * 2, 1) }
        let request = queue.add(VhostRequestTests.discard, write: ranges)
        let behind = queue.add(VhostRequestTests.read, read: 512)
        queue.setAvailableIndex(2)
        queue.kickAlways()
        let device = fixture.rig.device
        device.pointee.handleEvent(
            source: 16, interest: .readable, registrar: &fixture.rig.registrar,
            requests: &fixture.rig.requests)
        var taken: [BlockRequest] = []
        while taken.count < 65, !fixture.rig.requests.isEmpty {
            while let next = fixture.rig.requests.popFirst() {
                if next.operation != .flush { taken.append(next) }
            }
            for _ in 0..<3 { fixture.rig.requests.append(other) }
            device.pointee.finishBatch(
                registrar: &fixture.rig.registrar, requests: &fixture.rig.requests)
        }
        while fixture.rig.requests.popFirst() != nil {}
        #expect(taken.count == 65)
        #expect(Set(taken.dropLast().map(\.firstSector)) == Set((0..<64).map { UInt64($0) * 2 }))
        #expect(taken.last?.operation == .read)
        fixture.rig.held = taken
        fixture.rig.release()
        #expect(queue.status(request) == 0 && queue.status(behind) == 0)
    }

    @Test("ranges that wait when the front end goes are carried out, and let the next one in")
    func rangesWithoutFrontEnd() throws {
        let fixture = try VhostFixture(queueCapacity: 4)
        let queue = fixture.start()
        let ranges = (0..<64).flatMap { VhostRequestTests.range(UInt64($0), 1) }
        _ = queue.add(VhostRequestTests.discard, write: ranges)
        fixture.frontEnd.hangUp()
        queue.setAvailableIndex(1)
        queue.kickAlways()
        fixture.rig.device.pointee.handleEvent(
            source: 16, interest: .readable, registrar: &fixture.rig.registrar,
            requests: &fixture.rig.requests)
        fixture.rig.settle()
        #expect(fixture.rig.seen.count == 64 && !fixture.rig.isConnected)
        let next = PretendedFrontEnd(fixture.rig, path: fixture.path)
        #expect(next.ask(.getFeatures) != nil)
    }

    @Test("more scattered requests than lists wait for lists")
    func listExhaustion() throws {
        let fixture = try VhostFixture(queueCapacity: 2048)
        let queue = fixture.start(size: 1024)
        fixture.rig.isHolding = true
        let count = VhostLimits.pooledListCount + 50
        let requests = (0..<count).map { _ in
            queue.add(read, read: 4096, cut: 256, isIndirect: true)
        }
        queue.setAvailableIndex(UInt16(count))
        queue.kickAlways()
        fixture.rig.settle()
        #expect(fixture.rig.held.count == VhostLimits.pooledListCount)
        fixture.rig.isHolding = false
        fixture.rig.release()
        fixture.rig.settle()
        #expect(requests.allSatisfy { queue.status($0) == 0 })
        #expect(queue.usedIndex == UInt16(count))
    }

    @Test("any mix of requests does to the disk what it does to an array", arguments: 1...6)
    func randomMix(seed: UInt64) throws {
        let fixture = try VhostFixture(sectors: 64, queueCapacity: 16)
        fixture.rig.isRecording = false
        let features: VirtioFeatures =
            seed % 2 == 0
            ? PretendedFrontEnd.usualFeatures
            : PretendedFrontEnd.usualFeatures.subtracting([.eventIndex, .indirectDescriptors])
        let queue = fixture.start(features: features, size: 256)
        var random = SeededRandom(seed: seed)
        var model = [UInt8](repeating: 0, count: 64 * 512)
        for step in 0..<300 {
            let sectors = random.integer(in: 1...8)
            let sector = random.integer(in: 0...(64 - sectors))
            let range = (sector * 512)..<((sector + sectors) * 512)
            let cut = random.integer(in: sectors * 8...5000)
            let isIndirect = seed % 2 == 0 && random.chance(percent: 50)
            queue.nextDescriptor = 0
            switch random.index(below: 3) {
            case 0:
                let data = VhostFixture.pattern(range.count, seed: step)
                let request = queue.add(
                    write, sector: UInt64(sector), write: data, cut: cut, isIndirect: isIndirect)
                queue.run()
                #expect(queue.status(request) == 0)
                model.replaceSubrange(range, with: data)
            case 1:
                let request = queue.add(
                    read, sector: UInt64(sector), read: range.count, cut: cut,
                    isIndirect: isIndirect)
                queue.run()
                #expect(queue.status(request) == 0)
                let isEqual = queue.data(request) == Array(model[range])
                #expect(isEqual)
            default:
                let request = queue.add(
                    VhostRequestTests.writeZeroes,
                    write: VhostRequestTests.range(UInt64(sector), UInt32(sectors)), cut: cut)
                queue.run()
                #expect(queue.status(request) == 0)
                model.replaceSubrange(range, with: repeatElement(0, count: range.count))
            }
            #expect(queue.reap() != nil)
            fixture.frontEnd.freeAll()
        }
        #expect(fixture.holds(model, atSector: 0))
    }

    @Test("one guest has at most its share of the engine, and all its queues get some of it")
    func share() throws {
        let fixture = try VhostFixture(queueCapacity: 4096)
        fixture.frontEnd.negotiate()
        let queues = (0..<3).map { PretendedQueue(fixture.frontEnd, $0, size: 256) }
        for queue in queues { queue.start() }
        fixture.rig.isHolding = true
        for queue in queues {
            for _ in 0..<200 {
                _ = queue.add(VhostRequestTests.read, read: 512, isIndirect: true)
            }
            queue.run()
        }
        #expect(fixture.rig.held.count == VhostLimits.engineRequestsMax)
        var served = [0, 0, 0]
        while let request = fixture.rig.held.first {
            fixture.rig.held.removeFirst()
            served[Int(request.tag >> 16)] += 1
            fixture.rig.answerNow(request)
            fixture.rig.settle()
            #expect(fixture.rig.held.count <= VhostLimits.engineRequestsMax)
            // The third had nothing at first, and does not wait until the first two are done.
            if served.reduce(0, +) == 350 { #expect(served[2] > 0) }
        }
        #expect(served == [200, 200, 200])
    }
}
