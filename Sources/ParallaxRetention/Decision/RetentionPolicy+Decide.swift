// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension RetentionPolicy {
    /// What stays and what goes at the time `now`.
    ///
    /// Takes time in proportion to n log n. `force` allows a policy without rules, and one whose
    /// rules keep none of what was there; what no policy may touch stays even so.
    package func decide(
        _ candidates: [RetentionCandidate], now: RetentionTime, force: Bool = false
    ) throws(RetentionError) -> RetentionPlan {
        if isEmpty && !force {
            throw RetentionError(
                .emptyPolicy,
                "the policy has no rule that keeps anything; give it one, such as --keep-last 10, "
                    + "or use --force")
        }
        try validate()
        let calendar = try PolicyCalendar(zoneName: timeZone)
        var verdict = Verdict(candidates, now: now, policy: self)
        verdict.applyRules(of: self, calendar: calendar)
        verdict.protect()
        if !force {
            try verdict.refuseToDeleteEverything()
            try verdict.refuseToDeleteByAge(of: self, calendar: calendar)
        }
        return verdict.plan
    }

    /// What is older than this no rule keeps because it is young; nil without such a rule.
    fileprivate func start(
        ofLongestWindow calendar: PolicyCalendar, now: RetentionTime
    ) -> RetentionTime? {
        let windows = keepPeriodsWithin.values + [keepWithin, mode?.window].compactMap(\.self)
        return windows.map { calendar.subtract($0, from: now) }.min()
    }

    /// Whether this policy may delete `candidate` at all.
    package func owns(_ candidate: RetentionCandidate) -> Bool {
        if let label, label.matches(candidate.labels) { return true }
        switch candidate.origin {
        case .scheduled: return true
        case .manual: return includesManual
        case .automatic: return false
        }
    }
}

/// A plan that is being made.
private struct Verdict {
    /// Newest first; the later made first where two have the same time.
    private var decisions: [RetentionDecision]
    /// Indices into `decisions` of those that the policy owns and that are not in the future: the
    /// only ones that rules count, so that nobody else's snapshot can push out one of ours.
    private var subjects: [Int] = []
    private let now: RetentionTime

    init(_ candidates: [RetentionCandidate], now: RetentionTime, policy: RetentionPolicy) {
        self.now = now
        decisions = candidates.map { RetentionDecision(candidate: $0, reasons: []) }
        decisions.sort {
            let (left, right) = ($0.candidate, $1.candidate)
            return (left.time, left.id, left.name) > (right.time, right.id, right.name)
        }
        subjects.reserveCapacity(decisions.count)
        for index in decisions.indices {
            let candidate = decisions[index].candidate
            if candidate.time > now {
                decisions[index].reasons.append(.inTheFuture)
            }
            if !policy.owns(candidate) {
                let reason: RetentionReason =
                    candidate.origin == .automatic ? .madeAutomatically : .madeByHand
                decisions[index].reasons.append(reason)
            } else if candidate.time <= now {
                subjects.append(index)
            }
        }
    }

    var plan: RetentionPlan { RetentionPlan(decisions: decisions) }
}

extension Verdict {
    mutating func applyRules(of policy: RetentionPolicy, calendar: PolicyCalendar) {
        if let count = policy.keepLast { keepLast(count) }
        for period in RetentionPeriod.allCases {
            if let count = policy.keepPeriods[period] {
                keep(period, count: count, calendar: calendar)
            }
        }
        if let duration = policy.keepWithin {
            keep(since: calendar.subtract(duration, from: now), .within(duration))
        }
        for period in RetentionPeriod.allCases {
            if let duration = policy.keepPeriodsWithin[period] {
                keep(period, within: duration, calendar: calendar)
            }
        }
        for selector in policy.keepLabelled { keep(labelled: selector) }
        if let mode = policy.mode { keep(mode, calendar: calendar) }
        if let count = policy.minimumCount { fill(to: count) }
    }

    private mutating func keepLast(_ count: Int) {
        for (number, index) in subjects.prefix(count).enumerated() {
            decisions[index].reasons.append(.last(number + 1, of: count))
        }
    }

    private mutating func keep(_ period: RetentionPeriod, count: Int, calendar: PolicyCalendar) {
        var last: CalendarBucket?
        var used = 0
        for index in subjects where used < count {
            let seconds = decisions[index].candidate.time.clamped.seconds
            let bucket = calendar.bucket(period, at: seconds)
            guard bucket.isNew(after: last, period: period) else { continue }
            last = bucket
            used += 1
            let text = calendar.bucketText(period, at: seconds)
            decisions[index].reasons.append(.period(period, used, of: count, bucket: text))
        }
    }

    private mutating func keep(since oldest: RetentionTime, _ reason: RetentionReason) {
        for index in subjects {
            guard decisions[index].candidate.time >= oldest else { break }
            decisions[index].reasons.append(reason)
        }
    }

    private mutating func keep(
        _ period: RetentionPeriod, within duration: RetentionDuration, calendar: PolicyCalendar
    ) {
        let oldest = calendar.subtract(duration, from: now)
        var last: CalendarBucket?
        for index in subjects {
            guard decisions[index].candidate.time >= oldest else { break }
            let seconds = decisions[index].candidate.time.clamped.seconds
            let bucket = calendar.bucket(period, at: seconds)
            guard bucket.isNew(after: last, period: period) else { continue }
            last = bucket
            let text = calendar.bucketText(period, at: seconds)
            decisions[index].reasons.append(.periodWithin(period, duration, bucket: text))
        }
    }

    private mutating func keep(labelled selector: LabelSelector) {
        for index in subjects where selector.matches(decisions[index].candidate.labels) {
            decisions[index].reasons.append(.label(selector))
        }
    }

