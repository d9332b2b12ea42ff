// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import FoundationEssentials
internal import FoundationInternationalization

/// The calendar of a policy's time zone, with its clock changes.
///
/// FoundationInternationalization knows the zones' offsets from the IANA tables that it carries with
/// it; the rest is arithmetic.
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

    func text(_ time: RetentionTime) -> String {
        let time = time.clamped
        let offset = offset(at: time.seconds)
        let local = LocalTime(utcSeconds: time.seconds, offset: offset)
        let suffix = offset == 0 ? "Z" : Self.offsetText(offset)
        return "\(local.date.text)T\(local.clockText)\(time.fractionText)\(suffix)"
    }

    private static func offsetText(_ offset: Int) -> String {
        let magnitude = abs(offset)
        let clock = "\(padded(magnitude / 3600, to: 2)):\(padded(magnitude / 60 % 60, to: 2))"
        return (offset < 0 ? "-" : "+") + clock
    }

    /// `duration` before `time`. Seconds to weeks are exact lengths; months and years go back in
    /// the calendar, to as long after that day's beginning as `time` is after its own. Where the
    /// month has no such day, they go back to its end.
    ///
    /// A later `time` never gives an earlier result, which the time of the day by the clock would,
    /// at clock changes and after short months: what was too old would be wanted again.
    func subtract(_ duration: RetentionDuration, from time: RetentionTime) -> RetentionTime {
        let time = time.clamped
        guard let months = duration.months else {
            let seconds = time.seconds - duration.seconds
            return RetentionTime(seconds: seconds, nanoseconds: time.nanoseconds).clamped
        }
        let today = local(time.seconds).date
        let elapsed = time.seconds - beginning(of: today.dayNumber)
        guard let day = today.subtracting(months: months) else {
            let next = today.firstOfMonth(after: months)
            return RetentionTime(seconds: beginning(of: next.dayNumber)).clamped
        }
        let nextDay = RetentionTime(seconds: beginning(of: day.dayNumber + 1))
        let result = RetentionTime(
            seconds: beginning(of: day.dayNumber) + elapsed, nanoseconds: time.nanoseconds)
        return min(result, nextDay).clamped
    }

    /// The first moment of a day: midnight; the first one where the clocks showed it twice; where
    /// they skipped it, the moment of that change.
    private func beginning(of dayNumber: Int) -> Int64 {
        let midnight = Int64(dayNumber * secondsPerDay)
        // No zone changes its clocks twice within two days.
        let before = midnight - Int64(offset(at: midnight - Int64(secondsPerDay)))
        let after = midnight - Int64(offset(at: midnight + Int64(secondsPerDay)))
        func isMidnight(_ seconds: Int64) -> Bool {
            let local = local(seconds)
            return local.date.dayNumber == dayNumber && local.secondOfDay == 0
        }
        return !isMidnight(before) && isMidnight(after) ? after : before
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
