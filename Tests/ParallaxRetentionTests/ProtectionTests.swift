// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import Testing

@Suite("What no policy deletes")
struct ProtectionTests {
    private static let now = RetentionTime(seconds: 1_800_000_000)

    private func candidate(
        _ id: UInt64, ago seconds: Int64, _ origin: RetentionCandidate.Origin = .scheduled
    ) -> RetentionCandidate {
        RetentionCandidate(
            id: id, name: "s\(id)",
            time: RetentionTime(seconds: Self.now.seconds - seconds), origin: origin)
    }

    @Test("an empty policy is refused; by force, the newest and the held stay")
    func empty() throws {
        var old = candidate(1, ago: 3_000)
        old.holds = ["import"]
        let all = [old, candidate(2, ago: 2_000), candidate(3, ago: 1_000)]
        let error = failure { _ = try RetentionPolicy().decide(all, now: Self.now) }
        #expect(error?.kind == .emptyPolicy)
        #expect(error?.message.contains("--force") == true)
        let plan = try RetentionPolicy().decide(all, now: Self.now, force: true)
        #expect(plan.keptIDs == [1, 3])
    }

    @Test("who owns what is no rule: a policy of that alone is empty")
    func ownershipIsNoRule() throws {
        let rule = try policy("--label a --include-manual --time-zone Europe/Berlin")
        #expect(rule.isEmpty)
        let error = failure { _ = try rule.decide([], now: Self.now) }
        #expect(error?.kind == .emptyPolicy)
    }

    @Test(
        "a policy of which no rule keeps anything is refused, unless forced",
        arguments: ["--keep-within 1h", "--keep-labelled keep", "--keep-within-daily 15m"])
    func everything(options: String) throws {
        let all = (1...9).map { candidate(UInt64($0), ago: 10_000 - Int64($0)) }
        let rule = try policy(options)
        let error = failure { _ = try rule.decide(all, now: Self.now) }
        #expect(error?.kind == .wouldDeleteEverything)
        #expect(error?.message.contains("any of the 9 snapshots") == true)
        let plan = try rule.decide(all, now: Self.now, force: true)
        #expect(plan.keptIDs == [9])
        #expect(plan.reasons(9) == ["newest"])
    }

    @Test("even if only one would go")
    func oneOfTwo() throws {
        let all = [candidate(1, ago: 20_000), candidate(2, ago: 10_000)]
        let rule = try policy("--keep-within 1h")
        let error = failure { _ = try rule.decide(all, now: Self.now) }
        #expect(error?.kind == .wouldDeleteEverything)
    }

    @Test("a policy put together in code is checked as well", arguments: [-1, 0, 1_000_001])
    func unchecked(count: Int) throws {
        var rule = RetentionPolicy()
        rule.keepLast = count
        let byCount = failure { _ = try rule.decide([], now: Self.now, force: true) }
        #expect(byCount?.message.hasPrefix("keep-last is \(count)") == true)
        var zoned = RetentionPolicy.standard
        zoned.timeZone = "Nowhere"
        let byZone = failure { _ = try zoned.decide([], now: Self.now, force: true) }
        #expect(byZone?.kind == .invalid)
    }

    @Test("nothing to delete is nothing to refuse", arguments: [0, 1])
    func nothing(count: Int) throws {
        let all = (0..<count).map { candidate(UInt64($0), ago: 10_000) }
        let plan = try policy("--keep-within 1h").decide(all, now: Self.now)
        #expect(plan.decisions.count == count && plan.deleted.isEmpty)
    }

    @Test("what was made by hand stays and is not counted, unless the policy says otherwise")
    func byHand() throws {
        let all = [
            candidate(1, ago: 40), candidate(2, ago: 30, .manual),
            candidate(3, ago: 20, .automatic),
            candidate(4, ago: 10),
        ]
        let plan = try policy("--keep-last 1").decide(all, now: Self.now)
        #expect(plan.keptIDs == [2, 3, 4])
        #expect(plan.reasons(2) == ["made by hand"])
        #expect(plan.reasons(3) == ["made by the daemon"])
        // Manual ones do not push out the schedule's: two of its own stay.
        let two = try policy("--keep-last 2").decide(all, now: Self.now)
        #expect(two.keptIDs == [1, 2, 3, 4])
        let including = try policy("--keep-last 1 --include-manual").decide(all, now: Self.now)
        #expect(including.keptIDs == [3, 4])
    }

    @Test("the policy's label makes a snapshot its own, whoever made it")
    func ownLabel() throws {
        var manual = candidate(1, ago: 40, .manual)
        manual.labels = ["series": "nightly"]
        var other = candidate(2, ago: 30, .manual)
        other.labels = ["series": "weekly"]
        var automatic = candidate(3, ago: 20, .automatic)
        automatic.labels = ["series": "nightly"]
        let all = [manual, other, automatic, candidate(4, ago: 10)]
        let plan = try policy("--keep-last 1 --label series=nightly").decide(all, now: Self.now)
        #expect(plan.keptIDs == [2, 4])
        let byKey = try policy("--keep-last 1 --label series").decide(all, now: Self.now)
        #expect(byKey.keptIDs == [4])
    }

