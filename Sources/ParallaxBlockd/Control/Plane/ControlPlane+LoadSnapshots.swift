// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Learns every snapshot, and finishes the groups that a crash has left unfinished. Returns
    /// the names of those in `wanted` that are there.
    func loadSnapshots(
        namesOf wanted: Set<SnapshotIdentifier>
    ) async throws(ControlError) -> [SnapshotIdentifier: String] {
        var loader = SnapshotLoader()
        var found: [SnapshotIdentifier: String] = [:]
        for (position, shard) in runtime.shards.enumerated() {
            var cursor: Int? = 0
            while let from = cursor {
                let page = try await translatingErrors {
                    try await shard.snapshots(from: from, limit: ShardBatch.descriptions)
                }
                for summary in page.snapshots {
                    loader.add(summary, shard: position)
                    if wanted.contains(summary.identifier) {
                        found[summary.identifier] = summary.details.name
                    }
                }
                cursor = page.next
            }
        }
        try await finishGroups(&loader)
        logs = loader.logs()
        return found
    }

    /// A group of which every member is there, and one visible, was made, and only not told; any other is
    /// taken back. Nothing is served before.
    private func finishGroups(_ loader: inout SnapshotLoader) async throws(ControlError) {
        for (group, members) in loader.pending.sorted(by: { $0.key < $1.key }) {
            let isComplete = loader.isComplete(group)
            for position in Set(members.map(\.shard)).sorted() {
                let shard = runtime.shards[position]
                _ = try await translatingErrors {
                    try await shard.change(.finishGroup(group, commit: isComplete))
                }
            }
            log.notice(
                "a group snapshot was under way when the daemon ended",
                metadata: [
                    "group": "\(String(group, radix: 16))",
                    "snapshots": "\(isComplete ? "all kept" : "all taken back")",
                ])
            if isComplete { loader.show(group) }
        }
    }
}
