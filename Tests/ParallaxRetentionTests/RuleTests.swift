// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import Testing

@Suite("Each rule of a policy")
struct RuleTests {
    private static let week = [
        "2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z", "2026-11-22T10:00:00Z",
        "2026-11-23T10:00:00Z", "2026-11-24T10:00:00Z", "2026-11-24T22:00:00Z",
        "2026-11-25T10:00:00Z", "2026-11-25T10:30:00Z",
    ]

    /// What stays of `week` at eleven, as days and hours.
    private func kept(_ options: String) throws -> [String] {
        let plan = try policy(options).decide(
            scheduled(Self.week), now: time("2026-11-25T11:00:00Z"))
        return plan.keptTimes.map { String($0.dropFirst(8).prefix(8)) }
    }

    @Test(
        "what stays",
        arguments: [
            ("--keep-last 3", ["25T10:30", "25T10:00", "24T22:00"]),
            ("--keep-hourly 2", ["25T10:30", "24T22:00"]),
            ("--daily 3", ["25T10:30", "24T22:00", "23T10:00"]),
            // The 22nd of November 2026 is a Sunday.
            ("--keep-weekly 2", ["25T10:30", "22T10:00"]),
            ("--monthly 5", ["25T10:30"]),
            ("--yearly 1", ["25T10:30"]),
            // Exactly two days old is within two days.
            ("--keep-within 49h", ["25T10:30", "25T10:00", "24T22:00", "24T10:00", "23T10:00"]),
            ("--keep-within-daily 49h", ["25T10:30", "24T22:00", "23T10:00"]),
            ("--keep-within-hourly 13h", ["25T10:30", "24T22:00"]),
            ("--keep-within-weekly 7d", ["25T10:30", "22T10:00"]),
            ("--keep-within-monthly 1y", ["25T10:30"]),
            ("--keep-within-yearly 1y", ["25T10:30"]),
            ("--min-count 2", ["25T10:30", "25T10:00"]),
            ("--keep-last 1 --daily 2", ["25T10:30", "24T22:00"]),
            ("--daily 2 --min-count 4", ["25T10:30", "25T10:00", "24T22:00", "24T10:00"]),
            ("--mode keep-one", ["25T10:30"]),
            ("--mode keep-safe --window 12h", ["25T10:30", "25T10:00"]),
            ("--mode keep-safe --window 1m", ["25T10:30"]),
        ])
    func stays(options: String, expected: [String]) throws {
        let kept = try kept(options)
        #expect(kept == expected)
    }

    @Test("keep-all keeps all")
    func keepAll() throws {
        let count = try kept("--mode keep-all").count
        #expect(count == Self.week.count)
    }

    @Test("each snapshot that stays says why, rules in a fixed order")
    func reasons() throws {
        var candidates = try scheduled(Self.week)
        candidates[6].labels = ["keep": "yes"]
        candidates[1].holds = ["backup 7", ""]
        let plan = try policy(
            "--keep-last 2 --hourly 2 --daily 2 --weekly 1 --monthly 1 --yearly 1 "
                + "--keep-within 40m --keep-within-daily 1d --keep-labelled keep --min-count 5"
        ).decide(candidates, now: time("2026-11-25T11:00:00Z"))
        let newest = [
            "last 1 of 2", "hourly 1 of 2 (2026-11-25 10h)", "daily 1 of 2 (2026-11-25)",
            "weekly 1 of 1 (2026-W48)", "monthly 1 of 1 (2026-11)", "yearly 1 of 1 (2026)",
            "within 40m", "daily within 1d (2026-11-25)", "newest",
        ]
        #expect(plan.reasons(7) == newest)
        #expect(plan.reasons(6) == ["last 2 of 2", "label keep"])
        let evening = ["hourly 2 of 2 (2026-11-24 22h)", "daily 2 of 2 (2026-11-24)"]
        #expect(plan.reasons(5) == evening + ["daily within 1d (2026-11-24)"])
        #expect(plan.reasons(4) == ["minimum count 5"])
        #expect(plan.reasons(1) == ["held: backup 7", "held"])
        #expect(plan.deleted.map(\.id) == [3, 2, 0])
    }

    @Test("a label keeps by key, or by key and value")
    func labelled() throws {
        var candidates = try scheduled(Self.week)
        candidates[0].labels = ["keep": "yes"]
        candidates[1].labels = ["keep": "no"]
        candidates[2].labels = ["other": "yes"]
        let now = try time("2026-11-25T11:00:00Z")
        let byKey = try policy("--keep-labelled keep").decide(candidates, now: now)
        #expect(byKey.keptIDs == [0, 1, 7])
        let byValue = try policy("--keep-labelled keep=yes").decide(candidates, now: now)
        #expect(byValue.keptIDs == [0, 7])
        let both = try policy("--keep-labelled keep=yes --keep-labelled other").decide(
            candidates, now: now)
        #expect(both.keptIDs == [0, 2, 7])
    }

    @Test("a held snapshot takes its place in the rules, and counts towards the minimum")
    func heldCounts() throws {
        var candidates = try scheduled(Self.week)
        candidates[0].holds = ["h"]
        let now = try time("2026-11-25T11:00:00Z")
        let plan = try policy("--min-count 3").decide(candidates, now: now)
        #expect(plan.keptIDs == [7, 6, 0])
    }

    @Test("snapshots of one nanosecond after the other are told apart")
    func nanoseconds() throws {
        let second = try time("2026-11-25T10:00:00Z").seconds
        let candidates = (0..<5).map { index in
            RetentionCandidate(
                id: UInt64(index), name: "n",
                time: RetentionTime(seconds: second, nanoseconds: UInt32(index)),
                origin: .scheduled)
        }
        let now = RetentionTime(seconds: second, nanoseconds: 3)
        let plan = try policy("--keep-last 2").decide(candidates, now: now)
        #expect(plan.keptIDs == [4, 3, 2])
        #expect(plan.inTheFuture.map(\.id) == [4])
    }

    @Test("the order of the candidates does not matter, and the plan's is newest first")
    func order() throws {
        let candidates = try scheduled(Self.week)
        let now = try time("2026-11-25T11:00:00Z")
        let rule = try policy("--daily 3 --keep-last 2")
        let plan = try rule.decide(candidates, now: now)
        let reversed = try rule.decide(candidates.reversed(), now: now)
        #expect(plan == reversed)
        #expect(plan.decisions.map(\.candidate.id) == [7, 6, 5, 4, 3, 2, 1, 0])
    }

    @Test("of two snapshots of the same moment, the one that was made later is the newer")
    func sameMoment() throws {
        let moment = try time("2026-11-25T10:00:00Z")
        let all = [(9, "b"), (10, "a"), (8, "c")].map { id, name in
            RetentionCandidate(id: UInt64(id), name: name, time: moment, origin: .scheduled)
        }
        let plan = try policy("--keep-last 1").decide(all, now: moment)
        #expect(plan.decisions.map(\.candidate.id) == [10, 9, 8])
        #expect(plan.keptIDs == [10])
    }
}