    private mutating func keep(_ mode: RetentionMode, calendar: PolicyCalendar) {
        switch mode {
        case .keepOne:
            if let first = subjects.first { decisions[first].reasons.append(.keepOne) }
        case .keepAll:
            for index in subjects { decisions[index].reasons.append(.keepAll) }
        case .keepSafe(let window):
            let oldest = calendar.subtract(window, from: now)
            keep(since: oldest, .keepSafe(window))
            if let first = subjects.first, decisions[first].candidate.time < oldest {
                decisions[first].reasons.append(.keepSafe(window))
            }
        case .keepLandmarks(let window):
            keepLandmarks(window)
        }
    }

    private mutating func keepLandmarks(_ window: RetentionDuration) {
        let landmarks = Landmarks(window: window, now: now)
        var last: Landmarks.Group?
        for index in subjects {
            guard let group = landmarks.group(of: decisions[index].candidate.time) else {
                decisions[index].reasons.append(.recent(window))
                continue
            }
            guard group != last else { continue }
            last = group
            decisions[index].reasons.append(.landmark(seconds: group.seconds))
        }
    }

    /// Comes last of the rules: it counts all of the policy's own that stay, held ones too.
    private mutating func fill(to count: Int) {
        func stays(_ decision: RetentionDecision) -> Bool {
            decision.isKept || decision.candidate.isHeld
        }
        var missing = count - subjects.count { stays(decisions[$0]) }
        for index in subjects where missing > 0 && !stays(decisions[index]) {
            decisions[index].reasons.append(.minimumCount(count))
            missing -= 1
        }
    }

    /// Adds what no policy may touch. The newest is meant in every sense: the last of all that are
    /// not in the future, the last of the policy's own, and the one that was made last, which is
    /// another one when the clock has jumped back meanwhile.
    mutating func protect() {
        var newest: Set<Int> = []
        if let first = decisions.firstIndex(where: { $0.candidate.time <= now }) {
            newest.insert(first)
        }
        if let first = subjects.first { newest.insert(first) }
        let madeLast = decisions.indices.max {
            decisions[$0].candidate.id < decisions[$1].candidate.id
        }
        if let madeLast { newest.insert(madeLast) }
        for index in newest.sorted() { decisions[index].reasons.append(.newest) }
        for index in decisions.indices {
            decisions[index].reasons += decisions[index].candidate.holds.map { .held($0) }
        }
    }

    /// Refuses when something would go and no rule keeps anything. That is a policy which does not
    /// fit the snapshots, such as a window that is shorter than the time since the last one, or a
    /// clock that has jumped ahead.
    func refuseToDeleteEverything() throws(RetentionError) {
        let going = subjects.count { !decisions[$0].isKept }
        let isKeptByRule = subjects.contains { decisions[$0].reasons.contains(where: \.isRule) }
        guard going > 0, !isKeptByRule, let first = subjects.first else { return }
        throw RetentionError(
            .wouldDeleteEverything,
            "no rule of the policy keeps any of the \(subjects.count) snapshots that it may delete, "
                + "the newest of them from \(decisions[first].candidate.time.text); check the clock "
                + "and the schedule, change the policy, or use --force")
    }

    /// Refuses when what stays does so by its age alone, and what goes does not follow on it: the
    /// clock has jumped ahead, or no snapshot was made for longer than the policy keeps one. A new
    /// snapshot, or a few, must not stand in for all that were there before. By itself this ends
    /// when new ones have filled the window, since those that go then are of the same row.
    func refuseToDeleteByAge(
        of policy: RetentionPolicy, calendar: PolicyCalendar
    ) throws(RetentionError) {
        guard let start = policy.start(ofLongestWindow: calendar, now: now),
            !subjects.contains(where: { decisions[$0].reasons.contains(where: \.isRuleOfCount) }),
            let young = subjects.firstIndex(where: { decisions[$0].candidate.time < start }),
            subjects[young...].contains(where: { !decisions[$0].isKept })
        else { return }
        // Newest first: `young` that are in the window, a pause, and the row of before.
        let times = subjects.map { decisions[$0].candidate.time.clamped }
        let resumed = young > 0 ? times[young - 1] : now.clamped
        let stopped = times[young]
        let pause = resumed.seconds - stopped.seconds
        let window = now.clamped.seconds - start.clamped.seconds
        if policy.mode != nil {
            // A schedule may rest over a long weekend, or be slower than the window: then its pauses
            // are like those of not long ago.
            guard pause > max(window, Self.rest),
                pause > 2 * longestPause(times[young...], behind: pause)
            else { return }
        } else {
            guard young <= 1 || pause > window else { return }
        }
        let count = subjects[young...].count { !decisions[$0].isKept }
        throw RetentionError(
            .wouldDeleteEverything,
            "none of the policy's snapshots is from between \(stopped.text) and \(resumed.text), and "
                + "by age alone the policy would delete \(count) of those of before; check the clock and the "
                + "schedule, change the policy, or use --force")
    }

    /// In seconds: a pause that says nothing.
    private static let rest: Int64 = 4 * 86_400

    /// In seconds, among the first of `times`: those of twice as long as `pause`, newest first. What was
    /// kept longer is further apart than it was made.
    private func longestPause(_ times: ArraySlice<RetentionTime>, behind pause: Int64) -> Int64 {
        guard let newest = times.first else { return 0 }
        let recent = times.prefix { newest.seconds - $0.seconds <= 2 * pause }
        return zip(recent, recent.dropFirst()).map { $0.seconds - $1.seconds }.max() ?? 0
    }
}
