// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxRetention

/// The answer of `GET` and `PUT /v1/vdis/{name}/retention`. The body of the PUT is the policy.
package struct RetentionDescription: Codable, Sendable {
    package var vdi: String
    /// nil: the VDI has none, and keeps everything.
    package var policy: RetentionPolicy?
    /// The same as words on a command line, quoted where a shell needs it.
    package var options: String?

    package init(vdi: String, policy: RetentionPolicy?) {
        self.vdi = vdi
        self.policy = policy
        options = policy?.line
    }
}

/// The body of `POST /v1/vdis/{name}/retention/apply`.
package struct ApplyRetentionRequest: Codable, Sendable {
    /// Only says what would go.
    package var dryRun: Bool?
    /// Also when no rule of the policy keeps anything.
    package var force: Bool?
    /// Only the counts.
    package var brief: Bool?

    package init(dryRun: Bool? = nil, force: Bool? = nil, brief: Bool? = nil) {
        self.dryRun = dryRun
        self.force = force
        self.brief = brief
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        dryRun = try container.decodeIfPresent(Bool.self, forKey: .dryRun)
        force = try container.decodeIfPresent(Bool.self, forKey: .force)
        brief = try container.decodeIfPresent(Bool.self, forKey: .brief)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case dryRun = "dry_run"
        case force
        case brief
    }
}

/// What an application of a policy did, or would do.
package struct RetentionReport: Codable, Equatable, Sendable {
    package struct Decision: Codable, Equatable, Sendable {
        package var name: String
        package var createdAt: String
        package var isKept: Bool
        /// Why it stays; empty for what goes.
        package var reasons: [String]

        package init(name: String, createdAt: String, isKept: Bool, reasons: [String]) {
            self.name = name
            self.createdAt = createdAt
            self.isKept = isKept
            self.reasons = reasons
        }

        enum CodingKeys: String, CodingKey {
            case name
            case createdAt = "created_at"
            case isKept = "kept"
            case reasons
        }
    }

    // LIMIT: snapshots that are told of one by one. With hundreds of bytes for each the report stays
    // below what a client takes.
    package static let decisionLimit = 100_000

    package var vdi: String
    package var policy: String
    package var isDryRun: Bool
    package var keptCount: Int
    package var deletedCount: Int
    /// Made at a time that has not come: a clock was wrong.
    package var futureCount: Int
    /// Newest first; absent where only counts were asked for, or where there are too many.
    package var decisions: [Decision]?
    /// True where there are more than `decisionLimit` of them; else absent.
    package var leavesDecisionsOut: Bool?

    package init(
        vdi: String, policy: String, isDryRun: Bool, keptCount: Int, deletedCount: Int,
        futureCount: Int, decisions: [Decision]?, leavesDecisionsOut: Bool? = nil
    ) {
        self.vdi = vdi
        self.policy = policy
        self.isDryRun = isDryRun
        self.keptCount = keptCount
        self.deletedCount = deletedCount
        self.futureCount = futureCount
        self.decisions = decisions
        self.leavesDecisionsOut = leavesDecisionsOut
    }

    enum CodingKeys: String, CodingKey {
        case vdi
        case policy
        case isDryRun = "dry_run"
        case keptCount = "kept_count"
        case deletedCount = "deleted_count"
        case futureCount = "future_count"
        case decisions
        case leavesDecisionsOut = "decisions_left_out"
    }
}

extension ControlError {
    package init(_ error: RetentionError) { self.init(.invalid, error.message) }
}
