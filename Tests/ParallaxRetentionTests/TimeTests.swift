// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import ParallaxRetention
import ParallaxSimulation
import Testing

@Suite("Times and lengths of time")
struct TimeTests {
    @Test(
        "a time is ISO 8601 with an offset",
        arguments: [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-11-25T10:00:00Z", 1_795_600_800, 0),
            ("2026-11-25T11:00:00+01:00", 1_795_600_800, 0),
            ("2026-11-25T11:00+0100", 1_795_600_800, 0),
            ("2026-11-25t05:30:00.5-04:30", 1_795_600_800, 500_000_000),
            ("2026-11-25 10:00:00,000000001z", 1_795_600_800, 1),
            ("1969-12-31T23:59:59.25Z", -1, 250_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800, 0),
        ] as [(String, Int64, UInt32)])
    func parses(text: String, seconds: Int64, nanoseconds: UInt32) throws {
        let parsed = try time(text)
        #expect(parsed == RetentionTime(seconds: seconds, nanoseconds: nanoseconds))
    }

    @Test(
        "anything else is none, and the sentence quotes it",
        arguments: [
            "", "now", "2026-11-25", "2026-11-25T10:00:00", "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-11-25T24:00:00Z",
            "2026-11-25T10:60:00Z", "2026-11-25T10:00:60Z", "2026-11-25T10:00:00.Z",
            "2026-11-25T10:00:00.0000000001Z", "2026-11-25T10:00:00+25:00", "2026-11-25T10:00:00+1",
            "2026-11-25T10:00:00ZZ", "26-11-25T10:00:00Z", "-026-11-25T10:00:00Z",
            "٢٠٢٦-11-25T10:00:00Z", "0000-01-01T00:00:00Z", "2026-11-25T10:00:00Z\n",
            String(repeating: "9", count: 100_000),
        ])
    func refusesTimes(text: String) throws {
        let error = try #require(failure { _ = try time(text) })
        #expect(error.kind == .invalid && error.message.contains("is not a time"))
        #expect(!error.message.contains("\n") && error.message.utf8.count < 250)
    }

    @Test("a time's text is read back as the same time")
    func roundTrip() throws {
        var random = SeededRandom(seed: 5)
        for _ in 0..<2_000 {
            let original = RetentionTime(
                seconds: Int64(random.integer(in: -62_135_596_800...253_402_300_799)),
                nanoseconds: UInt32(random.integer(in: 0...999_999_999)))
            let back = try time(original.text)
            #expect(back == original)
        }
    }

    @Test("so is its text in a zone", arguments: RandomPolicies.zones)
    func localRoundTrip(zone: String) throws {
        let local = try policy("--keep-last 1 --time-zone \(zone)").localText()
        let start = try time("2026-01-01T00:00:00.125Z")
        for step in 0..<2_000 {
            let original = RetentionTime(
                seconds: start.seconds + Int64(step) * 16_001, nanoseconds: start.nanoseconds)
            let back = try time(local(original))
            #expect(back == original)
        }
    }

    @Test("the calendar's arithmetic agrees with Foundation's, in every year from 1583 to 9999")
    func calendar() throws {
        var calendar = Calendar(identifier: .iso8601)
        calendar.timeZone = try #require(TimeZone(identifier: "UTC"))
        let rule = try policy("--keep-weekly 1 --keep-daily 1")
        var random = SeededRandom(seed: 6)
        for _ in 0..<3_000 {
            let seconds = Int64(random.integer(in: -12_212_553_600...253_402_300_799))
            let date = Date(timeIntervalSince1970: Double(seconds))
            let parts = calendar.dateComponents(
                [.year, .month, .day, .weekOfYear, .yearForWeekOfYear], from: date)
            let snapshot = RetentionTime(seconds: seconds)
            let plan = try rule.decide(scheduled([snapshot]), now: snapshot)
            let expected = [
                String(
                    format: "daily 1 of 1 (%04d-%02d-%02d)", parts.year ?? 0, parts.month ?? 0,
                    parts.day ?? 0),
                String(
                    format: "weekly 1 of 1 (%04d-W%02d)", parts.yearForWeekOfYear ?? 0,
                    parts.weekOfYear ?? 0),
                "newest",
            ]
            #expect(plan.reasons(0) == expected)
        }
    }

