// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention

/// Points in time as ISO 8601 text, without the system's calendar: names of snapshots are made and
/// read by the million.
package enum TimeText {
    /// `2026-11-25T22:25:09.123Z`, the milliseconds rounded down.
    package static func milliseconds(_ nanoseconds: UInt64) -> String {
        let seconds = nanoseconds / 1_000_000_000
        var text = [UInt8](repeating: UInt8(ascii: "0"), count: 24)
        let day = CivilDate(dayNumber: Int(seconds / 86_400))
        let rest = seconds % 86_400
        put(day.year, 4, at: 0, in: &text)
        put(day.month, 2, at: 5, in: &text)
        put(day.day, 2, at: 8, in: &text)
        put(Int(rest / 3600), 2, at: 11, in: &text)
        put(Int(rest / 60 % 60), 2, at: 14, in: &text)
        put(Int(rest % 60), 2, at: 17, in: &text)
        put(Int(nanoseconds / 1_000_000 % 1000), 3, at: 20, in: &text)
        for (place, mark) in [
            (4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"), (19, "."), (23, "Z"),
        ] {
            text[place] = Unicode.Scalar(mark).map { UInt8($0.value) } ?? 0
        }
        return String(decoding: text, as: UTF8.self)
    }

    private static func put(_ value: Int, _ digits: Int, at place: Int, in text: inout [UInt8]) {
        var rest = value
        for offset in (0..<digits).reversed() {
            text[place + offset] = UInt8(ascii: "0") + UInt8(rest % 10)
            rest /= 10
        }
    }

    /// `2026-11-22`, `2026-11-22T10:00`, with seconds, up to nine decimals of them, and an offset
    /// (`Z`, `+02:00`, `-0530`, `+01`); UTC without one. Nanoseconds since 1970; nil for anything
    /// else, and for times before 1970 or after 2500.
    package static func parse(_ text: String) -> UInt64? {
        var reader = Reader(text)
        guard let year = reader.number(4), reader.take("-"), let month = reader.number(2),
            reader.take("-"), let day = reader.number(2), (1970...2500).contains(year),
            let date = CivilDate(year: year, month: month, day: day)
        else { return nil }
        var seconds = date.dayNumber * 86_400
        var fraction = 0
        if reader.take("T") || reader.take("t") {
            guard let hour = reader.number(2), reader.take(":"), let minute = reader.number(2),
                hour < 24, minute < 60
            else { return nil }
            seconds += hour * 3600 + minute * 60
            if reader.take(":") {
                guard let second = reader.number(2), second < 60 else { return nil }
                seconds += second
                if reader.take(".") {
                    guard let nanoseconds = reader.fraction() else { return nil }
                    fraction = nanoseconds
                }
            }
            guard let offset = reader.offset() else { return nil }
            seconds -= offset
        }
        guard reader.isAtEnd, seconds >= 0 else { return nil }
        return UInt64(seconds) * 1_000_000_000 + UInt64(fraction)
    }

    private struct Reader {
        private var rest: Substring.UTF8View

        init(_ text: String) { rest = Substring(text).utf8 }

        var isAtEnd: Bool { rest.isEmpty }

        mutating func take(_ mark: Unicode.Scalar) -> Bool {
            guard rest.first == UInt8(ascii: mark) else { return false }
            rest.removeFirst()
            return true
        }

        mutating func digit() -> Int? {
            guard let byte = rest.first, (0x30...0x39).contains(byte) else { return nil }
            rest.removeFirst()
            return Int(byte) - 0x30
        }

        mutating func number(_ digits: Int) -> Int? {
            var value = 0
            for _ in 0..<digits {
                guard let digit = digit() else { return nil }
                value = value * 10 + digit
            }
            return value
        }

        /// Nanoseconds of one to nine decimals.
        mutating func fraction() -> Int? {
            var value = 0
            var count = 0
            while count < 9, let digit = digit() {
                value = value * 10 + digit
                count += 1
            }
            guard count > 0 else { return nil }
            for _ in count..<9 { value *= 10 }
            return value
        }

        /// Seconds east of Greenwich; 0 where nothing is said.
        mutating func offset() -> Int? {
            if isAtEnd || take("Z") || take("z") { return 0 }
            let sign = take("+") ? 1 : take("-") ? -1 : 0
            guard sign != 0, let hours = number(2), hours <= 14 else { return nil }
            if isAtEnd { return sign * hours * 3600 }
            _ = take(":")
            guard let minutes = number(2), minutes < 60 else { return nil }
            return sign * (hours * 3600 + minutes * 60)
        }
    }
}
