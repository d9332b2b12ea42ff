// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore
internal import ParallaxRetention

/// Retention, as the control plane does it: a policy decides, deletions follow.
extension SimulatedHost {
    func retain() throws(SimulationFailure) {
        guard let disk = randomHead(where: { $0.changesInFlight == 0 && !isInGroup($0) }) else {
            return
        }
        let stream = streams[disk.stream]
        let listed = try listed(stream).filter { summary in
            summary.vdi.rawValue == disk.identifier && summary.pendingGroup == 0
                && snapshots[summary.identifier.rawValue].map { isReadable($0) } ?? false
        }
        var policy = RetentionPolicy()
        policy.keepLast = random.integer(in: 1...12)
        policy.includesManual = true
        let plan: RetentionPlan
        do throws(RetentionError) {
            plan = try policy.decide(
                listed.map(candidate), now: Self.time(now), force: true)
        } catch {
            throw SimulationFailure("the policy is refused: \(error.message)")
        }
        try check(plan, keepLast: policy.keepLast ?? 0)
        for candidate in plan.deleted {
            guard let summary = listed.first(where: { $0.identifier.sequence == candidate.id }),
                stream.changes.count < 40
            else { return }
            change(.deleteSnapshot(summary.identifier), on: stream)
        }
    }

    /// What is newest stays, and so does what is held or made before a rollback.
    private func check(_ plan: RetentionPlan, keepLast: Int) throws(SimulationFailure) {
        let deleted = plan.deleted
        let kept = plan.decisions.filter { $0.isKept && $0.candidate.origin == .manual }
        let isRight =
            deleted.allSatisfy { !$0.isHeld && $0.origin != .automatic }
            && (deleted.isEmpty || kept.count >= keepLast)
            && kept.prefix(keepLast).allSatisfy { keeper in
                deleted.allSatisfy { $0.time <= keeper.candidate.time }
            }
        guard !isRight else { return }
        throw SimulationFailure("retention keeps the last \(keepLast) and deletes \(deleted)")
    }

    private func candidate(_ summary: SnapshotSummary) -> RetentionCandidate {
        RetentionCandidate(
            id: summary.identifier.sequence, name: summary.details.name,
            time: Self.time(summary.createdAtNanoseconds),
            origin: summary.details.origin == .automatic ? .automatic : .manual,
            holds: summary.details.holds.map(\.reason))
    }

    private static func time(_ nanoseconds: UInt64) -> RetentionTime {
        RetentionTime(
            seconds: Int64(nanoseconds / 1_000_000_000),
            nanoseconds: UInt32(nanoseconds % 1_000_000_000))
    }
}
