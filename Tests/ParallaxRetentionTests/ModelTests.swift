// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import ParallaxSimulation
import Testing

/// Random policies on random snapshots. A failure names its seed, which repeats it.
@Suite("Random policies")
struct ModelTests {
    @Test("agree with restic's rule written down a second time", arguments: UInt64(0)..<80)
    func naive(seed: UInt64) throws {
        var random = RandomPolicies(seed: seed)
        let rule = try random.policy()
        let now = random.now()
        let times = random.times(200, around: now)
        let plan = try rule.decide(scheduled(times), now: now, force: true)
        let kept = Set(plan.keptByRule)
        let expected = try NaiveModel(zone: rule.timeZone).kept(times, by: rule, now: now)
        #expect(kept == expected, "seed \(seed): \(rule.options)")
    }

    @Test("applied twice change nothing the second time", arguments: UInt64(0)..<80)
    func idempotent(seed: UInt64) throws {
        var random = RandomPolicies(seed: 1_000 + seed)
        let rule = try random.anyPolicy()
        let now = random.now()
        let first = try rule.decide(
            random.candidates(150, around: now), now: now, force: true)
        let second = try rule.decide(first.kept.map(\.candidate), now: now, force: true)
        #expect(second.deleted.isEmpty, "seed \(seed): \(rule.options)")
        #expect(second.decisions == first.kept, "seed \(seed): \(rule.options)")
    }

    @Test("two at once, each from what it saw, leave what one leaves", arguments: UInt64(0)..<40)
    func concurrent(seed: UInt64) throws {
        var random = RandomPolicies(seed: 2_000 + seed)
        let rule = try random.anyPolicy()
        let now = random.now()
        let all = random.candidates(150, around: now)
        let whole = try rule.decide(all, now: now, force: true)
        // The other one has deleted some of it already.
        let gone = Set(whole.deleted.map(\.id).filter { _ in random.random.chance(percent: 50) })
        let partly = all.filter { !gone.contains($0.id) }
        let rest = try rule.decide(partly, now: now, force: true)
        #expect(rest.keptIDs == whole.keptIDs, "seed \(seed): \(rule.options)")
    }

    @Test("delete nothing that they want later", arguments: UInt64(0)..<80)
    func stable(seed: UInt64) throws {
        var random = RandomPolicies(seed: 3_000 + seed)
        var rule = try random.anyPolicy()
        // The minimum wants the newest of what there is, and so not always the same.
        rule.minimumCount = nil
        if rule.isEmpty { rule.keepLast = 3 }
        let now = random.now()
        let all = random.candidates(150, around: now)
        var left = all
        for day in [0, 1, 3, 10, 40, 200, 800] as [Int64] {
            let later = RetentionTime(seconds: now.seconds + day * 86_400)
            let plan = try rule.decide(left, now: later, force: true)
            let fresh = try rule.decide(all, now: later, force: true)
            let wanted = Set(fresh.keptByRule)
            #expect(Set(plan.keptByRule) == wanted, "seed \(seed), day \(day): \(rule.options)")
            left = plan.kept.map(\.candidate)
        }
    }

    @Test(
        "never delete what is held, newest, in the future or not theirs", arguments: UInt64(0)..<80)
    func protection(seed: UInt64) throws {
        var random = RandomPolicies(seed: 4_000 + seed)
        let rule = try random.anyPolicy()
        let now = random.now()
        let all = random.candidates(150, around: now)
        let plan = try rule.decide(all, now: now, force: true)
        #expect(plan.decisions.count == all.count)
        let newest = all.filter { $0.time <= now }.max { $0.time < $1.time }
        for candidate in plan.deleted {
            let isLabelled = rule.label != nil && candidate.labels["series"] != nil
            let isTheirs =
                candidate.origin == .scheduled || isLabelled
                || (candidate.origin == .manual && rule.includesManual)
            let isFree = candidate.holds.isEmpty && candidate.time <= now && candidate != newest
            #expect(isTheirs && isFree, "seed \(seed): \(candidate.name), \(rule.options)")
        }
    }
}
