// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What is to become of one snapshot, and why.
package struct RetentionDecision: Sendable, Hashable {
    package var candidate: RetentionCandidate
    /// Why it stays, rules first and in a fixed order; empty means that it goes.
    package var reasons: [RetentionReason]

    package var isKept: Bool { !reasons.isEmpty }
}

/// The verdict on all snapshots of a VDI, newest first.
///
/// Invariants:
/// - I1: each candidate occurs once.
/// - I2: what is held, in the future, the newest, or not the policy's own, is kept.
/// - I3: deciding again about what is kept, at the same time, keeps all of it.
package struct RetentionPlan: Sendable, Hashable {
    package var decisions: [RetentionDecision]

    package var kept: [RetentionDecision] { decisions.filter(\.isKept) }
    package var deleted: [RetentionCandidate] {
        decisions.filter { !$0.isKept }.map(\.candidate)
    }
    /// Worth a warning: a clock was wrong when these were made, or is wrong now.
    package var inTheFuture: [RetentionCandidate] {
        decisions.filter { $0.reasons.contains(.inTheFuture) }.map(\.candidate)
    }
}
