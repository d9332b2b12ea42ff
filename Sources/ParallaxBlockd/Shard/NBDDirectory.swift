// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxNBD
import Synchronization

/// Which versions of VDIs the daemon's one NBD socket serves, and on which shard each lives.
///
/// The socket belongs to shard 0. A client that has chosen its export is handed over to that
/// version's shard.
final class NBDDirectory: Sendable {
    struct Entry: Sendable {
        var version: VersionReference
        var shard: Int
        var export: NBDExport
    }

    private struct State {
        var entries: [VersionReference: Entry] = [:]
        var mailboxes: [ShardMailbox] = []
    }

    private let state = Mutex(State())

    /// Tells the directory where the shards are; once, before anything is attached.
    func connect(_ mailboxes: [ShardMailbox]) {
        state.withLock { $0.mailboxes = mailboxes }
    }

    /// Adds or replaces an export.
    func put(_ entry: Entry) {
        change { $0.entries[entry.version] = entry }
    }

    func remove(_ version: VersionReference) {
        change { $0.entries[version] = nil }
    }

    private func change(_ body: (inout State) -> Void) {
        state.withLock { state in
            body(&state)
            // Two of one name can only come from a damaged store. Until one of them is renamed neither is
            // served: a client must not get the wrong one.
            let exports = Dictionary(grouping: state.entries.values.map(\.export), by: \.name)
                .values.filter { $0.count == 1 }.flatMap { $0 }
            state.mailboxes.first?.post(.setExports(NBDExportTable(exports)))
        }
    }

    /// Sends a client to the shard of the export that it has chosen: that one, whatever has the name now.
    func pass(_ handover: NBDHandover) {
        let target = state.withLock { state -> (ShardMailbox, Entry)? in
            let version = VersionReference(rawValue: handover.agreement.exportIdentity)
            return state.entries[version].map { (state.mailboxes[$0.shard], $0) }
        }
        guard let (mailbox, entry) = target else {
            handover.refuse()
            return
        }
        mailbox.post(.handover(handover, entry.version))
    }
}
