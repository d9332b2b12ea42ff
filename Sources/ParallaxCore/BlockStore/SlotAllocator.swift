// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Which physical slots of the store are free. One per store, shared by its streams; whoever owns
/// it (a lock in the daemon, nobody else in the simulator) calls it from one thread at a time.
///
/// A slot that no stream's checkpoint or log names is free, so nothing of this is on disk: after
/// opening, every stream's slots are marked used.
package struct SlotAllocator: Sendable {
    private var words: [UInt64]
    private var firstMaybeFree = 0
    package private(set) var slotCount: Int
    package private(set) var freeCount: Int

    package init(slotCount: Int) {
        self.slotCount = slotCount
        freeCount = slotCount
        words = Array(repeating: 0, count: (slotCount + 63) / 64)
        if slotCount % 64 != 0 {
            words[words.count - 1] = ~0 << UInt64(slotCount % 64)
        }
    }

    /// Marks a slot that a stream owns. False when it is out of range or owned already: two
    /// streams claim it, and the store is damaged.
    package mutating func markUsed(_ slot: ExtentSlot) -> Bool {
        let index = Int(slot.rawValue)
        guard index < slotCount, words[index / 64] & 1 << UInt64(index % 64) == 0 else {
            return false
        }
        words[index / 64] |= 1 << UInt64(index % 64)
        freeCount -= 1
        return true
    }

    /// The lowest free slot, so that a file store grows from its beginning.
    package mutating func allocate() -> ExtentSlot? {
        while firstMaybeFree < words.count {
            let free = ~words[firstMaybeFree]
            if free != 0 {
                let index = firstMaybeFree * 64 + free.trailingZeroBitCount
                words[firstMaybeFree] |= 1 << UInt64(index % 64)
                freeCount -= 1
                return ExtentSlot(UInt32(index))
            }
            firstMaybeFree += 1
        }
        return nil
    }

    package mutating func release(_ slot: ExtentSlot) {
        let index = Int(slot.rawValue)
        precondition(
            index < slotCount && words[index / 64] & 1 << UInt64(index % 64) != 0,
            "SlotAllocator: releasing a slot that is free")
        words[index / 64] &= ~(1 << UInt64(index % 64))
        firstMaybeFree = min(firstMaybeFree, index / 64)
        freeCount += 1
    }

    /// Adds free slots behind the last one. A smaller count changes nothing.
    package mutating func grow(slotCount newCount: Int) {
        guard newCount > slotCount else { return }
        if slotCount % 64 != 0 {
            words[words.count - 1] &= ~(~0 << UInt64(slotCount % 64))
            firstMaybeFree = min(firstMaybeFree, words.count - 1)
        }
        words += Array(repeating: 0, count: (newCount + 63) / 64 - words.count)
        if newCount % 64 != 0 { words[words.count - 1] |= ~0 << UInt64(newCount % 64) }
        freeCount += newCount - slotCount
        slotCount = newCount
    }
}
