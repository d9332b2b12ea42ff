// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention

/// `retention simulate --json`. Times are UTC, whatever the policy's zone; newest first.
struct SimulatedRetention: Encodable {
    struct Kept: Encodable {
        var time: String
        var reasons: [String]
    }

    var policy: RetentionPolicy
    var now: String
    var kept: [Kept]
    var deleted: [String]
    var keptCount: Int
    var deletedCount: Int
    var futureCount: Int

    init(_ plan: RetentionPlan, policy: RetentionPolicy, now: RetentionTime) {
        self.policy = policy
        self.now = now.text
        kept = plan.kept.map { decision in
            Kept(
                time: decision.candidate.time.text,
                reasons: decision.reasons.map(\.description))
        }
        deleted = plan.deleted.map(\.time.text)
        keptCount = kept.count
        deletedCount = deleted.count
        futureCount = plan.inTheFuture.count
    }

    private enum CodingKeys: String, CodingKey {
        case policy, now, kept, deleted
        case keptCount = "kept_count"
        case deletedCount = "deleted_count"
        case futureCount = "future_count"
    }
}
