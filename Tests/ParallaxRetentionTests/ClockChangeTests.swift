// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import Testing

@Suite("Clock changes")
struct ClockChangeTests {
    /// Hours that `--keep-hourly` tells apart, oldest first, of a snapshot every quarter of an hour.
    private func hours(_ zone: String, from: String, to: String) throws -> [String] {
        let times = try row(from: time(from), to: time(to), step: 900)
        let plan = try policy("--keep-hourly 100 --time-zone \(zone)").decide(
            scheduled(times), now: time(to))
        return plan.decisions.reversed().compactMap { decision in
            guard case .period(_, _, _, let bucket)? = decision.reasons.first else { return nil }
            return String(bucket.dropFirst(11))
        }
    }

    @Test("Berlin, forward: there is no hour of two")
    func berlinForward() throws {
        let hours = try hours(
            "Europe/Berlin", from: "2026-03-29T00:00:00+01:00", to: "2026-03-29T05:00:00+02:00")
        #expect(hours == ["00h +01:00", "01h +01:00", "03h +02:00", "04h +02:00"])
    }

    @Test("Berlin, back: the two hours of two are two hours")
    func berlinBack() throws {
        let hours = try hours(
            "Europe/Berlin", from: "2026-10-25T01:00:00+02:00", to: "2026-10-25T04:00:00+01:00")
        #expect(hours == ["01h +02:00", "02h +02:00", "02h +01:00", "03h +01:00"])
    }

    @Test("New York, forward and back")
    func newYork() throws {
        let forward = try hours(
            "America/New_York", from: "2026-03-08T01:00:00-05:00", to: "2026-03-08T04:00:00-04:00")
        #expect(forward == ["01h -05:00", "03h -04:00"])
        let back = try hours(
            "America/New_York", from: "2026-11-01T00:00:00-04:00", to: "2026-11-01T03:00:00-05:00")
        #expect(back == ["00h -04:00", "01h -04:00", "01h -05:00", "02h -05:00"])
    }

    @Test(
        "Lord Howe, whose clocks change by half an hour: half of an hour is missing, or comes again"
    )
    func lordHowe() throws {
        let forward = try hours(
            "Australia/Lord_Howe", from: "2026-10-04T01:00:00+10:30",
            to: "2026-10-04T04:00:00+11:00")
        #expect(forward == ["01h +10:30", "02h +11:00", "03h +11:00"])
        let back = try hours(
            "Australia/Lord_Howe", from: "2026-04-05T00:00:00+11:00",
            to: "2026-04-05T03:00:00+10:30")
        #expect(back == ["00h +11:00", "01h +11:00", "01h +10:30", "02h +10:30"])
    }

    @Test("a day that is left and entered again is one day")
    func backOverMidnight() throws {
        // Newfoundland, 2010-11-07: one minute past midnight the clocks went back to 23:01.
        let times = try row(
            from: time("2010-11-06T23:30:00-02:30"), to: time("2010-11-07T02:00:00-03:30"),
            step: 20)
        let plan = try policy("--keep-daily 9 --time-zone America/St_Johns").decide(
            scheduled(times), now: time("2010-11-07T12:00:00Z"))
        #expect(plan.keptTimes == ["2010-11-07T05:29:40Z", "2010-11-07T03:29:40Z"])
    }

    @Test("without a change near it an hour's name is enough")
    func plainNames() throws {
        let hours = try hours(
            "Europe/Berlin", from: "2026-11-25T10:00:00+01:00", to: "2026-11-25T12:00:00+01:00")
        #expect(hours == ["10h", "11h"])
    }

    private static let years: [(zone: String, start: String, end: String, hours: Int)] = [
        ("UTC", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 8_760),
        ("Europe/Berlin", "2026-01-01T00:00:00+01:00", "2027-01-01T00:00:00+01:00", 8_760),
        ("America/New_York", "2026-01-01T00:00:00-05:00", "2027-01-01T00:00:00-05:00", 8_760),
        // Half an hour comes again in April; half of another hour is left in October.
        ("Australia/Lord_Howe", "2026-01-01T00:00:00+11:00", "2027-01-01T00:00:00+11:00", 8_761),
    ]

    @Test("a year of quarters of an hour has each hour, day, week and month once", arguments: years)
    func year(zone: String, start: String, end: String, hours: Int) throws {
        let all = scheduled(row(from: try time(start), to: try time(end), step: 900))
        let now = try time(end)
        func kept(_ options: String) throws -> [String] {
            let rule = try policy("\(options) --time-zone \(zone)")
            let local = try rule.localText()
            return try rule.decide(all, now: now).keptByRule.map(local)
        }
        let hourly = try kept("--hourly 100000").count
        #expect(hourly == hours)
        let daily = try kept("--daily 1000")
        #expect(daily.count == 365)
        #expect(daily.allSatisfy { $0.contains("T23:45:00") })
        // 2026 begins on a Thursday: it has the ISO weeks 1 to 53.
        let weekly = try kept("--weekly 100").count
        #expect(weekly == 53)
        let monthly = try kept("--monthly 100").map { String($0.dropFirst(5).prefix(5)) }
        #expect(monthly.first == "12-31" && monthly.last == "01-31" && monthly.count == 12)
        let yearly = try kept("--yearly 100").count
        #expect(yearly == 1)
    }

    @Test(
        "applied every hour through both changes of a year, a policy keeps what it keeps at once",
        arguments: ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
    func appliedEveryHour(zone: String) throws {
        let rule = try policy(
            "--keep-last 4 --hourly 24 --daily 7 --weekly 4 --monthly 12 --time-zone \(zone)")
        let start = try time("2026-02-20T00:00:00Z")
        let end = try time("2026-11-20T00:00:00Z")
        let all = scheduled(row(from: start, to: end, step: 900))
        var left: [RetentionCandidate] = []
        for (index, candidate) in all.enumerated() {
            left.append(candidate)
            guard index % 4 == 3 else { continue }
            let plan = try rule.decide(left, now: candidate.time)
            left = plan.kept.map(\.candidate)
            #expect(left.count <= 4 + 24 + 7 + 4 + 12)
        }
        let atOnce = try rule.decide(all, now: end)
        #expect(Set(left.map(\.id)) == atOnce.keptIDs)
        // Nothing has more than it was asked for, and the days have all of it.
        let days = try policy("--daily 7 --time-zone \(zone)").decide(left, now: end)
        #expect(days.keptByRule.count == 7)
    }
}
