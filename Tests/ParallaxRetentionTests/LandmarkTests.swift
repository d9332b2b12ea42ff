// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import ParallaxSimulation
import Testing

@Suite("keep-landmarks")
struct LandmarkTests {
    private static let day: Int64 = 86_400

    @Test("everything within the window stays")
    func window() throws {
        let now = try time("2026-11-25T10:00:00Z")
        let times = row(
            from: RetentionTime(seconds: now.seconds - Self.day), to: now, step: 60)
        let plan = try policy("--mode keep-landmarks --window 1d").decide(
            scheduled(times), now: now)
        #expect(plan.deleted.isEmpty)
        #expect(plan.reasons(1) == ["keep-landmarks 1d"])
    }

    @Test("of a burst long ago, the newest stays, where it came to rest")
    func burst() throws {
        let now = try time("2026-11-25T10:00:00Z")
        // Two bursts, 200 and 100 days ago, and the window of a day is empty but for one.
        let times = try [
            "2026-05-09T10:00:00Z", "2026-05-09T10:05:00Z", "2026-05-09T10:06:00Z",
            "2026-08-17T10:00:00Z", "2026-08-17T10:00:01Z", "2026-11-25T09:00:00Z",
        ].map { text in try time(text) }
        let plan = try policy("--mode keep-landmarks --window 1d").decide(
            scheduled(times), now: now, force: true)
        #expect(plan.keptIDs == [2, 4, 5])
        #expect(plan.reasons(2) == ["landmark of 16d"])
        #expect(plan.reasons(4) == ["landmark of 8d"])
    }

    /// The definition, without its shortcut: for each version, the largest closed cell of any
    /// level that it lies in.
    private func naive(
        _ times: [RetentionTime], window: Int64, now: RetentionTime
    ) -> Set<RetentionTime> {
        var newest: [String: RetentionTime] = [:]
        for time in times {
            var group = "alone \(time.seconds)"
            for level in 0..<24 {
                let power = Int64(1) << Int64(level)
                let width = window / 8 * power
                let end = (time.seconds / width + 1) * width
                if now.seconds - end >= window * power { group = "\(level) \(end)" }
            }
            newest[group] = max(newest[group] ?? time, time)
        }
        return Set(newest.values)
    }

    @Test("agrees with its definition", arguments: UInt64(0)..<30)
    func definition(seed: UInt64) throws {
        var random = RandomPolicies(seed: seed)
        let now = random.now()
        let times = random.times(300, around: now).filter { $0 <= now }
        let window = try RetentionDuration(random.random.integer(in: 1...50), .hours)
        var rule = RetentionPolicy()
        rule.mode = .keepLandmarks(window: window)
        let plan = try rule.decide(scheduled(times), now: now, force: true)
        let expected = naive(times, window: window.seconds, now: now)
        #expect(Set(plan.keptByRule) == expected, "seed \(seed), window \(window.text)")
    }

    @Test("a year of applying it every hour thins out evenly, and loses nothing that it would keep")
    func year() throws {
        let rule = try policy("--mode keep-landmarks --window 1d")
        let start = try time("2026-01-01T00:00:00Z")
        let all = scheduled(
            row(
                from: start, to: RetentionTime(seconds: start.seconds + 365 * Self.day),
                step: 3_600))
        var left: [RetentionCandidate] = []
        for (index, candidate) in all.enumerated() {
            left.append(candidate)
            let plan = try rule.decide(left, now: candidate.time)
            left = plan.kept.map(\.candidate)
            if index % 1_000 == 999 {
                let history = Array(all[...index])
                let atOnce = try rule.decide(history, now: candidate.time)
                #expect(Set(left.map(\.id)) == atOnce.keptIDs, "after \(index) hours")
            }
        }
        let now = try #require(all.last).time.seconds
        let ages = left.map { now - $0.time.seconds }.sorted()
        // Within a day all 24 and the one that is a day old.
        #expect(ages.filter { $0 <= Self.day }.count == 25)
        // Beyond, the distance to the next is a fixed share of the age.
        for (younger, older) in zip(ages, ages.dropFirst()) where younger > 2 * Self.day {
            let gap = older - younger
            #expect(gap <= younger / 7 && gap >= younger / 20, "at \(younger) s: \(gap) s")
        }
        // So that a doubling of the age has eight, give or take the one that is being merged.
        for doubling in 1..<8 {
            let from = Self.day << Int64(doubling)
            let count = ages.filter { $0 > from && $0 <= 2 * from }.count
            #expect((7...9).contains(count), "beyond \(from) s: \(count)")
        }
    }

    @Test("a clock that jumps back undoes no group", arguments: [1, 100, 10_000, 1_000_000])
    func clockJumpsBack(seconds: Int64) throws {
        var random = RandomPolicies(seed: 7)
        let now = random.now()
        let times = random.times(300, around: now)
        let rule = try policy("--mode keep-landmarks --window 2d")
        let plan = try rule.decide(scheduled(times), now: now, force: true)
        let earlier = RetentionTime(seconds: now.seconds - seconds)
        let again = try rule.decide(plan.kept.map(\.candidate), now: earlier, force: true)
        #expect(again.deleted.isEmpty)
    }
}
