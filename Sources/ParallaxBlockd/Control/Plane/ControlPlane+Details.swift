// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

/// What is said about a snapshot: comment, labels, holds.
extension ControlPlane {
    package func change(
        _ name: VersionName, _ request: ChangeSnapshotRequest
    ) async throws(ControlError) -> SnapshotDescription {
        guard request.comment != nil || request.labels?.isEmpty == false else {
            throw ControlError(.invalid, "a change has a \"comment\" or \"labels\", or both")
        }
        if let comment = request.comment { try SnapshotText.validate(comment: comment) }
        for (key, value) in request.labels ?? [:] {
            try SnapshotText.validate(labelKey: key)
            if let value { try SnapshotText.validate(labelValue: value) }
        }
        return try await changeDetails(name) { details throws(ControlError) in
            if let comment = request.comment { details.comment = comment }
            for (key, value) in (request.labels ?? [:]).sorted(by: { $0.key < $1.key }) {
                details.labels.removeAll { $0.key == key }
                if let value {
                    details.labels.append(SnapshotDetails.Label(key: key, value: value))
                }
            }
        }
    }

    package func hold(
        _ name: VersionName, _ request: HoldRequest
    ) async throws(ControlError) -> SnapshotDescription {
        try SnapshotText.validate(holdReason: request.reason)
        let now = now()
        return try await changeDetails(name) { details throws(ControlError) in
            guard !details.holds.contains(where: { $0.reason == request.reason }) else {
                throw ControlError(
                    .nameTaken,
                    "snapshot \(quoted(details.name)) is held already for the reason "
                        + quoted(request.reason))
            }
            details.holds.append(
                SnapshotDetails.Hold(
                    reason: request.reason, createdAtSeconds: now / 1_000_000_000))
        }
    }

    /// Without a reason: the only hold.
    package func release(
        _ name: VersionName, reason: String?
    ) async throws(ControlError) -> SnapshotDescription {
        try await changeDetails(name) { details throws(ControlError) in
            let title = "snapshot \(quoted(details.name))"
            guard !details.holds.isEmpty else {
                throw ControlError(.notFound, "\(title) is not held")
            }
            let reasons = details.holds.map { quoted($0.reason) }.joined(separator: ", ")
            guard let reason else {
                guard details.holds.count == 1 else {
                    throw ControlError(
                        .invalid,
                        "\(title) is held for several reasons (\(reasons)); say which with --reason"
                    )
                }
                details.holds = []
                return
            }
            guard let place = details.holds.firstIndex(where: { $0.reason == reason }) else {
                throw ControlError(
                    .notFound,
                    "\(title) is not held for the reason \(quoted(reason)) but for \(reasons)")
            }
            details.holds.remove(at: place)
        }
    }

    private func changeDetails(
        _ name: VersionName, _ body: (inout SnapshotDetails) throws(ControlError) -> Void
    ) async throws(ControlError) -> SnapshotDescription {
        try await changing([name.vdi]) {
            let (version, snapshot) = try snapshot(name)
            var details = snapshot.details
            try body(&details)
            try Self.require(fits: details)
            if details != snapshot.details {
                try await shard(of: version.entry).change(
                    .setDetails(snapshot.identifier, details))
                logs[version.entry.identifier]?.update(snapshot, details)
            }
            return try await description(of: snapshot, version.entry)
        }
    }
}
