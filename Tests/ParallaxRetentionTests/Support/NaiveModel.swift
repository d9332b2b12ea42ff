// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import ParallaxRetention

/// Restic's rule written down a second time, in another way: Foundation's `Calendar` names the
/// period of each snapshot, a dictionary groups them, and the groups are sorted. It shares no code
/// with the library and cares for nothing but being plainly right.
struct NaiveModel {
    private var calendar = Calendar(identifier: .iso8601)

    init(zone: String) throws {
        guard let zone = TimeZone(identifier: zone) else { throw UnknownZone() }
        calendar.timeZone = zone
    }

    private struct UnknownZone: Error {}

    /// Text that is equal for two times of one period and for no others.
    private func period(_ period: RetentionPeriod, _ time: RetentionTime) -> String {
        let date = Date(timeIntervalSince1970: Double(time.seconds))
        let parts = calendar.dateComponents(
            [.year, .month, .day, .hour, .weekOfYear, .yearForWeekOfYear], from: date)
        func number(_ part: Int?) -> String { part.map { String($0) } ?? "?" }
        let day = [parts.year, parts.month, parts.day].map(number).joined(separator: "-")
        return switch period {
        case .hourly:
            "\(day) \(number(parts.hour)) \(calendar.timeZone.secondsFromGMT(for: date))"
        case .daily: day
        case .weekly: "\(number(parts.yearForWeekOfYear)) W\(number(parts.weekOfYear))"
        case .monthly: "\(number(parts.year))-\(number(parts.month))"
        case .yearly: number(parts.year)
        }
    }

    /// The newest of each period, newest first.
    private func newestOfEach(
        _ kind: RetentionPeriod, _ times: [RetentionTime]
    ) -> [RetentionTime] {
        Dictionary(grouping: times) { period(kind, $0) }
            .compactMap { $0.value.max() }
            .sorted(by: >)
    }

    private func start(_ duration: RetentionDuration, before now: RetentionTime) -> Double {
        let date = Date(timeIntervalSince1970: Double(now.seconds))
        let months =
            switch duration.unit {
            case .months: duration.count
            case .years: 12 * duration.count
            default: 0
            }
        guard months > 0 else { return date.timeIntervalSince1970 - Double(duration.seconds) }
        let today = calendar.startOfDay(for: date)
        guard let noon = calendar.date(byAdding: .hour, value: 12, to: today),
            let target = calendar.date(byAdding: .month, value: -months, to: noon),
            let next = calendar.date(byAdding: .day, value: 1, to: target)
        else { return 0 }
        let end = calendar.startOfDay(for: next)
        let isClamped =
            calendar.component(.day, from: target) != calendar.component(.day, from: noon)
        if isClamped { return end.timeIntervalSince1970 }
        let elapsed = date.timeIntervalSince(today)
        return min(calendar.startOfDay(for: target).addingTimeInterval(elapsed), end)
            .timeIntervalSince1970
    }

    /// Only for whole seconds, and for policies of counts and durations.
    func kept(
        _ times: [RetentionTime], by policy: RetentionPolicy, now: RetentionTime
    ) -> Set<RetentionTime> {
        let past = times.filter { $0 <= now }.sorted(by: >)
        var kept: Set<RetentionTime> = []
        kept.formUnion(past.prefix(policy.keepLast ?? 0))
        for (kind, count) in policy.keepPeriods {
            kept.formUnion(newestOfEach(kind, past).prefix(count))
        }
        if let duration = policy.keepWithin {
            let start = start(duration, before: now)
            kept.formUnion(past.filter { Double($0.seconds) >= start })
        }
        for (kind, duration) in policy.keepPeriodsWithin {
            let start = start(duration, before: now)
            kept.formUnion(newestOfEach(kind, past.filter { Double($0.seconds) >= start }))
        }
        for time in past where kept.count < policy.minimumCount ?? 0 { kept.insert(time) }
        return kept
    }
}