    @Test("the newest stays even when it is not the policy's, and so does the newest of its own")
    func newest() throws {
        let all = [
            candidate(1, ago: 400), candidate(2, ago: 300), candidate(3, ago: 200, .manual),
        ]
        let plan = try policy("--keep-within 1m").decide(all, now: Self.now, force: true)
        #expect(plan.keptIDs == [2, 3])
        #expect(plan.reasons(3) == ["made by hand", "newest"])
        #expect(plan.reasons(2) == ["newest"])
    }

    @Test("a snapshot from the future stays, is reported, and uses up no count")
    func future() throws {
        let all = [
            candidate(1, ago: 40), candidate(2, ago: 30), candidate(3, ago: -1),
            candidate(4, ago: -1_000_000),
        ]
        let plan = try policy("--keep-last 1").decide(all, now: Self.now)
        #expect(plan.keptIDs == [2, 3, 4])
        #expect(plan.inTheFuture.map(\.id) == [4, 3])
        #expect(plan.reasons(3) == ["in the future"])
        #expect(plan.reasons(2) == ["last 1 of 1", "newest"])
    }

    @Test("a snapshot from the future is kept even by force, with an empty policy")
    func futureByForce() throws {
        let all = [candidate(1, ago: 40), candidate(2, ago: 30), candidate(3, ago: -1)]
        let plan = try RetentionPolicy().decide(all, now: Self.now, force: true)
        #expect(plan.keptIDs == [2, 3])
    }

    @Test("after the clock jumped back an hour, what was made last is still protected")
    func clockJumpsBack() throws {
        // Four before the jump, the last of them now in the future; two after it.
        let all = [
            candidate(1, ago: 3_600), candidate(2, ago: 2_700), candidate(3, ago: 900),
            candidate(4, ago: -900), candidate(5, ago: 2_000), candidate(6, ago: 1_100),
        ]
        let plan = try policy("--keep-last 1").decide(all, now: Self.now)
        #expect(plan.keptIDs == [3, 4, 6])
        #expect(plan.reasons(6) == ["newest"])
    }

    @Test("a clock that jumped ahead by a year deletes nothing by age")
    func clockJumpsAhead() throws {
        let all = (1...9).map { candidate(UInt64($0), ago: Int64($0) * 60) }
        let ahead = RetentionTime(seconds: Self.now.seconds + 365 * 86_400)
        let rule = try policy("--keep-within 7d --keep-within-monthly 6mo")
        let error = failure { _ = try rule.decide(all, now: ahead) }
        #expect(error?.kind == .wouldDeleteEverything)
    }

    @Test(
        "nor does it when the schedule has made new ones meanwhile, however many, by such rules",
        arguments: ["--keep-within 7d", "--keep-within-hourly 7d --keep-within-daily 5d"])
    func newestByAgeAlone(options: String) throws {
        let rule = try policy(options)
        var all = (1...9).map { candidate(UInt64($0), ago: 365 * 86_400 - Int64($0) * 3_600) }
        for number in 10...20 {
            all.append(candidate(UInt64(number), ago: 86_400 - Int64(number) * 3_600))
            let error = failure { _ = try rule.decide(all, now: Self.now) }
            #expect(error?.kind == .wouldDeleteEverything, "\(number)")
            #expect(error?.message.contains("would delete 9 of those of before") == true)
        }
        let plan = try rule.decide(all, now: Self.now, force: true)
        #expect(plan.keptIDs == Set(10...20))
        // What keeps some of what was there before is no such policy.
        let counted = try policy(options + " --monthly 6").decide(all, now: Self.now)
        #expect(counted.deleted.count == 8)
    }

    @Test("once new ones fill the window, those of before a pause go")
    func pauseIsOver() throws {
        let rule = try policy("--keep-within 7d")
        let before = (1...9).map { candidate(UInt64($0), ago: 90 * 86_400 - Int64($0) * 3_600) }
        let since = (10...19).map { candidate(UInt64($0), ago: Int64(19 - $0) * 86_400) }
        let plan = try rule.decide(before + since, now: Self.now)
        #expect(plan.keptIDs == Set(12...19))
        let early = failure { _ = try rule.decide(before + since.suffix(6), now: Self.now) }
        #expect(early?.kind == .wouldDeleteEverything)
    }

    /// Snapshots of each hour of a week that ended so long ago.
    private func week(endedAgo days: Int64) -> [RetentionCandidate] {
        (1...168).map { candidate(UInt64($0), ago: days * 86_400 + Int64(168 - $0) * 3_600) }
    }

    @Test(
        "a clock that jumped ahead does not thin out, with new snapshots and without",
        arguments: ["keep-landmarks", "keep-safe"], [0, 1, 5])
    func modesAndJump(mode: String, newCount: Int) throws {
        let rule = try policy("--mode \(mode)")
        let new = (0..<newCount).map {
            candidate(UInt64(1_000 + $0), ago: Int64(newCount - $0) * 3_600)
        }
        let all = week(endedAgo: 365) + new
        let error = failure { _ = try rule.decide(all, now: Self.now) }
        #expect(error?.kind == .wouldDeleteEverything)
        #expect(error?.message.contains("none of the policy's snapshots is from between") == true)
        let plan = try rule.decide(all, now: Self.now, force: true)
        #expect(plan.kept.count <= newCount + 2)
        // By counts nothing changes.
        let counted = try policy("--mode \(mode) --keep-last 9").decide(all, now: Self.now)
        #expect(counted.kept.count > 8)
    }

