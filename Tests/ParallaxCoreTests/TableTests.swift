// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("Tables of fixed size")
struct TableTests {
    @Test("IntegerMap agrees with a dictionary under random inserts and removals", arguments: 1...8)
    func integerMap(seed: Int) {
        var generator = SeededRandom(seed: UInt64(seed))
        var map = IntegerMap(capacity: 200)
        var model: [UInt64: UInt32] = [:]
        for step in 0..<20_000 {
            let key = UInt64.random(in: 1...300, using: &generator) << 24
            if model[key] == nil, model.count < 200 {
                map.insert(key, UInt32(step))
                model[key] = UInt32(step)
            } else {
                let isRemoved = map.remove(key)
                #expect(isRemoved == (model.removeValue(forKey: key) != nil))
            }
            let probe = UInt64.random(in: 1...300, using: &generator) << 24
            #expect(map.find(probe) == model[probe])
            #expect(map.count == model.count)
        }
    }

    @Test("a slot table gives each slot once until it is full")
    func slotTable() {
        var table = SlotTable(capacity: 5, repeating: 0)
        var taken: Set<Int> = []
        while let slot = table.take() { #expect(taken.insert(slot).inserted) }
        #expect(taken == [0, 1, 2, 3, 4])
        table.giveBack(3)
        let again = table.take()
        let none = table.take()
        #expect(again == 3)
        #expect(none == nil)
    }

    @Test("a ring is first in, first out, across many wraps")
    func fixedRing() {
        var ring = FixedRing<Int>(minimumCapacity: 5)
        #expect(ring.capacity == 8)
        var next = 0
        var expected = 0
        for round in 0..<1000 {
            for _ in 0..<(round % 9) where !ring.isFull {
                ring.append(next)
                next += 1
            }
            for _ in 0..<(round % 7) {
                guard let element = ring.popFirst() else { break }
                #expect(element == expected)
                expected += 1
            }
        }
        #expect(ring.count == next - expected)
    }

    @Test("slots are handed out lowest first, once each, and only within the store")
    func slotAllocator() {
        var allocator = SlotAllocator(slotCount: 70)
        let marked = [1, 1, 70].map { allocator.markUsed(ExtentSlot($0)) }
        #expect(marked == [true, false, false])
        var given: [UInt32] = []
        while let slot = allocator.allocate() { given.append(slot.rawValue) }
        #expect(given == [0] + Array(2..<70))
        #expect(allocator.freeCount == 0)
        allocator.release(ExtentSlot(42))
        allocator.release(ExtentSlot(7))
        let again = [allocator.allocate(), allocator.allocate()]
        #expect(again == [ExtentSlot(7), ExtentSlot(42)])
    }
}
