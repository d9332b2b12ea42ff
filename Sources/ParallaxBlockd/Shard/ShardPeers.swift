// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxIO
import Synchronization

/// The shards of a store, as one of them knows the others.
final class ShardPeers: Sendable {
    private struct State {
        var mailboxes: [ShardMailbox] = []
        /// By shard: whether slots of it were on their way back when it last said so.
        var isGaining: [Bool] = []
    }

    private let state = Mutex(State())

    /// Once, when all are there.
    func connect(_ all: [ShardMailbox]) {
        state.withLock {
            $0 = State(mailboxes: all, isGaining: Array(repeating: false, count: all.count))
        }
    }

    /// Asks all others to give back what they can: free slots belong to everybody, but only a
    /// checkpoint of their owner makes slots free. A hint: it is repeated while it is true, so one
    /// that finds a full mailbox may be lost.
    func askForSpace(from shard: Int) {
        let all = state.withLock { $0.mailboxes }
        for (index, mailbox) in all.enumerated() where index != shard {
            _ = mailbox.send(.spaceIsShort)
        }
    }

    /// A shard that has been asked says whether it is winning back slots.
    func note(_ shard: Int, isGaining: Bool) {
        state.withLock { if shard < $0.isGaining.count { $0.isGaining[shard] = isGaining } }
    }

    /// Whether any shard but this one is.
    func areGaining(besides shard: Int) -> Bool {
        state.withLock { state in
            state.isGaining.indices.contains { $0 != shard && state.isGaining[$0] }
        }
    }
}
