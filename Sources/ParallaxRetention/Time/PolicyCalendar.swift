// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Foundation

/// The calendar of a policy's time zone, with its clock changes.
///
/// Foundation knows the zones' offsets from its own copy of the IANA tables; the rest is arithmetic.
struct PolicyCalendar {
    private let zone: TimeZone

    /// Only names of the IANA data base. Foundation would also take `UTC+3` and the like, which
    /// POSIX reads with the opposite sign.
    init(zoneName: String) throws(RetentionError) {
        let isOffset = !zoneName.contains("/") && zoneName.contains { $0 == "+" || $0 == "-" }
        guard !isOffset, !zoneName.isEmpty, let zone = TimeZone(identifier: zoneName) else {
            throw RetentionError(
                .invalid,
                "\(RetentionError.quoted(zoneName)) is not a known time zone; write a name of the "
                    + "IANA data base, such as UTC, Europe/Berlin or America/New_York")
        }
        self.zone = zone
    }

    /// Seconds that local clocks are ahead of UTC.
    func offset(at seconds: Int64) -> Int {
        zone.secondsFromGMT(for: Date(timeIntervalSince1970: Double(seconds)))
    }

    func local(_ seconds: Int64) -> LocalTime {
        LocalTime(utcSeconds: seconds, offset: offset(at: seconds))
    }

    /// The hour, day, week, month or year that a point in time lies in.
    func bucket(_ period: RetentionPeriod, at seconds: Int64) -> CalendarBucket {
        let offset = offset(at: seconds)
        let local = LocalTime(utcSeconds: seconds, offset: offset)
        switch period {
        case .hourly:
            let hour = local.date.dayNumber * 24 + local.secondOfDay / 3600
            return CalendarBucket(number: hour, offset: offset)
        case .daily: return CalendarBucket(number: local.date.dayNumber)
        case .weekly: return CalendarBucket(number: local.date.weekNumber)
        case .monthly: return CalendarBucket(number: local.date.monthNumber)
        case .yearly: return CalendarBucket(number: local.date.year)
        }
    }

    /// The bucket's name, such as `2026-11-25 10h`, `2026-11-25`, `2026-W48`, `2026-11`, `2026`.
    ///
    /// Within three hours of a clock change an hour is named with its offset, since its name alone
    /// may stand for two.
    func bucketText(_ period: RetentionPeriod, at seconds: Int64) -> String {
        let local = local(seconds)
        switch period {
        case .hourly:
            let offset = offset(at: seconds)
            let isPlain = [-10_800, 10_800].allSatisfy { self.offset(at: seconds + $0) == offset }
            return local.hourText + (isPlain ? "" : " " + Self.offsetText(offset))
        case .daily: return local.date.text
        case .weekly: return local.date.weekText
        case .monthly: return local.date.monthText
        case .yearly: return local.date.yearText
        }
    }

    private static func offsetText(_ offset: Int) -> String {
        let magnitude = abs(offset)
        let clock = "\(padded(magnitude / 3600, to: 2)):\(padded(magnitude / 60 % 60, to: 2))"
        return (offset < 0 ? "-" : "+") + clock
    }

    /// `duration` before `time`. Seconds to weeks are exact lengths; months and years go back in
    /// the calendar, at the same time of the day.
    func subtract(_ duration: RetentionDuration, from time: RetentionTime) -> RetentionTime {
        let time = time.clamped
        guard let months = duration.months else {
            return RetentionTime(
                seconds: time.seconds - duration.seconds, nanoseconds: time.nanoseconds
            ).clamped
        }
        let local = local(time.seconds)
        let target = LocalTime(
            date: local.date.subtracting(months: months), secondOfDay: local.secondOfDay)
        return RetentionTime(
            seconds: utcSeconds(target), nanoseconds: time.nanoseconds
        ).clamped
    }

    /// When local clocks showed `local`: the earlier time where they did so twice, so that more is
    /// kept; where a change skipped it, what a clock that had not been changed would have shown.
    private func utcSeconds(_ local: LocalTime) -> Int64 {
        let asUTC = Int64(local.date.dayNumber * secondsPerDay + local.secondOfDay)
        // No zone is further from UTC than a day, and none changes its clock twice in two days.
        let before = asUTC - Int64(offset(at: asUTC - Int64(secondsPerDay)))
        let after = asUTC - Int64(offset(at: asUTC + Int64(secondsPerDay)))
        if self.local(before) == local { return before }
        return self.local(after) == local ? after : before
    }
}

/// One hour, day, week, month or year of one calendar.
struct CalendarBucket: Equatable {
    var number: Int
    /// Of hours only: an hour that the clocks show twice is two hours.
    var offset = 0

    /// Whether a walk from newest to oldest that has reached `last` enters a new bucket here.
    ///
    /// An hour is one stretch of time, so any other is new. A day need not be: where clocks go back
    /// over midnight, a day is left and entered again, and must not count twice.
    func isNew(after last: Self?, period: RetentionPeriod) -> Bool {
        guard let last else { return true }
        return period == .hourly ? self != last : number < last.number
    }
}
