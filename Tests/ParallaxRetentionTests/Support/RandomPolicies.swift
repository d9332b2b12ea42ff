// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import ParallaxSimulation

/// Random policies and snapshots, the same for the same seed.
struct RandomPolicies {
    var random: SeededRandom

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    static let zones = [
        "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
        "America/St_Johns", "Pacific/Apia", "Africa/Casablanca",
    ]

    private static let units: [(RetentionDuration.Unit, Int)] = [
        (.minutes, 300), (.hours, 100), (.days, 60), (.weeks, 20), (.months, 14), (.years, 3),
    ]

    mutating func duration() throws -> RetentionDuration {
        let (unit, most) = Self.units[random.index(below: Self.units.count)]
        return try RetentionDuration(random.integer(in: 1...most), unit)
    }

    /// Of counts and durations, with at least one rule.
    mutating func policy() throws -> RetentionPolicy {
        var policy = RetentionPolicy()
        policy.timeZone = Self.zones[random.index(below: Self.zones.count)]
        while policy.isEmpty {
            if random.chance(percent: 30) { policy.keepLast = random.integer(in: 1...20) }
            if random.chance(percent: 20) { policy.keepWithin = try duration() }
            if random.chance(percent: 20) { policy.minimumCount = random.integer(in: 1...40) }
            for period in RetentionPeriod.allCases {
                if random.chance(percent: 30) {
                    policy.keepPeriods[period] = random.integer(in: 1...30)
                }
                if random.chance(percent: 15) {
                    policy.keepPeriodsWithin[period] = try duration()
                }
            }
        }
        return policy
    }

    /// The same with everything else that a policy can say.
    mutating func anyPolicy() throws -> RetentionPolicy {
        var policy = try policy()
        if random.chance(percent: 30) { policy.keepLabelled = [try .parse("keep=yes")] }
        if random.chance(percent: 30) { policy.label = try .parse("series") }
        policy.includesManual = random.chance(percent: 30)
        switch random.integer(in: 0...7) {
        case 0: policy.mode = .keepOne
        case 1: policy.mode = .keepSafe(window: try duration())
        case 2, 3: policy.mode = .keepLandmarks(window: try duration())
        default: break
        }
        return policy
    }

    /// Distinct whole seconds, in bursts, from two years before `now` to a day after it.
    mutating func times(_ count: Int, around now: RetentionTime) -> [RetentionTime] {
        var times: Set<RetentionTime> = []
        var seconds = now.seconds
        while times.count < count {
            if random.chance(percent: 20) {
                seconds = now.seconds + Int64(random.integer(in: -2 * 365 * 86_400...86_400))
            }
            seconds -= Int64(random.integer(in: 1...7_200))
            times.insert(RetentionTime(seconds: seconds))
        }
        return times.sorted()
    }

    mutating func candidates(_ count: Int, around now: RetentionTime) -> [RetentionCandidate] {
        times(count, around: now).enumerated().map { index, time in
            var candidate = RetentionCandidate(
                id: UInt64(index), name: "s\(index)", time: time, origin: .scheduled)
            if random.chance(percent: 10) { candidate.origin = .manual }
            if random.chance(percent: 5) { candidate.origin = .automatic }
            if random.chance(percent: 5) { candidate.holds = ["by hand"] }
            if random.chance(percent: 5) { candidate.labels["keep"] = "yes" }
            if random.chance(percent: 5) { candidate.labels["series"] = "a" }
            return candidate
        }
    }

    mutating func now() -> RetentionTime {
        RetentionTime(seconds: 1_790_000_000 + Int64(random.integer(in: -86_400_000...86_400_000)))
    }
}
