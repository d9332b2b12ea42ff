// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A length of time as people write it: a whole number and a unit.
///
/// | unit | length |
/// | --- | --- |
/// | `s`, `m`, `h` | 1, 60, 3,600 seconds |
/// | `d`, `w` | 24 hours, 7 times 24 hours, whatever the clocks do meanwhile |
/// | `mo`, `y` | calendar months and years: `3mo` before the 31st of May is the end of February |
package struct RetentionDuration: Sendable, Hashable {
    package enum Unit: String, Sendable, CaseIterable {
        case seconds = "s"
        case minutes = "m"
        case hours = "h"
        case days = "d"
        case weeks = "w"
        case months = "mo"
        case years = "y"

        /// Of months and years the longest that there is.
        fileprivate var secondsMax: Int64 {
            switch self {
            case .seconds: 1
            case .minutes: 60
            case .hours: 3_600
            case .days: 86_400
            case .weeks: 604_800
            case .months: 31 * 86_400
            case .years: 366 * 86_400
            }
        }

        /// `yearsMax` years.
        fileprivate var countMax: Int {
            self == .months
                ? 12 * yearsMax : Int(Unit.years.secondsMax / secondsMax) * yearsMax
        }
    }

    package let count: Int
    package let unit: Unit

    /// Longer is surely a slip of the hand.
    fileprivate static let yearsMax = 1_000

    package init(_ count: Int, _ unit: Unit) throws(RetentionError) {
        guard count > 0, count <= unit.countMax else {
            throw RetentionError(
                .invalid, "\(count)\(unit.rawValue) is not from 1s to \(Self.yearsMax)y")
        }
        self.count = count
        self.unit = unit
    }

    private init(known count: Int, _ unit: Unit) {
        self.count = count
        self.unit = unit
    }

    package static let week = Self(known: 7, .days)

    package static func parse(_ text: String) throws(RetentionError) -> Self {
        let digits = text.utf8.prefix { (0x30...0x39).contains($0) }
        let unit = Unit(rawValue: String(text.dropFirst(digits.count)))
        guard let unit, !digits.isEmpty else {
            throw RetentionError(
                .invalid,
                "\(RetentionError.quoted(text)) is not a length of time; write a whole number and "
                    + "s, m, h, d, w, mo or y, such as 15m, 7d or 6mo")
        }
        guard let count = Int(Substring(digits)), let duration = try? Self(count, unit) else {
            throw RetentionError(
                .invalid, "\(RetentionError.quoted(text)) is not from 1s to \(yearsMax)y")
        }
        return duration
    }

    package var text: String { "\(count)\(unit.rawValue)" }

    /// Exact, but of months and years the longest that they can be.
    package var seconds: Int64 { Int64(count) * unit.secondsMax }

    /// Nil for a duration of exact length.
    var months: Int? {
        switch unit {
        case .months: count
        case .years: count * 12
        default: nil
        }
    }
}
