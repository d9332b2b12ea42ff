// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A hash table from nonzero `UInt64` keys to `UInt32` values, of fixed capacity.
///
/// Linear probing, at most half full, removal by shifting back: no tombstones, no allocation
/// after `init`. Owned by one thread.
///
/// SAFETY: owns its storage; every index is masked.
struct IntegerMap: ~Copyable {
    private struct Slot {
        var key: UInt64
        var value: UInt32
    }

    private let slots: UnsafeMutablePointer<Slot>
    private let mask: Int
    private let limit: Int
    private(set) var count = 0

    /// Room for `capacity` keys.
    init(capacity: Int) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        slots = .allocate(capacity: size)
        slots.initialize(repeating: Slot(key: 0, value: 0), count: size)
        mask = size - 1
        limit = size / 2
    }

    deinit { slots.deallocate() }

    private func home(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 24) & mask
    }

    func find(_ key: UInt64) -> UInt32? {
        var index = home(key)
        while slots[index].key != 0 {
            if slots[index].key == key { return slots[index].value }
            index = (index + 1) & mask
        }
        return nil
    }

    /// The key must not be in the table, and the table must not be full.
    mutating func insert(_ key: UInt64, _ value: UInt32) {
        precondition(key != 0 && count < limit, "IntegerMap: bad key or full table")
        var index = home(key)
        while slots[index].key != 0 {
            precondition(slots[index].key != key, "IntegerMap: key is there already")
            index = (index + 1) & mask
        }
        slots[index] = Slot(key: key, value: value)
        count += 1
    }

    @discardableResult
    mutating func remove(_ key: UInt64) -> Bool {
        var index = home(key)
        while slots[index].key != key {
            if slots[index].key == 0 { return false }
            index = (index + 1) & mask
        }
        var next = (index + 1) & mask
        while slots[next].key != 0 {
            // Move an entry back only if that does not put it before its home.
            if (next - home(slots[next].key)) & mask >= (next - index) & mask {
                slots[index] = slots[next]
                index = next
            }
            next = (next + 1) & mask
        }
        slots[index].key = 0
        count -= 1
        return true
    }
}
