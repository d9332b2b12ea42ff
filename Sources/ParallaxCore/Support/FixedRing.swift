// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A first-in first-out queue of fixed capacity that never allocates after `init`.
///
/// Owned by one thread. Invariants: I1 `count <= capacity`; I2 `capacity` is a power of two.
///
/// SAFETY: owns its storage; every index is masked, so no access leaves it.
@frozen
package struct FixedRing<Element: BitwiseCopyable>: ~Copyable {
    @usableFromInline package let storage: UnsafeMutablePointer<Element>
    @usableFromInline package let mask: UInt32
    @usableFromInline package var head: UInt32 = 0
    @usableFromInline package var tail: UInt32 = 0

    /// `minimumCapacity` is rounded up to a power of two.
    @inlinable
    package init(minimumCapacity: Int) {
        var capacity = 1
        while capacity < minimumCapacity { capacity *= 2 }
        storage = UnsafeMutablePointer<Element>.allocate(capacity: capacity)
        mask = UInt32(capacity - 1)
    }

    deinit { storage.deallocate() }

    @inlinable package var count: Int { Int(tail &- head) }
    @inlinable package var capacity: Int { Int(mask) + 1 }
    @inlinable package var isEmpty: Bool { head == tail }
    @inlinable package var isFull: Bool { count == capacity }
    @inlinable package var freeCapacity: Int { capacity - count }

    /// Appends at the end. The ring must not be full.
    @inlinable
    package mutating func append(_ element: Element) {
        precondition(!isFull, "FixedRing I1: append to a full ring")
        storage[Int(tail & mask)] = element
        tail &+= 1
    }

    /// Takes the oldest element, or nil when empty.
    @inlinable
    package mutating func popFirst() -> Element? {
        guard head != tail else { return nil }
        let element = storage[Int(head & mask)]
        head &+= 1
        return element
    }

    /// Takes out what `isRemoved` says, and keeps the order of the others.
    @inlinable
    package mutating func removeAll(where isRemoved: (Element) -> Bool) {
        for _ in 0..<count {
            guard let element = popFirst() else { return }
            if !isRemoved(element) { append(element) }
        }
    }

    /// Removes the newest element. The ring must not be empty.
    @inlinable
    package mutating func dropLast() {
        precondition(head != tail, "FixedRing: nothing to drop")
        tail &-= 1
    }

    /// The `index`-th oldest element.
    @inlinable
    package subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count, "FixedRing: index out of range")
            return storage[Int((head &+ UInt32(index)) & mask)]
        }
        set {
            precondition(index >= 0 && index < count, "FixedRing: index out of range")
            storage[Int((head &+ UInt32(index)) & mask)] = newValue
        }
    }
}

/// Requests on their way from front ends to the engine. Sessions stop taking requests from their
/// rings or sockets while it is full, and go on when the shard calls them again.
package typealias RequestQueue = FixedRing<BlockRequest>
