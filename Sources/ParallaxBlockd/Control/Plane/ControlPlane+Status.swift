// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    package func status() async throws(ControlError) -> DaemonStatus {
        let shards = try await shardStatuses()
        let identity = runtime.identity
        let used = shards.reduce(0) { $0 + $1.extentsUsed }
        let free = shards.reduce(0) { $0 + $1.extentsFree }
        let spaces = shards.map(\.space)
        let store = StoreStatus(
            path: identity.path, uuid: identity.uuid, sizeBytes: identity.sizeBytes,
            usedBytes: used * identity.extentBytes, freeBytes: free * identity.extentBytes,
            extentBytes: identity.extentBytes, extentCount: identity.extentCount,
            extentsUsed: used, extentsFree: free,
            liveBytes: spaces.reduce(0) { $0 + $1.liveBytes },
            deadBytes: spaces.reduce(0) { $0 + $1.deadBytes },
            reservedBytes: spaces.reduce(0) { $0 + $1.reservedBytes }, host: runtime.hostSpace())
        return DaemonStatus(
            version: parallaxVersion, processIdentifier: getpid(), state: state, store: store,
            engine: shards.first?.engine ?? "none", vdiCount: directory.count,
            snapshotCount: logs.values.reduce(0) { $0 + $1.count },
            attachmentCount: attachments.count, missing: missing(), shards: shards,
            scrub: scrub?.summary)
    }

    /// Ready, or an error that says what is missing.
    package func readiness() -> Swift.Result<ReadyBody, NotReady> {
        switch state {
        case .ready: return .success(ReadyBody(state: state))
        case .starting, .degraded:
            let missing = missing()
            let message =
                "not ready (\(state.rawValue)): \(missing.count) of \(attachments.count) "
                + "attachments do not serve"
            return .failure(NotReady(error: ControlError(.notReady, message), missing: missing))
        case .stopping:
            let error = ControlError(.stopping, "not ready: the daemon is stopping")
            return .failure(NotReady(error: error, missing: []))
        }
    }

    package struct NotReady: Error {
        package var error: ControlError
        package var missing: [MissingAttachment]
    }

    private func missing() -> [MissingAttachment] {

        attachments.values
            .compactMap { attachment in
                guard let problem = attachment.problem else { return nil }
                let record = attachment.record
                return MissingAttachment(
                    vdi: names[record.identifier] ?? record.identifier.hexadecimal,
                    snapshot: attachment.snapshotName, kind: record.kind,
                    socket: record.socketPath ?? nbdSocketPath, reason: problem)
            }
            .sorted { ($0.vdi, $0.snapshot ?? "") < ($1.vdi, $1.snapshot ?? "") }
    }

    private func shardStatuses() async throws(ControlError) -> [ShardStatus] {
        try requireRunning()
        let shards = runtime.shards
        let statuses = try await translatingErrors {
            try await withThrowingTaskGroup(of: ShardStatus.self) { group in
                for shard in shards { group.addTask { try await shard.status() } }
                var result: [ShardStatus] = []
                for try await status in group { result.append(status) }
                return result
            }
        }
        readOnlyShards = Set(statuses.filter { $0.readOnlyReason != nil }.map(\.index))
        return statuses.sorted { $0.index < $1.index }.map { status in
            var status = status
            if population.indices.contains(status.index) {
                status.vdiCount = population[status.index]
            }
            return status
        }
    }
}
