// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The extents that a pass of the scrub has still before it, in the order of their numbers.
///
/// ```
///   table   | not looked at        | looked at          | inserted since |
///           0                  unseen <---                            count
/// ```
/// They are collected some at a time, so that no turn goes through a whole table, from its end to its
/// beginning: of one that is removed meanwhile the last takes the place, which was looked at before, or
/// still will be. So a number may be in here twice, but none that was in the table at the beginning, and
/// still is, is missed.
///
/// I1 a heap: no number is less than the one at (its index - 1) / 2.
struct ScrubExtents {
    /// LIMIT: extents that one turn collects, or finds to be gone.
    static let perTurn = 8192

    private var numbers: [ExtentNumber] = []
    private var unseen = 0

    var isCollecting: Bool { unseen > 0 }

    mutating func begin(_ extents: borrowing ExtentTable) {
        numbers.removeAll(keepingCapacity: true)
        numbers.reserveCapacity(extents.count)
        unseen = extents.count
    }

    /// Looks at up to `limit` extents more.
    mutating func collect(
        from extents: borrowing ExtentTable, limit: Int = Self.perTurn,
        isWanted: (ExtentNumber) -> Bool
    ) {
        unseen = min(unseen, extents.count)
        for _ in 0..<min(limit, unseen) {
            unseen -= 1
            let number = extents[unseen].number
            if isWanted(number) { add(number) }
        }
    }

    /// The next one, which may be gone by now.
    mutating func popLeast() -> ExtentNumber? {
        guard let least = numbers.first else { return nil }
        repeat { dropLeast() } while numbers.first == least
        return least
    }

    private mutating func add(_ number: ExtentNumber) {
        numbers.append(number)
        var child = numbers.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard numbers[child] < numbers[parent] else { return }
            numbers.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func dropLeast() {
        let last = numbers.removeLast()
        guard !numbers.isEmpty else { return }
        numbers[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in 2 * parent + 1...2 * parent + 2
            where child < numbers.count && numbers[child] < numbers[least] { least = child }
            guard least != parent else { return }
            numbers.swapAt(least, parent)
            parent = least
        }
    }
}
