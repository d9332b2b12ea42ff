// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxVhost
import Testing

/// Queues that are stopped and started again, at the addresses that they had, as a guest does that
/// resets the device (a driver bound anew, kexec, resume, a reboot into the same kernel).
@Suite("vhost-user queues that start again")
struct VhostRestartTests {
    /// A queue that has served five requests and was stopped.
    private func stoppedQueue(_ fixture: VhostFixture) -> PretendedQueue {
        let queue = fixture.start()
        serve(queue, count: 5)
        #expect(queue.stop() == 5)
        return queue
    }

    private func areaAndQueue(_ fixture: VhostFixture) throws -> (KeptArea, PretendedQueue) {
        fixture.frontEnd.negotiate()
        let area = try #require(KeptArea(fixture.frontEnd))
        #expect(area.give(fixture.frontEnd) == 0)
        let queue = PretendedQueue(fixture.frontEnd)
        queue.start()
        return (area, queue)
    }

    private func serve(_ queue: PretendedQueue, count: Int) {
        for _ in 0..<count {
            let request = queue.add(VhostRequestTests.read, read: 512)
            queue.run()
            let used = queue.reap()
            #expect(used?.head == UInt32(request.head) && used?.byteCount == 513)
            #expect(queue.status(request) == 0)
        }
    }

    @Test("a ring made anew in the same place is answered from its own used index on")
    func sameAddresses() throws {
        let fixture = try VhostFixture()
        let queue = stoppedQueue(fixture)
        queue.start()
        serve(queue, count: 3)
        #expect(queue.usedIndex == 3)
        // And anywhere else.
        #expect(queue.stop() == 3)
        queue.start(at: 65534)
        serve(queue, count: 4)
        #expect(queue.usedIndex == 2)
    }

    @Test("a ring that goes on is answered where it was")
    func goingOn() throws {
        let fixture = try VhostFixture()
        let queue = stoppedQueue(fixture)
        queue.resume()
        serve(queue, count: 2)
        #expect(queue.usedIndex == 7)
    }

    @Test("a ring made anew finds nothing of the old one in the in-flight area")
    func withArea() throws {
        let fixture = try VhostFixture()
        let (area, queue) = try areaAndQueue(fixture)
        serve(queue, count: 5)
        #expect(queue.stop() == 5)
        queue.start()
        serve(queue, count: 2)
        #expect(fixture.rig.seen.count == 7)
        #expect(area.usedIndex == 2 && area.markedHeads == [])
    }

    @Test("what was in flight when a ring broke is not made again after a reset")
    func brokenWithArea() throws {
        let fixture = try VhostFixture()
        let (area, queue) = try areaAndQueue(fixture)
        fixture.rig.isHolding = true
        _ = queue.add(VhostRequestTests.write, write: VhostFixture.pattern(512))
        queue.run()
        queue.setAvailableIndex(1000)
        queue.kickAlways()
        fixture.rig.settle()
        #expect(queue.takeErrors() == 1 && area.markedHeads.count == 1)
        fixture.rig.release()
        fixture.rig.settle()
        #expect(queue.stop() == 1)
        #expect(area.markedHeads == [])

        fixture.rig.isHolding = false
        queue.start()
        serve(queue, count: 2)
        #expect(fixture.rig.seen.count == 3)
    }

    @Test("an answer that a broken ring still owed is not shown when memory is added later")
    func brokenUnshown() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        // An answer of the batch in which the ring breaks.
        _ = queue.add(8, read: 20)
        queue.setAvailableEntry(5000)
        queue.run()
        #expect(queue.takeErrors() == 1 && queue.usedIndex == 0)
        #expect(queue.stop() == 1)
        let front = fixture.frontEnd
        let table = UInt32(1).bytes + UInt32(0).bytes + front.region().bytes
        #expect(front.acknowledge(.setMemoryTable, table, files: [front.memoryFile]) == 0)
        #expect(queue.usedIndex == 0)
    }
}
