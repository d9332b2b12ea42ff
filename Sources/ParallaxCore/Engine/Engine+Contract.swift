// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// The snapshots of this stream by place in the table, from `cursor` on: at most `limit`.
    /// Deleted ones are left out; members of unfinished groups are in it.
    package func snapshots(from cursor: Int, limit: Int) -> SnapshotPage {
        SnapshotPage(snapshots: [], next: nil)
    }

    /// nil when there is no such snapshot, or it is deleted.
    package func summary(of identifier: SnapshotIdentifier) -> SnapshotSummary? { nil }

    /// Opens a snapshot for reading; the handle goes into `BlockRequest.vdi`. One handle may serve
    /// many sessions. Each call is paired with one of `closeSnapshot`. nil: no such snapshot.
    package mutating func openSnapshot(_ identifier: SnapshotIdentifier) -> UInt32? { nil }

    /// No request with this handle is under way any more.
    package mutating func closeSnapshot(_ handle: UInt32) {}

    /// Asks for a comparison; the answer comes from `nextDiffReply`.
    package mutating func submit(diff: DiffQuery, ticket: UInt64) {}

    package mutating func nextDiffReply() -> DiffReply? { nil }

    /// The group whose cut this stream has just made, once for each; from then on it answers
    /// nothing until `releaseGroup`.
    package mutating func nextCut() -> UInt64? { nil }

    /// All members' cuts are made, or the group is given up: the stream goes on.
    package mutating func releaseGroup(_ group: UInt64) {}

    /// Whether a turn would do more work at once, without waiting for anything.
    package var wantsTurn: Bool { false }
}
