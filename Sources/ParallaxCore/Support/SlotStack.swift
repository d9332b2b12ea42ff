// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The free places of a fixed table. Last in, first out, so that memory used a moment ago is used
/// again while it is in the processor's cache, and the rest is never touched.
///
/// SAFETY: owns its storage; I1 `0 <= count <= capacity` is checked at each push and pop.
@frozen
package struct SlotStack: ~Copyable {
    @usableFromInline package let slots: UnsafeMutablePointer<Int32>
    package let capacity: Int
    @usableFromInline package var count: Int

    /// All of `base ..< base + capacity` are free; the lowest comes first.
    @inlinable package init(capacity: Int, base: Int = 0) {
        slots = .allocate(capacity: max(capacity, 1))
        self.capacity = capacity
        count = capacity
        for index in 0..<capacity { slots[index] = Int32(base + capacity - 1 - index) }
    }

    @inlinable deinit { slots.deallocate() }

    @inlinable package var isEmpty: Bool { count == 0 }

    @inlinable package mutating func pop() -> Int32? {
        guard count > 0 else { return nil }
        count -= 1
        return slots[count]
    }

    @inlinable package mutating func push(_ slot: Int32) {
        precondition(count < capacity, "SlotStack I1: more slots given back than there are")
        slots[count] = slot
        count += 1
    }
}
