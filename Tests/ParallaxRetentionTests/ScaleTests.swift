// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import Testing

@Suite("A hundred thousand snapshots")
struct ScaleTests {
    @Test("each of them gets its verdict, from every rule at once")
    func many() throws {
        let now = RetentionTime(seconds: 1_800_000_000)
        let times = (0..<100_000).map { RetentionTime(seconds: now.seconds - Int64($0) * 900) }
        let rule = try policy(
            "--keep-last 10 --hourly 100000 --daily 10000 --weekly 1000 --monthly 100 --yearly 9 "
                + "--keep-within 1mo --mode keep-landmarks --min-count 500 "
                + "--time-zone Europe/Berlin")
        let plan = try rule.decide(scheduled(times), now: now)
        #expect(plan.decisions.count == 100_000)
        // Four an hour, and the hourly rule keeps one of them.
        #expect(plan.keptByRule.count > 25_000 && plan.deleted.count > 70_000)
    }
}
