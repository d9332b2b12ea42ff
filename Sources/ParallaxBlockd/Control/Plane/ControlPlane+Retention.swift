// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore
package import ParallaxRetention

extension ControlPlane {
    package func retention(of vdi: String) throws(ControlError) -> RetentionDescription {
        let entry = try entry(vdi)
        return RetentionDescription(vdi: entry.name, policy: try policy(of: entry))
    }

    /// nil takes the policy away.
    package func setRetention(
        of vdi: String, _ policy: RetentionPolicy?
    ) async throws(ControlError) -> RetentionDescription {
        if let policy, policy.isEmpty {
            throw ControlError(
                .invalid, "the policy has no rule that keeps anything; give it one, or clear it")
        }
        return try await changing([vdi]) {
            let entry = try entry(vdi)
            var attributes = entry.attributes
            attributes.policy = policy?.json ?? ""
            try await set(attributes, of: entry)
            return RetentionDescription(vdi: entry.name, policy: policy)
        }
    }

    func policy(of entry: Entry) throws(ControlError) -> RetentionPolicy? {
        guard !entry.attributes.policy.isEmpty else { return nil }
        do throws(RetentionError) {
            return try RetentionPolicy.decode(json: entry.attributes.policy)
        } catch {
            throw ControlError(
                .invalid,
                "the retention policy of VDI \(quoted(entry.name)) cannot be used: "
                    + error.message)
        }
    }

    /// The policy as words, for lists; nil for none.
    func policyText(_ json: String) -> String? {
        guard !json.isEmpty else { return nil }
        if let text = policyTexts[json] { return text }
        let policy = try? RetentionPolicy.decode(json: json)
        let text = policy?.line ?? "one that this version cannot read"
        // LIMIT: distinct policies that are remembered; VDIs by the thousand share a few.
        if policyTexts.count >= 1000 { policyTexts = [:] }
        policyTexts[json] = text
        return text
    }

    /// Deletes what the VDI's policy does not keep. A second run at the same time waits, and then
    /// finds nothing to do.
    package func applyRetention(
        to vdi: String, _ request: ApplyRetentionRequest
    ) async throws(ControlError) -> RetentionReport {
        let identifier = try entry(vdi).identifier
        // The VDI's own lock is only taken for each batch: deciding and deleting may take long.
        return try await changing([Self.retentionLock(identifier)]) {
            let entry = try entry(of: identifier, calledBefore: vdi)
            guard let policy = try policy(of: entry) else {
                throw ControlError(
                    .notFound,
                    "VDI \(quoted(vdi)) has no retention policy; set one with retention set")
            }
            let snapshots = logs[identifier]?.all ?? []
            let plan = try await Self.decide(
                policy, snapshots, now: now(), force: request.force ?? false)
            var spared: [UInt64: String] = [:]
            if request.dryRun ?? false {
                for candidate in plan.deleted {
                    if let reason = whyKept(SnapshotIdentifier(age: candidate.id)) {
                        spared[candidate.id] = reason
                    }
                }
            } else {
                spared = try await delete(
                    plan.deleted, of: identifier, calledBefore: vdi,
                    decidedBy: entry.attributes.policy)
            }
            return Self.report(plan, entry.name, policy, spared: spared, request)
        }
    }

    private static func retentionLock(_ identifier: VDIIdentifier) -> String {
        "\u{0}retention \(identifier.hexadecimal)"
    }

    /// The VDI, which may have been renamed since.
    private func entry(
        of identifier: VDIIdentifier, calledBefore name: String
    ) throws(ControlError) -> Entry {
        guard let current = names[identifier] else {
            throw ControlError(.notFound, "there is no VDI called \(quoted(name)) any more")
        }
        return try entry(current)
    }

    /// Off the actor: a hundred thousand snapshots take a moment.
    private nonisolated static func decide(
        _ policy: RetentionPolicy, _ snapshots: [SnapshotEntry], now: UInt64, force: Bool
    ) async throws(ControlError) -> RetentionPlan {
        do throws(RetentionError) {
            return try policy.decide(
                snapshots.map(candidate), now: time(now), force: force)
        } catch {
            throw ControlError(error)
        }
    }

