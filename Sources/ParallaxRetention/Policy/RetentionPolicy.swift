// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What to keep of a VDI's snapshots. Rules are OR-ed: one that keeps a snapshot is enough.
///
/// A plain value: no store, no clock. `decide` (`RetentionPolicy+Decide.swift`) is the only thing
/// that it does; the rest is how it is written down (`+Options`, `+JSON`).
package struct RetentionPolicy: Sendable, Hashable {
    /// The newest so many.
    package var keepLast: Int?
    /// The newest of each period that has any, until so many are kept.
    package var keepPeriods: [RetentionPeriod: Int] = [:]
    /// All that are not older.
    package var keepWithin: RetentionDuration?
    /// The newest of each period that has any, among those that are not older.
    package var keepPeriodsWithin: [RetentionPeriod: RetentionDuration] = [:]
    /// All that carry one of these labels.
    package var keepLabelled: [LabelSelector] = []
    /// At least so many stay, the newest first, whatever the other rules say.
    package var minimumCount: Int?
    package var mode: RetentionMode?
    /// Snapshots with this label are the policy's to delete, whoever made them.
    package var label: LabelSelector?
    /// Snapshots made by hand are the policy's to delete too.
    package var includesManual = false
    /// A name of the IANA data base, whose calendar the periods are of.
    package var timeZone = RetentionPolicy.defaultTimeZone

    package init() {}

    package static let defaultTimeZone = "UTC"
    // LIMIT: a count beyond this is a slip of the hand.
    static let countMax = 1_000_000

    /// A policy as most will have one; a new VDI gets none unless the settings name one.
    package static var standard: Self {
        var policy = Self()
        policy.keepLast = 10
        policy.keepPeriods = [.hourly: 24, .daily: 7, .weekly: 4, .monthly: 12]
        return policy
    }

    /// No rule, so that it would keep nothing. What it owns is no rule.
    package var isEmpty: Bool {
        keepLast == nil && keepPeriods.isEmpty && keepWithin == nil && keepPeriodsWithin.isEmpty
            && keepLabelled.isEmpty && minimumCount == nil && mode == nil
    }

    /// What parsing guarantees, for a policy that was put together in code.
    package func validate() throws(RetentionError) {
        _ = try PolicyCalendar(zoneName: timeZone)
        for (option, count) in counts where !(1...Self.countMax).contains(count) {
            throw RetentionError(
                .invalid, "\(option) is \(count), which is not from 1 to \(Self.countMax)")
        }
        let bytes = encodedBytes
        guard bytes <= Self.encodedBytesMax else {
            throw RetentionError(
                .invalid,
                "the policy takes \(bytes) bytes and may take \(Self.encodedBytesMax); "
                    + "use fewer labels to keep, or shorter ones")
        }
    }

    private var counts: [(option: String, count: Int)] {
        var counts: [(String, Int)] = []
        if let keepLast { counts.append(("keep-last", keepLast)) }
        for period in RetentionPeriod.allCases {
            if let count = keepPeriods[period] { counts.append(("keep-\(period.rawValue)", count)) }
        }
        if let minimumCount { counts.append(("min-count", minimumCount)) }
        return counts
    }
}
