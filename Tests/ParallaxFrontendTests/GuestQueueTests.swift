// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxGuest
import Testing

@Suite struct GuestQueueTests {
    /// One queue with its memory, as a `BlockDriver` makes it.
    struct Fixture: ~Copyable {
        let memory: GuestMemory
        var queue: DriverQueue
        var ring: GuestRing

        init(
            size: Int = 16, slots: Int = 4, bytes: Int = 8192, segment: Int = 4096,
            indirect: Bool = true, eventIndex: Bool = true
        ) throws {
            let layout = try QueueLayout(
                size: size, slotCount: slots, bufferBytes: bytes, dataSegmentBytes: segment,
                usesIndirect: indirect)
            let memory = try GuestMemory(regions: [
                (0, layout.structureBytes), (1 << 32, layout.dataBytes),
            ])
            let queue = try DriverQueue.make(
                index: 0, layout: layout, usesEventIndex: eventIndex, in: memory)
            self.memory = memory
            self.queue = queue
            ring = GuestRing(self.queue)
        }

        mutating func submit(_ operation: BlockOperation, sector: UInt64, bytes: Int) -> Int? {
            // The macros cannot take noncopyable values: calls on them go to locals first.
            guard let slot = queue.reserve() else { return nil }
            queue.submit(
                slot: slot, operation, firstSector: sector, byteCount: bytes,
                tag: UInt64(slot) + 100)
            return slot
        }

        mutating func nextHead() throws -> UInt16 {
            let head = ring.takeHead()
            return try #require(head)
        }
    }

    @Test("a chain is header, data in pieces, status", arguments: [true, false])
    func chain(indirect: Bool) throws {
        var fixture = try Fixture(indirect: indirect)
        let submitted = fixture.submit(.read, sector: 9, bytes: 5120)
        let slot = try #require(submitted)
        fixture.queue.publish()
        let head = try fixture.nextHead()
        let chain = fixture.ring.chain(from: head, in: fixture.memory)
        let (header, status, data) = fixture.queue.addresses(ofSlot: slot)
        #expect(chain.map(\.guestAddress) == [header, data, data + 4096, status])
        #expect(chain.map(\.byteCount) == [16, 4096, 1024, 1])
        #expect(chain.map { $0.flags & Descriptor.deviceWritableFlag } == [0, 2, 2, 2])
        let place = fixture.memory.pointer(to: header, byteCount: 16)
        let bytes = try #require(place)
        #expect(bytes.load(as: UInt32.self) == BlockOperation.read.rawValue)
        #expect(bytes.load(fromByteOffset: 8, as: UInt64.self) == 9)
        if indirect {
            #expect(fixture.ring.descriptor(head).byteCount == 64)
        }
    }

    @Test("the data of a write is device-readable, a flush has none", arguments: [true, false])
    func directions(indirect: Bool) throws {
        var fixture = try Fixture(indirect: indirect)
        _ = fixture.submit(.write, sector: 0, bytes: 512)
        _ = fixture.submit(.flush, sector: 0, bytes: 0)
        fixture.queue.publish()
        let write = try fixture.nextHead()
        let flush = try fixture.nextHead()
        let writeChain = fixture.ring.chain(from: write, in: fixture.memory)
        let flushChain = fixture.ring.chain(from: flush, in: fixture.memory)
        #expect(writeChain.map { $0.flags & Descriptor.deviceWritableFlag } == [0, 0, 2])
        #expect(flushChain.map(\.byteCount) == [16, 1])
    }

    @Test("nothing is shown before publish")
    func publishing() throws {
        var fixture = try Fixture()
        _ = fixture.submit(.flush, sector: 0, bytes: 0)
        #expect(fixture.ring.availableIndex == 0)
        fixture.queue.publish()
        #expect(fixture.ring.availableIndex == 1)
        let isKicked = fixture.queue.publish()
        #expect(!isKicked)
    }

    @Test("slots run out, and come back out of order", arguments: [true, false])
    func slots(indirect: Bool) throws {
        var fixture = try Fixture(indirect: indirect)
        for _ in 0..<4 { _ = fixture.submit(.flush, sector: 0, bytes: 0) }
        #expect(fixture.queue.inFlightCount == 4)
        let none = fixture.queue.reserve()
        #expect(none == nil)
        fixture.queue.publish()
        var heads: [UInt16] = []
        while let head = fixture.ring.takeHead() { heads.append(head) }
        for head in heads.reversed() {
            fixture.ring.finish(head: head, status: 0, in: fixture.memory)
        }
        var tags: [UInt64] = []
        while let completion = try fixture.queue.reap() {
            #expect(completion.status == BlockStatusByte.ok)
            tags.append(completion.tag)
        }
        #expect(tags == [103, 102, 101, 100])
        #expect(fixture.queue.inFlightCount == 0)
    }

