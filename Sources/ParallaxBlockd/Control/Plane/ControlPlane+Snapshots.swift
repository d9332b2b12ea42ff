// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Durable when it returns.
    package func createSnapshot(
        of vdi: String, _ request: CreateSnapshotRequest
    ) async throws(ControlError) -> SnapshotDescription {
        guard request.vdis == nil else {
            throw ControlError(.invalid, "a group of VDIs is cut at /v1/snapshots")
        }
        try Self.validate(request)
        return try await changing([vdi]) {
            let entry = try entry(vdi)
            let createdAt = now()
            let name = try snapshotName(request.name, at: createdAt, of: [entry])
            let details = try Self.details(name, request)
            let outcome = try await shard(of: entry).change(
                .snapshot(
                    entry.identifier, details, createdAtNanoseconds: createdAt, group: 0))
            guard case .snapshot(let identifier) = outcome else {
                throw ControlError(.internalError, "the shard answered something else")
            }
            let snapshot = register(identifier, details, createdAt, of: entry)
            log.debug("snapshot made", metadata: ["vdi": "\(vdi)", "snapshot": "\(name)"])
            return try await description(of: snapshot, entry)
        }
    }

    static func validate(_ request: CreateSnapshotRequest) throws(ControlError) {
        if let name = request.name { try SnapshotName.validate(name) }
        if let comment = request.comment { try SnapshotText.validate(comment: comment) }
        if let labels = request.labels { try SnapshotText.validate(labels: labels) }
    }

    /// The name that was asked for, if none of `entries` has such a snapshot; else one from the
    /// time.
    func snapshotName(
        _ wanted: String?, at time: UInt64, of entries: [Entry]
    ) throws(ControlError) -> String {
        guard let wanted else {
            return SnapshotLog.automaticName(time) { name in
                entries.contains { logs[$0.identifier]?.isTaken(name) == true }
            }
        }
        for entry in entries where logs[entry.identifier]?.isTaken(wanted) == true {
            guard logs[entry.identifier]?.find(wanted) != nil else {
                throw ControlError(
                    .nameTaken,
                    "VDI \(quoted(entry.name)) may have a snapshot called \(quoted(wanted)) after the "
                        + "daemon's next start, of a group that was not finished; use another name")
            }
            throw ControlError(
                .nameTaken,
                "VDI \(quoted(entry.name)) already has a snapshot called \(quoted(wanted))")
        }
        return wanted
    }

    static func details(
        _ name: String, _ request: CreateSnapshotRequest, group: UInt64 = 0
    ) throws(ControlError) -> SnapshotDetails {
        var labels = (request.labels ?? [:]).map {
            SnapshotDetails.Label(key: $0.key, value: $0.value)
        }
        labels.sort { $0.key < $1.key }
        if group != 0 { labels.append(SnapshotLoader.label(group)) }
        let details = SnapshotDetails(
            name: name, comment: request.comment ?? "", labels: labels,
            origin: request.scheduled == true ? .scheduled : .manual)
        try require(fits: details)
        return details
    }

    static func require(fits details: SnapshotDetails) throws(ControlError) {
        guard details.isValid else {
            throw ControlError(
                .invalid,
                "the name, comment, labels and holds of snapshot \(quoted(details.name)) are too "
                    + "long together, or too many; a snapshot has room for 2 KiB of them, "
                    + "\(SnapshotText.maximumLabels) labels and \(SnapshotText.maximumHolds) holds")
        }
    }

    /// Puts a snapshot that was made into the directory.
    @discardableResult
    func register(
        _ identifier: SnapshotIdentifier, _ details: SnapshotDetails, _ createdAt: UInt64,
        of entry: Entry
    ) -> SnapshotEntry {
        let snapshot = SnapshotEntry(
            identifier: identifier, createdAtNanoseconds: createdAt, details: details)
        logs[entry.identifier, default: SnapshotLog()].append(snapshot)
        counters.snapshotsMade += 1
        return logs[entry.identifier]?.newest ?? snapshot
    }

    /// A page, oldest first.
    package func snapshots(
        of vdi: String, after: String?, limit: Int
    ) async throws(ControlError) -> SnapshotList {
        guard 1...SnapshotList.pageLimit ~= limit else {
            throw ControlError(
                .invalid, "a page has from 1 to \(SnapshotList.pageLimit) snapshots")
        }
        try requireRunning()
        let entry = try entry(vdi)
        let log = logs[entry.identifier] ?? SnapshotLog()
        var previous: SnapshotIdentifier?
        if let after {
            previous = try Self.placeMark(after)
            if previous == nil {
                previous = try snapshot(VersionName(vdi: vdi, snapshot: after)).snapshot.identifier
            }
        }
        let page = log.page(after: previous, limit: limit + 1)
        let shown = Array(page.prefix(limit))
        return SnapshotList(
            snapshots: try await describe(shown, of: entry),
            next: page.count > limit ? shown.last.map { "/" + $0.identifier.hexadecimal } : nil,
            total: log.count)
    }

    /// `/` and an identifier: the place in a list, also when what was there is deleted meanwhile.
    /// No name has a `/`. nil: it is a name.
    private static func placeMark(
        _ text: String
    ) throws(ControlError) -> SnapshotIdentifier? {
        guard text.hasPrefix("/") else { return nil }
        guard let identifier = SnapshotIdentifier(hexadecimal: String(text.dropFirst())) else {
            throw ControlError(.invalid, "\(quoted(text)) is no place in a list of snapshots")
        }
        return identifier
    }

    package func snapshot(
        _ name: VersionName
    ) async throws(ControlError) -> SnapshotDescription {
        try requireRunning()
        let (version, snapshot) = try snapshot(name)
        return try await description(of: snapshot, version.entry)
    }

    func description(
        of snapshot: SnapshotEntry, _ entry: Entry
    ) async throws(ControlError) -> SnapshotDescription {
        guard let description = try await describe([snapshot], of: entry).first else {
            throw ControlError(
                .notFound,
                "there is no snapshot \(quoted("\(entry.name)@\(snapshot.name)")) any more")
        }
        return description
    }
}
