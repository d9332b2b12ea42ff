// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore

/// Gathers what the shards say about their snapshots at the start.
struct SnapshotLoader {
    /// The label that every member of a group carries: its number.
    static let groupLabel = "parallax.group"

    /// Members of a group that was not finished.
    struct PendingMember {
        var shard: Int
        var summary: SnapshotSummary
    }

    private var entries: [VDIIdentifier: [SnapshotEntry]] = [:]
    private(set) var pending: [UInt64: [PendingMember]] = [:]
    /// Visible members of each group.
    private var visible: [UInt64: Int] = [:]

    mutating func add(_ summary: SnapshotSummary, shard: Int) {
        guard summary.pendingGroup == 0 else {
            pending[summary.pendingGroup, default: []].append(
                PendingMember(shard: shard, summary: summary))
            return
        }
        if let group = Self.group(of: summary.details) { visible[group, default: 0] += 1 }
        let entry = SnapshotEntry(
            identifier: summary.identifier, createdAtNanoseconds: summary.createdAtNanoseconds,
            details: summary.details)
        entries[summary.vdi, default: []].append(entry)
    }

    /// The group counts as made when each of its members is there, and one of them visible: then all cuts
    /// were made in time. Before that nobody has been told, and it may be that writes went on while the
    /// last cut was not made yet.
    func isComplete(_ group: UInt64) -> Bool {
        let members = pending[group]?.filter { Self.group(of: $0.summary.details) == group } ?? []
        let visible = visible[group, default: 0]
        return visible > 0 && members.count + visible == GroupCut.memberCount(of: group)
    }

    /// The members of a group that was finished after all.
    mutating func show(_ group: UInt64) {
        for member in pending.removeValue(forKey: group) ?? [] {
            var summary = member.summary
            summary.pendingGroup = 0
            add(summary, shard: member.shard)
        }
    }

    consuming func logs() -> [VDIIdentifier: SnapshotLog] {
        entries.mapValues { entries in
            var log = SnapshotLog()
            for entry in entries.sorted(by: { $0.sequence < $1.sequence }) { log.append(entry) }
            return log
        }
    }

    static func label(_ group: UInt64) -> SnapshotDetails.Label {
        SnapshotDetails.Label(key: groupLabel, value: String(group, radix: 16))
    }

    private static func group(of details: SnapshotDetails) -> UInt64? {
        details.labels.first { $0.key == groupLabel }.flatMap { UInt64($0.value, radix: 16) }
    }
}