    @Test("the 16-bit ring counters wrap", arguments: [true, false])
    func wrap(eventIndex: Bool) throws {
        var fixture = try Fixture(eventIndex: eventIndex)
        for round in 0..<70_000 {
            _ = fixture.submit(.flush, sector: 0, bytes: 0)
            fixture.queue.publish()
            guard let head = fixture.ring.takeHead() else {
                Issue.record("round \(round): nothing available")
                return
            }
            fixture.ring.finish(head: head, status: UInt8(round & 1), in: fixture.memory)
            guard let completion = try fixture.queue.reap() else {
                Issue.record("round \(round): nothing used")
                return
            }
            guard completion.status == UInt8(round & 1) else {
                Issue.record("round \(round): status \(completion.status)")
                return
            }
        }
        #expect(fixture.ring.availableIndex == UInt16(truncatingIfNeeded: 70_000))
    }

    @Test("with EVENT_IDX a kick happens only when the announced index is crossed")
    func kicksByEvent() throws {
        var fixture = try Fixture()
        func publish(_ count: Int, event: UInt16) -> Bool {
            fixture.ring.setKickEvent(event)
            for _ in 0..<count { fixture.queue.pushAvailable(0) }
            return fixture.queue.publish()
        }
        let first = publish(1, event: 0)
        let behind = publish(1, event: 0)
        let ahead = publish(1, event: 3)
        let crossed = publish(3, event: 4)
        #expect([first, behind, ahead, crossed] == [true, false, false, true])
        fixture.queue.setAvailableIndex(0xFFFE)
        let wrapped = publish(4, event: 0xFFFF)
        let after = publish(4, event: 0xFFFF)
        #expect([wrapped, after] == [true, false])
        #expect(fixture.queue.kickCount == 3)
    }

    @Test("without EVENT_IDX the used ring's flag suppresses kicks")
    func kicksByFlag() throws {
        var fixture = try Fixture(eventIndex: false)
        fixture.queue.pushAvailable(0)
        let wanted = fixture.queue.publish()
        fixture.ring.setUsedFlags(1)
        fixture.queue.pushAvailable(0)
        let unwanted = fixture.queue.publish()
        #expect([wanted, unwanted] == [true, false])
    }

    @Test("a call is asked for only when there is something to wait for", arguments: [true, false])
    func calls(eventIndex: Bool) throws {
        var fixture = try Fixture(eventIndex: eventIndex)
        if !eventIndex { #expect(fixture.ring.availableFlags == 1) }
        _ = fixture.submit(.flush, sector: 0, bytes: 0)
        fixture.queue.publish()
        let mustWait = fixture.queue.requestCall()
        #expect(mustWait)
        #expect(fixture.ring.availableFlags == 0)
        let head = try fixture.nextHead()
        fixture.ring.finish(head: head, status: 0, in: fixture.memory)
        let mustWaitAgain = fixture.queue.requestCall()
        #expect(!mustWaitAgain)
        _ = try fixture.queue.reap()
        _ = fixture.queue.requestCall()
        if eventIndex { #expect(fixture.ring.callEvent == 1) }
        fixture.queue.suppressCalls()
        if !eventIndex { #expect(fixture.ring.availableFlags == 1) }
    }

    @Test(
        "a device that finishes what is not in flight is caught",
        arguments: [0, 1, 15, 16, 65535, UInt32.max])
    func wrongCompletions(head: UInt32) throws {
        var fixture = try Fixture(indirect: false)
        fixture.ring.use(head: head)
        do throws(GuestError) {
            _ = try fixture.queue.reap()
            Issue.record("head \(head) was taken")
        } catch {
            #expect(error.kind == .violation)
        }
    }

    @Test("a request that is finished twice is caught")
    func doubleCompletion() throws {
        var fixture = try Fixture()
        _ = fixture.submit(.flush, sector: 0, bytes: 0)
        fixture.queue.publish()
        let head = try fixture.nextHead()
        fixture.ring.finish(head: head, status: 0, in: fixture.memory)
        fixture.ring.use(head: UInt32(head))
        let first = try fixture.queue.reap()
        #expect(first?.tag == 100)
        do throws(GuestError) {
            _ = try fixture.queue.reap()
            Issue.record("the second completion was taken")
        } catch {
            #expect(error.kind == .violation)
        }
    }
}
