// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxIO
import Synchronization

/// The shards of a store, as one of them knows the others.
final class ShardPeers: Sendable {
    private let mailboxes = Mutex<[ShardMailbox]>([])

    /// Once, when all are there.
    func connect(_ all: [ShardMailbox]) {
        mailboxes.withLock { $0 = all }
    }

    /// Asks all others to give back what they can: free slots belong to everybody, but only a
    /// checkpoint of their owner makes slots free. A hint: it is repeated while it is true, so one
    /// that finds a full mailbox may be lost.
    func askForSpace(from shard: Int) {
        let all = mailboxes.withLock { $0 }
        for (index, mailbox) in all.enumerated() where index != shard {
            _ = mailbox.send(.spaceIsShort)
        }
    }
}