    private nonisolated static func candidate(_ entry: SnapshotEntry) -> RetentionCandidate {
        let details = entry.details
        return RetentionCandidate(
            id: entry.identifier.age, name: details.name, time: time(entry.createdAtNanoseconds),
            labels: Dictionary(details.labels.map { ($0.key, $0.value) }) { $1 },
            origin: origin(of: details), holds: details.holds.map(\.reason))
    }

    private nonisolated static func time(_ nanoseconds: UInt64) -> RetentionTime {
        RetentionTime(
            seconds: Int64(nanoseconds / 1_000_000_000),
            nanoseconds: UInt32(nanoseconds % 1_000_000_000))
    }

    private nonisolated static func origin(
        of details: SnapshotDetails
    ) -> RetentionCandidate.Origin {
        switch details.origin {
        case .manual: .manual
        case .scheduled: .scheduled
        case .automatic: .automatic
        }
    }

    /// Why a snapshot that the policy gave up stays all the same.
    private func whyKept(_ identifier: SnapshotIdentifier) -> String? {
        attachments[.snapshot(identifier)] == nil ? nil : "attached"
    }

    /// The same of one that is there, and was decided on as `candidate`.
    private func whyKept(_ snapshot: SnapshotEntry, _ candidate: RetentionCandidate) -> String? {
        if let reason = whyKept(snapshot.identifier) { return reason }
        if snapshot.isHeld { return "held" }
        return Self.candidate(snapshot) == candidate ? nil : "changed meanwhile"
    }

    /// Deletes in batches, each with the VDI's lock, so that others get their turn. What has been
    /// attached, held, labelled or deleted meanwhile is left alone, and so is all the rest once the
    /// VDI has another policy; why, by the number of the candidate.
    private func delete(
        _ candidates: [RetentionCandidate], of identifier: VDIIdentifier,
        calledBefore name: String, decidedBy policy: String
    ) async throws(ControlError) -> [UInt64: String] {
        var spared: [UInt64: String] = [:]
        for batch in candidates.batches(of: ShardBatch.deletions) {
            var isDone = false
            // Again only when the VDI was renamed while its lock was waited for.
            while !isDone {
                let current = try self.entry(of: identifier, calledBefore: name).name
                isDone = try await changing([current]) {
                    let entry = try self.entry(of: identifier, calledBefore: name)
                    guard entry.name == current else { return false }
                    let isDecided = entry.attributes.policy == policy
                    var going: [SnapshotEntry] = []
                    for candidate in batch {
                        let snapshot = SnapshotIdentifier(age: candidate.id)
                        guard let found = logs[identifier]?.find(snapshot) else { continue }
                        let reason =
                            isDecided
                            ? whyKept(found, candidate) : "the policy was changed meanwhile"
                        if let reason { spared[candidate.id] = reason } else { going.append(found) }
                    }
                    try await delete(going, of: entry)
                    return true
                }
            }
        }
        if !candidates.isEmpty {
            log.info(
                "retention applied",
                metadata: ["vdi": "\(name)", "deleted": "\(candidates.count - spared.count)"])
        }
        return spared
    }

    static func report(
        _ plan: RetentionPlan, _ vdi: String, _ policy: RetentionPolicy,
        spared: [UInt64: String], _ request: ApplyRetentionRequest
    ) -> RetentionReport {
        let deleted = plan.decisions.count { !$0.isKept } - spared.count
        let isTooLong = plan.decisions.count > RetentionReport.decisionLimit
        let isWanted = !(request.brief ?? false)
        var decisions: [RetentionReport.Decision]?
        if isWanted && !isTooLong {
            decisions = plan.decisions.map { decision in
                let reasons =
                    decision.reasons.map(\.description)
                    + (spared[decision.candidate.id].map { [$0] } ?? [])
                return RetentionReport.Decision(
                    name: decision.candidate.name,
                    createdAt: TimeText.milliseconds(nanoseconds(decision.candidate.time)),
                    isKept: !reasons.isEmpty, reasons: reasons)
            }
        }
        return RetentionReport(
            vdi: vdi, policy: policy.line,
            isDryRun: request.dryRun ?? false, keptCount: plan.decisions.count - deleted,
            deletedCount: deleted, futureCount: plan.inTheFuture.count, decisions: decisions,
            leavesDecisionsOut: isWanted && isTooLong ? true : nil)
    }

    private static func nanoseconds(_ time: RetentionTime) -> UInt64 {
        UInt64(clamping: time.seconds) * 1_000_000_000 + UInt64(time.nanoseconds)
    }
}
