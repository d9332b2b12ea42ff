// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Synchronization

/// The moment at which a group snapshot cuts through its members, shared by their shards.
///
/// ```
///  shard 0:  ... answers | cut A  (answers wait)        | release -> answers ...
///  shard 1:  ... answers      | cut B, cut C  (wait)    | release -> answers ...
///                                            ^ the last to arrive
/// ```
/// From its cut on a shard answers no guest, until every member is cut: so no write that a cut
/// has missed can have been caused by one that another cut has seen. Guests wait meanwhile, so the
/// last to arrive tells all shards itself. It always comes to that: a member that fails gives the
/// group up, and so does the control plane after a time.
package final class GroupCut: Sendable {
    private struct State {
        var missing: Int
        var isReleased = false
        var wasGivenUp = false
    }

    package let group: UInt64
    private let shards: [any ShardControl]
    private let state: Mutex<State>

    /// `members`: of all shards together.
    package init(group: UInt64, members: Int, shards: [any ShardControl]) {
        self.group = group
        self.shards = shards
        state = Mutex(State(missing: members))
    }

    /// `count` more members are cut.
    package func arrive(_ count: Int) {
        let isLast = state.withLock { state in
            state.missing -= count
            let isLast = state.missing <= 0 && !state.isReleased
            if isLast { state.isReleased = true }
            return isLast
        }
        if isLast { releaseAll() }
    }

    /// A member failed: nobody waits any longer.
    package func giveUp() {
        let isFirst = state.withLock { state in
            guard !state.isReleased else { return false }
            state.isReleased = true
            state.wasGivenUp = true
            return true
        }
        if isFirst { releaseAll() }
    }

    /// Answers may have gone out before the last cut: the snapshots are of different moments.
    package var wasGivenUp: Bool { state.withLock { $0.wasGivenUp } }

    private func releaseAll() {
        for shard in shards { shard.releaseGroup(group) }
    }

    /// The group's number says how many members it has, so that a start after a crash can tell
    /// whether all are there.
    ///
    /// ```
    ///  63        16 15      0
    /// +------------+---------+
    /// |   chance   | members |
    /// +------------+---------+
    /// ```
    package static func makeNumber(members: Int) -> UInt64 {
        precondition(1...memberLimit ~= members, "GroupCut: more members than its number holds")
        return UInt64.random(in: 1..<1 << 48) << 16 | UInt64(members)
    }

    package static func memberCount(of group: UInt64) -> Int { Int(group & 0xFFFF) }

    /// LIMIT: VDIs in one group; every one of them makes guests wait a little longer.
    package static let memberLimit = 256
}
