// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// How `keep-landmarks` thins out: everything within the window; beyond it, one of each group of
/// versions that are close together in relation to their age, the newest, which is where a burst
/// of changes came to rest.
///
/// Groups are cells of time. Level k cuts time, from 1970 on, into cells of g(k) = 2^k * W/8, where
/// W is the window. A cell of level k *closes* when its end is T(k) = 2^k * W old. A version
/// belongs to the largest closed cell that it lies in, if any; the newest of each is kept.
///
/// ```
///   age      8W              4W         2W     W          now
///   -- -+---------+---------+----+----+--+--+--+-----------+
///    4W |  W      |  W      |W/2 |W/2 |W/4     all         |   width of a cell is 1/8 to 1/16 of
///   -- -+---------+---------+----+----+--+--+--+-----------+   its age: 8 a doubling
/// ```
///
/// Invariants:
/// - L1: the cells of a level are halves of the next level's, so closed cells lie within each
///   other or apart, and the largest ones divide all that is old enough into groups.
/// - L2: a closed cell stays closed, so as time passes groups only merge. The newest of a merged
///   group was the newest of its own before: what is needed later is never deleted earlier, and
///   however often the policy is applied, the result is the same.
struct Landmarks {
    /// Cells per window, and so per doubling of the age.
    static let cellsPerWindow: Int64 = 8

    private let windowSeconds: Int64
    private let cellSeconds: Int64
    private let now: Int64

    init(window: RetentionDuration, now: RetentionTime) {
        windowSeconds = window.seconds
        cellSeconds = max(1, window.seconds / Self.cellsPerWindow)
        self.now = now.clamped.seconds
    }

    /// Equal for versions of one group.
    struct Group: Equatable {
        var start: Int64
        var seconds: Int64
    }

    /// Nil for a version that is too young to be in a group.
    func group(of time: RetentionTime) -> Group? {
        let time = time.clamped.seconds
        var found: Group?
        var width = cellSeconds
        var closingAge = windowSeconds
        // LIMIT: ends before the doubled age reaches the span of all times, after 40 turns at most.
        while true {
            let start = Int64(floorDivide(Int(time), Int(width))) * width
            guard start + width <= now - closingAge else { break }
            found = Group(start: start, seconds: width)
            width *= 2
            closingAge *= 2
        }
        return found
    }
}
