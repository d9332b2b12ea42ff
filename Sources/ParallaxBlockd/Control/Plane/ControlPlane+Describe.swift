// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Those that are still there, in that order. What changes by itself is asked of the shard.
    /// Also while the daemon is stopping, since what was changed must be answered as changed; who
    /// is asked only to show something calls `requireRunning` before.
    func describe(
        _ snapshots: [SnapshotEntry], of entry: Entry
    ) async throws(ControlError) -> [SnapshotDescription] {
        let summaries = try await summaries(snapshots.map(\.identifier), shard: entry.shard)
        var parents: [SnapshotIdentifier: String] = [:]
        for summary in summaries {
            parents[summary.identifier] = "\(entry.name)@\(summary.details.name)"
        }
        var elsewhere: Set<SnapshotIdentifier> = []
        for parent in summaries.compactMap(\.parent) where parents[parent] == nil {
            if let own = logs[entry.identifier]?.find(parent) {
                parents[parent] = "\(entry.name)@\(own.name)"
            } else {
                elsewhere.insert(parent)
            }
        }
        // A clone's oldest continue a snapshot of another VDI. Only its shard knows it.
        if !elsewhere.isEmpty {
            let others = try await snapshotNames(elsewhere, shard: entry.shard)
            parents.merge(others) { own, _ in own }
        }
        return summaries.map { describe($0, of: entry, parents) }
    }

    private func describe(
        _ summary: SnapshotSummary, of entry: Entry, _ parents: [SnapshotIdentifier: String]
    ) -> SnapshotDescription {
        let details = summary.details
        return SnapshotDescription(
            vdi: entry.name, name: details.name, identifier: summary.identifier.hexadecimal,
            createdAt: TimeText.milliseconds(summary.createdAtNanoseconds),
            origin: Self.origin(details.origin), comment: details.comment,
            labels: Dictionary(details.labels.map { ($0.key, $0.value) }) { $1 },
            holds: details.holds.map {
                SnapshotDescription.Hold(
                    reason: $0.reason,
                    createdAt: UTCTime.format(
                        secondsSince1970: Int64(clamping: $0.createdAtSeconds)))
            },
            parent: summary.parent.flatMap { parents[$0] }, sizeBytes: summary.sizeBytes,
            allocatedBytes: summary.allocatedBytes, exclusiveBytes: summary.exclusiveBytes,
            bornBytes: summary.bornBytes, childCount: summary.childCount,
            attachment: attachments[.snapshot(summary.identifier)].map {
                describe($0, vdi: entry.name)
            })
    }

    static func origin(_ origin: SnapshotDetails.Origin) -> SnapshotDescription.Origin {
        switch origin {
        case .manual: .manual
        case .scheduled: .scheduled
        case .automatic: .automatic
        }
    }

    /// `VDI@SNAPSHOT` of snapshots of any VDI of the shard.
    func snapshotNames(
        _ identifiers: Set<SnapshotIdentifier>, shard position: Int
    ) async throws(ControlError) -> [SnapshotIdentifier: String] {
        let sorted = identifiers.sorted { $0.rawValue < $1.rawValue }
        var result: [SnapshotIdentifier: String] = [:]
        for summary in try await summaries(sorted, shard: position) {
            guard let vdi = names[summary.vdi] else { continue }
            result[summary.identifier] = "\(vdi)@\(summary.details.name)"
        }
        return result
    }

    func summaries(
        _ identifiers: [SnapshotIdentifier], shard position: Int
    ) async throws(ControlError) -> [SnapshotSummary] {
        let shard = runtime.shards[position]
        return try await translatingErrors {
            var summaries: [SnapshotSummary] = []
            for batch in identifiers.batches(of: ShardBatch.descriptions) {
                summaries += try await shard.snapshots(Array(batch))
            }
            return summaries
        }
    }
}