    @Test(
        "a length of time is a number and a unit",
        arguments: [
            ("1s", 1), ("15m", 900), ("2h", 7_200), ("7d", 604_800), ("4w", 2_419_200),
            ("1000y", 31_622_400_000), ("007d", 604_800),
        ])
    func lengths(text: String, seconds: Int64) throws {
        let parsed = try RetentionDuration.parse(text)
        #expect(parsed.seconds == seconds)
    }

    @Test(
        "anything else is none, and the sentence quotes it",
        arguments: [
            "", "7", "d", "-7d", "+7d", "1.5h", "7 d", "7D", "7days", "1y6mo", "0d", "1001y",
            "99999999999999999999s", "9223372036854775807mo", "٧d", "7d\n", "7d\u{0}",
        ])
    func refusesLengths(text: String) throws {
        let error = try #require(failure { _ = try RetentionDuration.parse(text) })
        #expect(error.kind == .invalid && error.message.hasPrefix("\""))
        #expect(!error.message.contains("\n") && !error.message.contains("\0"))
    }

    @Test(
        "months and years go back in the calendar of the zone",
        arguments: [
            ("1mo", "2026-11-25T10:00:00Z", "UTC", "2026-10-25T10:00:00Z"),
            ("3mo", "2026-05-31T12:00:00Z", "UTC", "2026-03-01T00:00:00Z"),
            ("1y", "2024-02-29T12:00:00Z", "UTC", "2023-03-01T00:00:00Z"),
            ("1mo", "2026-03-30T12:00:00Z", "UTC", "2026-03-01T00:00:00Z"),
            ("14mo", "2026-01-15T00:00:00.5Z", "UTC", "2024-11-15T00:00:00.5Z"),
            // Noon in winter, from noon in summer.
            ("6mo", "2026-07-15T12:00:00+02:00", "Europe/Berlin", "2026-01-15T11:00:00Z"),
            // Still the 1st of November there, and already the 2nd in UTC.
            ("1mo", "2026-11-01T20:00:00-05:00", "America/New_York", "2026-10-02T01:00:00Z"),
            // The clocks of Beirut went back just before midnight, and over it when they went forward.
            ("1mo", "2026-11-25T00:00:00+02:00", "Asia/Beirut", "2026-10-24T22:00:00Z"),
            ("1mo", "2026-04-29T00:00:00+03:00", "Asia/Beirut", "2026-03-28T22:00:00Z"),
            // Days are of 24 hours, and the 25th of October had 25.
            ("1d", "2026-10-26T00:00:00+01:00", "Europe/Berlin", "2026-10-24T23:00:00Z"),
        ])
    func subtracts(length: String, from: String, zone: String, expected: String) throws {
        let rule = try policy("--keep-last 1 --time-zone \(zone)")
        let result = try rule.time(.parse(length), before: time(from))
        #expect(result.text == expected)
    }

    @Test("a later time never gives an earlier one", arguments: ["Europe/Berlin", "Asia/Beirut"])
    func monotone(zone: String) throws {
        let rule = try policy("--keep-last 1 --time-zone \(zone)")
        let start = try time("2026-01-01T00:00:00Z")
        for length in try ["1mo", "5mo", "7mo", "1y"].map(RetentionDuration.parse) {
            var last = RetentionTime(seconds: .min)
            for step in 0..<9_000 {
                let now = RetentionTime(seconds: start.seconds + Int64(step) * 3_541)
                let result = try rule.time(length, before: now)
                #expect(result >= last, "\(length.text) before \(now.text)")
                last = result
            }
        }
    }
}
