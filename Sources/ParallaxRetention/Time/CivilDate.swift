// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

let secondsPerDay = 86_400

/// A day of the Gregorian calendar, counted on into the past and the future as ISO 8601 does.
///
/// Own arithmetic and not Foundation's `Calendar`: the rules ask for the day, week, month and year
/// of every snapshot of a list of 100,000, and only the zone's offset needs tables.
package struct CivilDate: Equatable {
    /// Days since 1970-01-01.
    package let dayNumber: Int
    package let year: Int
    package let month: Int
    package let day: Int

    /// The year is taken to begin in March, so that the day that may be missing is its last; 400
    /// such years always have 146,097 days.
    package init(dayNumber: Int) {
        let shifted = dayNumber + 719_468  // Days since 0000-03-01.
        let era = floorDivide(shifted, 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra =
            (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153  // 0 is March.
        self.dayNumber = dayNumber
        day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }

    /// Nil when there is no such day.
    package init?(year: Int, month: Int, day: Int) {
        guard (1...12).contains(month), day >= 1,
            day <= Self.daysIn(month: month, year: year)
        else { return nil }
        self.init(dayNumber: Self.dayNumber(year: year, month: month, day: day))
    }

    private static func dayNumber(year: Int, month: Int, day: Int) -> Int {
        let marchYear = month <= 2 ? year - 1 : year
        let era = floorDivide(marchYear, 400)
        let yearOfEra = marchYear - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
            - 719_468
    }

    private static func daysIn(month: Int, year: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// Months since January of the year 0.
    var monthNumber: Int { year * 12 + month - 1 }

    /// The same day `months` earlier; nil where that month has no such day.
    func subtracting(months: Int) -> Self? {
        let target = monthNumber - months
        let year = floorDivide(target, 12)
        return Self(year: year, month: target - year * 12 + 1, day: day)
    }

    /// The first day after the month that was `months` before this one.
    func firstOfMonth(after months: Int) -> Self {
        let target = monthNumber - months + 1
        let year = floorDivide(target, 12)
        return Self(
            dayNumber: Self.dayNumber(year: year, month: target - year * 12 + 1, day: 1))
    }

    /// Monday-based weeks; 1970-01-01 was a Thursday, and week 0 is the one that holds it.
    var weekNumber: Int { floorDivide(dayNumber + 3, 7) }

    /// ISO 8601: a week belongs to the year that has its Thursday, and week 1 has the first one.
    var isoWeek: (year: Int, week: Int) {
        let thursday = Self(dayNumber: weekNumber * 7)
        let newYear = Self.dayNumber(year: thursday.year, month: 1, day: 1)
        return (thursday.year, (thursday.dayNumber - newYear) / 7 + 1)
    }

    var yearText: String { padded(year, to: 4) }
    var monthText: String { "\(yearText)-\(padded(month, to: 2))" }
    var text: String { "\(monthText)-\(padded(day, to: 2))" }
    var weekText: String { "\(padded(isoWeek.year, to: 4))-W\(padded(isoWeek.week, to: 2))" }
}

/// What a clock on the wall shows: a day and the seconds since its midnight.
struct LocalTime: Equatable {
    var date: CivilDate
    var secondOfDay: Int

    init(date: CivilDate, secondOfDay: Int) {
        self.date = date
        self.secondOfDay = secondOfDay
    }

    init(utcSeconds: Int64, offset: Int) {
        let local = Int(utcSeconds) + offset
        let day = floorDivide(local, secondsPerDay)
        self.init(date: CivilDate(dayNumber: day), secondOfDay: local - day * secondsPerDay)
    }

    var hourText: String { "\(date.text) \(padded(secondOfDay / 3600, to: 2))h" }

    var clockText: String {
        [secondOfDay / 3600, secondOfDay / 60 % 60, secondOfDay % 60]
            .map { padded($0, to: 2) }.joined(separator: ":")
    }
}

func floorDivide(_ value: Int, _ divisor: Int) -> Int {
    let quotient = value / divisor
    return value % divisor < 0 ? quotient - 1 : quotient
}

func padded(_ number: Int, to width: Int) -> String {
    let digits = String(number.magnitude)
    let zeros = String(repeating: "0", count: max(0, width - digits.count))
    return (number < 0 ? "-" : "") + zeros + digits
}
