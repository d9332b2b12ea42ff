// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// All of them, or with an error none, unless the store fails in the middle.
    package func delete(snapshots names: [VersionName]) async throws(ControlError) {
        guard !names.isEmpty else {
            throw ControlError(.invalid, "no snapshot is named that is to be deleted")
        }
        try await changing(names.map(\.vdi)) {
            var seen: Set<SnapshotIdentifier> = []
            var wanted: [String: [SnapshotEntry]] = [:]
            for name in names {
                try refuseTime(name)
                let (version, snapshot) = try snapshot(name)
                guard seen.insert(snapshot.identifier).inserted else {
                    throw ControlError(.invalid, "\(version.title) is named twice")
                }
                if let reason = undeletable(snapshot, of: version.entry) { throw reason }
                wanted[version.entry.name, default: []].append(snapshot)
            }
            for (vdi, snapshots) in wanted.sorted(by: { $0.key < $1.key }) {
                try await delete(snapshots, of: entry(vdi))
            }
        }
    }

    /// A date or time stands for the newest snapshot from then or before, and so for an older one
    /// once that is gone: whoever deletes it twice must not lose that too.
    private func refuseTime(_ name: VersionName) throws(ControlError) {
        let entry = try entry(name.vdi)
        guard let selector = name.snapshot, TimeText.parse(selector) != nil,
            logs[entry.identifier]?.find(selector) == nil
        else { return }
        throw ControlError(
            .notFound,
            "VDI \(quoted(entry.name)) has no snapshot called \(quoted(selector)), and no date or time "
                + "is taken for a deletion; use a name of the list, an age as in -2h, or latest")
    }

    /// Why it cannot be deleted now; nil: it can.
    func undeletable(_ snapshot: SnapshotEntry, of entry: Entry) -> ControlError? {
        let version = Version(entry: entry, snapshot: snapshot)
        if let hold = snapshot.details.holds.first {
            return ControlError(
                .held, "\(version.title) is held (\(quoted(hold.reason))); release it first")
        }
        return attachments[version.reference].map { attached(version, $0, "is attached") }
    }

    /// Call it with the lock of the VDI held, and for what can be deleted.
    func delete(_ snapshots: [SnapshotEntry], of entry: Entry) async throws {
        let shard = shard(of: entry)
        var deleted = 0
        for batch in snapshots.batches(of: ShardBatch.deletions) {
            let results = try await shard.change(batch.map { .deleteSnapshot($0.identifier) })
            var failure: ControlError?
            for (snapshot, result) in zip(batch, results) {
                switch result {
                case .success:
                    logs[entry.identifier]?.remove(snapshot)
                    counters.snapshotsDeleted += 1
                    deleted += 1
                case .failure(let error): failure = failure ?? error
                }
            }
            guard let failure else { continue }
            throw ControlError(
                failure.kind,
                "\(deleted) of \(snapshots.count) snapshots of VDI \(quoted(entry.name)) were "
                    + "deleted, then one was not: \(failure.message)")
        }
        log.debug(
            "snapshots deleted", metadata: ["vdi": "\(entry.name)", "count": "\(deleted)"])
    }
}
