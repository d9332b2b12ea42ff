// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A snapshot as retention sees it.
package struct RetentionCandidate: Sendable, Hashable {
    package enum Origin: String, Sendable, CaseIterable {
        /// Made by a person or a person's script.
        case manual
        /// Made by a snapshot schedule.
        case scheduled
        /// Made by the daemon on its own account, such as before a rollback.
        case automatic
    }

    /// Opaque but for this: of two snapshots, the one that was made later has the larger one.
    package var id: UInt64
    package var name: String
    package var time: RetentionTime
    package var labels: [String: String]
    package var origin: Origin
    /// Why it is held, once for each hold; an empty text is a hold without a reason.
    package var holds: [String]

    package init(
        id: UInt64, name: String, time: RetentionTime, labels: [String: String] = [:],
        origin: Origin, holds: [String] = []
    ) {
        self.id = id
        self.name = name
        self.time = time
        self.labels = labels
        self.origin = origin
        self.holds = holds
    }

    package var isHeld: Bool { !holds.isEmpty }
}