    @Test("a pause is over when new ones fill the window, for landmarks too")
    func landmarksAfterPause() throws {
        let rule = try policy("--mode keep-landmarks --window 1d")
        let before = week(endedAgo: 100)
        let since = (0...26).map { candidate(UInt64(1_000 + $0), ago: Int64(26 - $0) * 3_600) }
        let early = failure { _ = try rule.decide(before + since.suffix(20), now: Self.now) }
        #expect(early?.kind == .wouldDeleteEverything)
        let plan = try rule.decide(before + since, now: Self.now)
        #expect(plan.deleted.count > 150 && plan.keptIDs.isSuperset(of: 1_003...1_026))
    }

    @Test("a schedule that is slower than the window is thinned out by landmarks, never refused")
    func slowSchedule() throws {
        let rule = try policy("--mode keep-landmarks --window 1d")
        let start = try time("2026-01-01T00:00:00Z")
        let end = try time("2027-12-31T00:00:00Z")
        var left: [RetentionCandidate] = []
        for candidate in scheduled(row(from: start, to: end, step: 7 * 86_400 + 60)) {
            left = try rule.decide(left + [candidate], now: candidate.time).kept.map(\.candidate)
        }
        #expect((15...50).contains(left.count))
    }

    @Test(
        "a schedule that rests by night is never refused, whatever the window and the hour of the run",
        arguments: [
            ("keep-landmarks", "12h", 0), ("keep-landmarks", "8h", 0), ("keep-safe", "12h", 0),
            ("keep-landmarks", "8h", 9), ("keep-safe", "8h", 9),
        ])
    func restsByNight(mode: String, window: String, hoursLater: Int64) throws {
        let rule = try policy("--mode \(mode) --window \(window)")
        let start = try time("2026-01-01T09:00:00Z")
        let end = try time("2026-03-01T00:00:00Z")
        var left: [RetentionCandidate] = []
        for candidate in scheduled(row(from: start, to: end, step: 3_600)) {
            let hour = candidate.time.seconds / 3_600 % 24
            guard (9...17).contains(hour) else { continue }
            left.append(candidate)
            // The first days are as a new policy finds them.
            let now = RetentionTime(seconds: candidate.time.seconds + hoursLater * 3_600)
            guard candidate.time.seconds > start.seconds + 3 * 86_400,
                hoursLater == 0 || hour == 17
            else { continue }
            left = try rule.decide(left, now: now).kept.map(\.candidate)
        }
        #expect(left.count < 60)
    }

    @Test("a new disk's second snapshot may take the place of its first, of the same day")
    func secondOfADay() throws {
        let all = [candidate(1, ago: 3_600), candidate(2, ago: 0)]
        let plan = try policy("--keep-within-daily 7d").decide(all, now: Self.now)
        #expect(plan.keptIDs == [2])
        // Here it would be left with nothing of what was there.
        let rule = try policy("--keep-within 15m")
        let error = failure { _ = try rule.decide(all, now: Self.now) }
        #expect(error?.message.contains("would delete 1 of those of before") == true)
    }

    @Test("a schedule goes on for months under a policy of ages alone, and is never refused")
    func agesAlone() throws {
        let rule = try policy("--keep-within 2d --keep-within-daily 2w")
        let start = try time("2026-02-20T00:00:00Z")
        let end = try time("2026-05-20T00:00:00Z")
        var left: [RetentionCandidate] = []
        for candidate in scheduled(row(from: start, to: end, step: 3_600)) {
            left = try rule.decide(left + [candidate], now: candidate.time).kept.map(\.candidate)
            #expect(left.count <= 49 + 14)
        }
    }

    @Test(
        "times that no clock shows, and policies of any age, do not trap", arguments: [false, true])
    func absurdTimes(nowIsAbsurd: Bool) throws {
        let seconds: [Int64] = [.min, -1 << 50, -1, 0, 1 << 50, .max]
        let all = seconds.enumerated().map { index, seconds in
            RetentionCandidate(
                id: UInt64(index), name: "",
                time: RetentionTime(seconds: seconds, nanoseconds: .max), origin: .scheduled)
        }
        let rule = try policy(
            "--keep-hourly 1 --yearly 1000000 --keep-within 1000y --keep-within-weekly 12000mo "
                + "--mode keep-landmarks --window 1s --time-zone America/New_York")
        for now in nowIsAbsurd ? [Int64.min, .max] : [0, 1_800_000_000] {
            let plan = try rule.decide(all, now: RetentionTime(seconds: now), force: true)
            #expect(plan.decisions.count == all.count)
            for decision in plan.decisions where decision.candidate.time.seconds > now {
                #expect(decision.reasons.contains(.inTheFuture))
            }
        }
    }
}
