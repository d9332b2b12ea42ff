// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A fixed table of values named by small integers, with a list of the free ones. Never allocates
/// after `init`. Owned by one thread.
///
/// SAFETY: owns its storage; every index is checked.
struct SlotTable<Element: BitwiseCopyable>: ~Copyable {
    private let storage: UnsafeMutablePointer<Element>
    private let freeSlots: UnsafeMutablePointer<Int32>
    private(set) var freeCount: Int
    let capacity: Int

    init(capacity: Int, repeating element: Element) {
        self.capacity = capacity
        storage = .allocate(capacity: capacity)
        storage.initialize(repeating: element, count: capacity)
        freeSlots = .allocate(capacity: capacity)
        freeCount = capacity
        for index in 0..<capacity { freeSlots[index] = Int32(capacity - 1 - index) }
    }

    deinit {
        storage.deallocate()
        freeSlots.deallocate()
    }

    var usedCount: Int { capacity - freeCount }

    /// Takes a free slot; nil when all are in use.
    mutating func take() -> Int? {
        guard freeCount > 0 else { return nil }
        freeCount -= 1
        return Int(freeSlots[freeCount])
    }

    /// Gives a slot back. The caller gives each slot back once.
    mutating func giveBack(_ index: Int) {
        precondition(freeCount < capacity, "SlotTable: a slot was given back twice")
        freeSlots[freeCount] = Int32(index)
        freeCount += 1
    }

    subscript(index: Int) -> Element {
        unsafeAddress {
            precondition(index >= 0 && index < capacity, "SlotTable: index out of range")
            return UnsafePointer(storage + index)
        }
        unsafeMutableAddress {
            precondition(index >= 0 && index < capacity, "SlotTable: index out of range")
            return storage + index
        }
    }
}
