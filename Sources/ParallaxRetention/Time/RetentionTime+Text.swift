// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension RetentionTime {
    /// Parses ISO 8601 as in RFC 3339: `2026-11-25T10:00:00Z`, `2026-11-25T10:00:00.25+01:00`; the
    /// seconds may be left out. The offset may not: a time that two people read differently is
    /// worse than an error.
    package static func parse(_ text: String) throws(RetentionError) -> Self {
        var scanner = DigitScanner(text)
        guard let time = scanner.time() else {
            throw RetentionError(
                .invalid,
                "\(RetentionError.quoted(text)) is not a time; write ISO 8601 with an offset, "
                    + "such as 2026-11-25T10:00:00Z or 2026-11-25T11:00:00+01:00")
        }
        return time
    }

    /// `2026-11-25T10:00:00Z`, with as many decimals as the nanoseconds need.
    package var text: String {
        let time = clamped
        let local = LocalTime(utcSeconds: time.seconds, offset: 0)
        return "\(local.date.text)T\(local.clockText)\(time.fractionText)Z"
    }

    /// `.25`, with as many digits as it needs; empty for a whole second.
    var fractionText: String {
        guard nanoseconds > 0 else { return "" }
        var fraction = padded(Int(nanoseconds), to: 9)
        while fraction.hasSuffix("0") { fraction.removeLast() }
        return "." + fraction
    }
}

/// Reads the fixed shape of a time, byte by byte; nil at the first that does not fit.
private struct DigitScanner {
    private var rest: Substring.UTF8View

    init(_ text: String) { rest = Substring(text).utf8 }

    mutating func time() -> RetentionTime? {
        guard let year = number(digits: 4), take("-"), let month = number(digits: 2), take("-"),
            let day = number(digits: 2), let date = CivilDate(year: year, month: month, day: day),
            take("T") || take("t") || take(" "), let hour = number(digits: 2), hour < 24, take(":"),
            let minute = number(digits: 2), minute < 60
        else { return nil }
        var second = 0
        var nanoseconds: UInt32 = 0
        if take(":") {
            guard let value = number(digits: 2), value < 60 else { return nil }
            second = value
            if take(".") || take(",") {
                guard let value = fraction() else { return nil }
                nanoseconds = value
            }
        }
        guard let offset = offset(), rest.isEmpty else { return nil }
        let ofDay = hour * 3600 + minute * 60 + second
        let seconds = Int64(date.dayNumber * secondsPerDay + ofDay - offset)
        guard RetentionTime.secondsRange.contains(seconds) else { return nil }
        return RetentionTime(seconds: seconds, nanoseconds: nanoseconds)
    }

    private mutating func offset() -> Int? {
        if take("Z") || take("z") { return 0 }
        let sign: Int
        if take("+") { sign = 1 } else if take("-") { sign = -1 } else { return nil }
        guard let hours = number(digits: 2), hours < 24, take(":") || !rest.isEmpty,
            let minutes = number(digits: 2), minutes < 60
        else { return nil }
        return sign * (hours * 3600 + minutes * 60)
    }

    private mutating func fraction() -> UInt32? {
        var value: UInt32 = 0
        var digits = 0
        while let digit = digit() {
            digits += 1
            guard digits <= 9 else { return nil }
            value = value * 10 + UInt32(digit)
        }
        guard digits > 0 else { return nil }
        for _ in digits..<9 { value *= 10 }
        return value
    }

    private mutating func number(digits: Int) -> Int? {
        var value = 0
        for _ in 0..<digits {
            guard let digit = digit() else { return nil }
            value = value * 10 + digit
        }
        return value
    }

    private mutating func digit() -> Int? {
        guard let byte = rest.first, (0x30...0x39).contains(byte) else { return nil }
        rest.removeFirst()
        return Int(byte - 0x30)
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard let byte = rest.first, UInt32(byte) == character.value else { return false }
        rest.removeFirst()
        return true
    }
}
