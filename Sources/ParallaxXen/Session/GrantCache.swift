// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The grants that stay mapped between requests, when both ends have said `feature-persistent`.
///
/// Owned by the shard. Invariants:
/// I1 at most `capacity` entries, each with one unit of the process's budget;
/// I2 an entry with pins is in no list; one without is in the list, the latest used first;
/// I3 only entries without pins are unmapped.
///
/// ```
///   buckets (open addressing)         entries                        list of the unpinned
///   +----+----+----+----+             +-----------+------+------+
///   | 3  | -1 | 0  | .. |  ------->   | reference | page | pins |    latest <-> ... <-> oldest
///   +----+----+----+----+             +-----------+------+------+
/// ```
/// A guest that never uses a grant again would make us map and unmap for nothing, page by page: an
/// entry is taken from another only against credit, and credit comes from hits. Without credit the
/// request's pages are mapped for the request alone, all in one call.
///
/// SAFETY: owns its tables; entry numbers come from `pin` and are checked in `unpin`.
struct GrantCache: ~Copyable {
    private struct Entry: BitwiseCopyable {
        var reference: UInt32 = 0
        var pins: UInt32 = 0
        var newer: Int32 = -1
        var older: Int32 = -1
        var page: UnsafeMutableRawPointer?
    }

    let capacity: Int
    private let entries: UnsafeMutablePointer<Entry>
    private let buckets: UnsafeMutablePointer<Int32>
    private let bucketMask: Int
    private let budget: GrantBudget
    private(set) var count = 0
    private var newest: Int32 = -1
    private var oldest: Int32 = -1
    private var credit = 0

    private(set) var hits: UInt64 = 0
    private(set) var evictions: UInt64 = 0

    private static var creditMax: Int { 256 }
    private static var hitsPerCredit: UInt64 { 4 }

    init(capacity: Int, budget: GrantBudget) {
        self.capacity = capacity
        self.budget = budget
        entries = .allocate(capacity: capacity)
        entries.initialize(repeating: Entry(), count: capacity)
        var size = 4
        while size < 2 * capacity { size *= 2 }
        bucketMask = size - 1
        buckets = .allocate(capacity: size)
        buckets.initialize(repeating: -1, count: size)
    }

    deinit {
        budget.giveBack(count)
        entries.deallocate()
        buckets.deallocate()
    }

    func page(of entry: Int32) -> UnsafeMutableRawPointer? { entries[Int(entry)].page }

    /// The entry of the grant, mapped if need be, which stays until it is unpinned as often.
    mutating func pin(_ reference: UInt32, _ table: inout GrantTable) -> Int32? {
        let bucket = find(reference)
        if buckets[bucket] >= 0 {
            let index = buckets[bucket]
            hits += 1
            if hits % Self.hitsPerCredit == 0 { credit = min(credit + 1, Self.creditMax) }
            if entries[Int(index)].pins == 0 { unlink(index) }
            entries[Int(index)].pins += 1
            return index
        }
        return add(reference, &table)
    }

    mutating func unpin(_ index: Int32) {
        precondition(entries[Int(index)].pins > 0, "GrantCache I2: unpinned once too often")
        entries[Int(index)].pins -= 1
        if entries[Int(index)].pins == 0 { link(index) }
    }

    private mutating func add(_ reference: UInt32, _ table: inout GrantTable) -> Int32? {
        var index = Int32(count)
        if count == capacity {
            guard credit > 0, oldest >= 0 else { return nil }
            // Mapped before the oldest goes, so that a bad reference costs nothing.
            guard let page = table.map(reference, isWritable: true) else { return nil }
            credit -= 1
            evictions += 1
            index = oldest
            evict(index, &table)
            entries[Int(index)].page = page
        } else {
            guard budget.take() else { return nil }
            guard let page = table.map(reference, isWritable: true) else {
                budget.giveBack(1)
                return nil
            }
            count += 1
            entries[Int(index)].page = page
        }
        entries[Int(index)].reference = reference
        entries[Int(index)].pins = 1
        buckets[find(reference)] = index
        return index
    }

    /// Unmaps everything. Nothing may be pinned.
    mutating func removeAll(_ table: inout GrantTable) {
        for index in 0..<count {
            precondition(entries[index].pins == 0, "GrantCache I3: unmapped under a request")
            if let page = entries[index].page { table.unmap(page, count: 1) }
            entries[index] = Entry()
        }
        for index in 0...bucketMask { buckets[index] = -1 }
        budget.giveBack(count)
        count = 0
        newest = -1
        oldest = -1
        credit = 0
    }
}

extension GrantCache {
    private func home(_ reference: UInt32) -> Int {
        Int(truncatingIfNeeded: (reference &* 0x9e37_79b1) >> 8) & bucketMask
    }

    /// The bucket that holds the reference, or the empty one where it belongs.
    private func find(_ reference: UInt32) -> Int {
        var bucket = home(reference)
        while buckets[bucket] >= 0, entries[Int(buckets[bucket])].reference != reference {
            bucket = (bucket + 1) & bucketMask
        }
        return bucket
    }

    private mutating func evict(_ index: Int32, _ table: inout GrantTable) {
        unlink(index)
        forget(entries[Int(index)].reference)
        if let page = entries[Int(index)].page { table.unmap(page, count: 1) }
        entries[Int(index)].page = nil
    }

    /// Empties the reference's bucket and closes the gap behind it.
    private mutating func forget(_ reference: UInt32) {
        var hole = find(reference)
        var bucket = hole
        while true {
            bucket = (bucket + 1) & bucketMask
            guard buckets[bucket] >= 0 else { break }
            let wanted = home(entries[Int(buckets[bucket])].reference)
            // What belongs behind the hole, cyclically, stays.
            if (bucket &- wanted) & bucketMask >= (bucket &- hole) & bucketMask {
                buckets[hole] = buckets[bucket]
                hole = bucket
            }
        }
        buckets[hole] = -1
    }

    private mutating func link(_ index: Int32) {
        entries[Int(index)].newer = -1
        entries[Int(index)].older = newest
        if newest >= 0 { entries[Int(newest)].newer = index }
        newest = index
        if oldest < 0 { oldest = index }
    }

    private mutating func unlink(_ index: Int32) {
        let entry = entries[Int(index)]
        if entry.newer >= 0 {
            entries[Int(entry.newer)].older = entry.older
        } else {
            newest = entry.older
        }
        if entry.older >= 0 {
            entries[Int(entry.older)].newer = entry.newer
        } else {
            oldest = entry.newer
        }
    }
}
