// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// A new VDI that begins as the snapshot is. It lives on the snapshot's shard, where the two
    /// share what they have in common.
    func clone(
        _ source: String, to name: String, sizeBytes: UInt64?, quotaBytes: UInt64
    ) async throws(ControlError) -> VDIDescription {
        let source = try VersionName(source)
        if let sizeBytes { try VDISize.validate(sizeBytes) }
        return try await changing([source.vdi, name]) {
            let (version, snapshot) = try snapshot(source)
            try requireFree(name)
            guard
                let summary = try await summaries(
                    [snapshot.identifier], shard: version.entry.shard
                ).first
            else { throw ControlError(.notFound, "there is no \(version.title) any more") }
            guard sizeBytes ?? summary.sizeBytes >= summary.sizeBytes else {
                throw ControlError(
                    .invalid,
                    "a clone cannot be smaller than \(version.title), which has "
                        + ByteSize.format(summary.sizeBytes))
            }
            let change = CatalogChange.clone(
                of: snapshot.identifier, name: name, sizeBytes: sizeBytes ?? summary.sizeBytes,
                createdAtNanoseconds: now())
            let entry = try await make(
                change, name: name, quotaBytes: quotaBytes, shard: version.entry.shard)
            counters.clonesMade += 1
            log.info("VDI cloned", metadata: ["vdi": "\(name)", "from": "\(version.name)"])
            return try await description(of: entry)
        }
    }

    package func rollback(
        _ vdi: String, _ request: RollbackRequest
    ) async throws(ControlError) -> RollbackAnswer {
        try await changing([vdi]) {
            let (version, snapshot) = try snapshot(
                VersionName(vdi: vdi, snapshot: request.snapshot))
            let entry = version.entry
            try requireRollback(of: entry, isForced: request.force ?? false)
            let createdAt = now()
            var kept: SnapshotDetails?
            if request.keep ?? true {
                kept = SnapshotDetails(
                    name: try snapshotName(nil, at: createdAt, of: [entry]),
                    comment: "before the rollback to \(snapshot.name)", origin: .automatic)
            }
            let outcome = try await change(
                .rollback(
                    entry.identifier, to: snapshot.identifier, keeping: kept,
                    createdAtNanoseconds: createdAt), of: entry)
            if let kept, case .rollback(_, let identifier?) = outcome {
                register(identifier, kept, createdAt, of: entry)
            }
            counters.rollbacks += 1
            log.info("rolled back", metadata: ["vdi": "\(vdi)", "to": "\(version.name)"])
            let description = try await description(of: entry)
            var changed = entry
            changed.sizeBytes = description.sizeBytes
            put(changed)
            return RollbackAnswer(
                vdi: description, to: version.name.description,
                kept: kept.map { "\(entry.name)@\($0.name)" })
        }
    }

    private func requireRollback(of entry: Entry, isForced: Bool) throws(ControlError) {
        guard !entry.attributes.isTemplate else {
            throw ControlError(
                .template,
                "VDI \(quoted(entry.name)) is a template and its head stays as it is; "
                    + "make it an ordinary VDI first")
        }
        guard let attachment = attachments[.head(entry.identifier)] else { return }
        guard attachment.record.isReadOnly else {
            throw attached(
                entry, attachment, "cannot be rolled back while it is attached for writing")
        }
        guard isForced else {
            throw attached(
                entry, attachment,
                "is attached read-only and its reader would see it change; use --force, or")
        }
    }

    /// LIMIT: how often, and after which pause, a rollback is tried again that meets a reader's
    /// request under way.
    private static var rollbackTries: Int { 100 }
    private static var rollbackPause: Duration { .milliseconds(10) }

    /// A reader of the head has requests under way now and then; between them is the moment.
    private func change(_ change: CatalogChange, of entry: Entry) async throws -> CatalogOutcome {
        let shard = shard(of: entry)
        for _ in 1..<Self.rollbackTries {
            try requireRunning()
            do {
                return try await shard.change(change)
            } catch let error as ControlError where error.kind == .attached {
                try await Task.sleep(for: Self.rollbackPause)
            }
        }
        return try await shard.change(change)
    }
}
