// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Snapshots after a crash, and in lists at any time.
extension SimulatedHost {
    /// All snapshots of a stream as the engine lists them, page by page.
    func listed(_ stream: SimulatedStream) throws(SimulationFailure) -> [SnapshotSummary] {
        guard let engine = stream.engine else { return [] }
        var all: [SnapshotSummary] = []
        var cursor: Int? = 0
        let limit = statistics.snapshots == 0 ? 50 : random.integer(in: 1...50)
        while let start = cursor {
            let page = engine.snapshots(from: start, limit: limit)
            guard page.snapshots.count <= limit, page.next ?? Int.max > start else {
                throw SimulationFailure(
                    "page \(start) of the snapshots has \(page.snapshots.count) rows and goes on "
                        + "at \(page.next ?? 0)")
            }
            all += page.snapshots
            cursor = page.next
        }
        guard Set(all.map(\.identifier)).count == all.count else {
            throw SimulationFailure("a snapshot is listed twice")
        }
        return all
    }

    /// Compares what there is after a crash with what there may be, and takes it as the truth.
    func checkSnapshotsFound(_ stream: SimulatedStream) throws(SimulationFailure) {
        defer { stream.interrupted = [] }
        if hasLostTrust { return forgetSnapshots(stream) }
        var unknown: [String: SnapshotSummary] = [:]
        var found: Set<UInt64> = []
        for summary in try listed(stream) {
            let identifier = summary.identifier.rawValue
            found.insert(identifier)
            if let snapshot = snapshots[identifier] {
                try checkFound(summary, snapshot)
            } else if buried[identifier] != nil {
                throw SimulationFailure("deleted snapshot \(hex(identifier)) is back")
            } else {
                unknown[summary.details.name] = summary
            }
        }
        for snapshot in sortedSnapshots
        where snapshot.stream == stream.index && !found.contains(snapshot.identifier) {
            guard snapshot.isDeletionPending else {
                throw SimulationFailure(
                    "snapshot \(hex(snapshot.identifier)) is gone after recovery")
            }
            forget(snapshot)
        }
        for entry in stream.interrupted { try adopt(entry, &unknown, stream) }
        if let summary = unknown.values.first {
            throw SimulationFailure("unknown snapshot after recovery: \(summary)")
        }
    }

    private func forgetSnapshots(_ stream: SimulatedStream) {
        for snapshot in sortedSnapshots where snapshot.stream == stream.index { forget(snapshot) }
    }

    private func checkFound(
        _ summary: SnapshotSummary, _ snapshot: GuestSnapshot
    ) throws(SimulationFailure) {
        guard summary.vdi.rawValue == snapshot.disk,
            summary.createdAtNanoseconds == snapshot.createdAt,
            summary.sizeBytes == snapshot.sizeBytes, snapshot.details.contains(summary.details),
            snapshot.groups.contains(summary.pendingGroup)
        else {
            throw SimulationFailure(
                "snapshot \(hex(snapshot.identifier)) came back as \(summary), not "
                    + "\(snapshot.details) of group \(snapshot.groups.sorted().map(hex))")
        }
        snapshot.details = [summary.details]
        snapshot.groups = [summary.pendingGroup]
        snapshot.isDeletionPending = false
        snapshot.changesInFlight = 0
    }

    /// A change that was cut off has happened or not.
    private func adopt(
        _ entry: ChangeInFlight, _ unknown: inout [String: SnapshotSummary],
        _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        switch entry.change {
        case .snapshot(let vdi, let details, let createdAt, let group):
            guard let summary = unknown.removeValue(forKey: details.name) else { return }
            try adopt(summary, vdi, details, createdAt, group, entry, stream)
        case .rollback(let vdi, _, let keeping, let createdAt):
            guard let disk = disks[vdi.rawValue] else { return }
            disk.isRollingBack = false
            if let keeping {
                guard let summary = unknown.removeValue(forKey: keeping.name) else { return }
                try adopt(summary, vdi, keeping, createdAt, 0, entry, stream)
            } else if try !isRolledBack(disk, entry, stream) {
                return
            }
            let sizes = disk.sizes
            finishRollback(entry, stream)
            guard sizes == disk.sizes else {
                throw SimulationFailure("VDI \(hex(disk.identifier)) is half rolled back")
            }
            disk.changesInFlight = 0
        default: return
        }
    }

    private func adopt(
        _ summary: SnapshotSummary, _ vdi: VDIIdentifier, _ details: SnapshotDetails,
        _ createdAt: UInt64, _ group: UInt64, _ entry: ChangeInFlight, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        guard summary.vdi == vdi, summary.details == details, summary.pendingGroup == group,
            summary.createdAtNanoseconds == createdAt
        else { throw SimulationFailure("\(entry.change) has become \(summary)") }
        try addSnapshot(
            GuestSnapshot(
                identifier: summary.identifier.rawValue, disk: vdi.rawValue, stream: stream.index,
                sizeBytes: summary.sizeBytes, createdAt: createdAt, details: details,
                group: group),
            entry, stream)
    }

    /// Whether the head continues the snapshot, where that tells; else, whether it holds exactly
    /// what the snapshot does. (Before such a rollback the guest has flushed, so nothing else can
    /// have become equal to it.)
    private func isRolledBack(
        _ disk: GuestDisk, _ entry: ChangeInFlight, _ stream: SimulatedStream
    ) throws(SimulationFailure) -> Bool {
        guard let source = entry.source else { return false }
        if disk.parent != source.identifier, snapshots[source.identifier] != nil {
            let found = stream.engine?.disks().first { $0.identifier.rawValue == disk.identifier }
            return found?.parent?.rawValue == source.identifier
        }
        guard disk.sizes == [source.sectorCount * UInt64(sectorBytes)] else { return false }
        let tracked = Set(stream.oracle.disks[disk.identifier]?.trackedBlocks ?? [])
            .union(source.content.keys).sorted()
        for observation in try observe(tracked, disk, stream) {
            guard let value = observation.value else { continue }
            let expected = source.content[observation.block] ?? BlockValue(repeating: 0)
            if value != expected { return false }
        }
        return true
    }

    // MARK: Lists

    /// With nothing under way, the engine must list exactly what the administrator knows.
    func checkLists() throws(SimulationFailure) {
        guard !hasLostTrust else { return }
        var children: [UInt64: Int] = [:]
        for snapshot in snapshots.values {
            if let parent = snapshot.parent { children[parent, default: 0] += 1 }
        }
        for disk in disks.values {
            if let parent = disk.parent { children[parent, default: 0] += 1 }
        }
        for stream in streams where stream.engine?.failureMessage == nil {
            for summary in stream.engine?.disks() ?? [] {
                try checkListed(summary)
                // What is deleted and still being given back is a child.
                if summary.isDeleting, disks[summary.identifier.rawValue] == nil,
                    let parent = summary.parent
                {
                    children[parent.rawValue, default: 0] += 1
                }
            }
            var count = 0
            for summary in try listed(stream) {
                count += 1
                guard let snapshot = snapshots[summary.identifier.rawValue] else {
                    throw SimulationFailure("an unknown snapshot is listed: \(summary)")
                }
                try checkListed(summary, snapshot, children[snapshot.identifier] ?? 0)
            }
            let known = snapshots.values.count { $0.stream == stream.index }
            guard count == known else {
                throw SimulationFailure(
                    "stream \(stream.index) lists \(count) snapshots of \(known)")
            }
        }
    }

    private func checkListed(_ summary: VDISummary) throws(SimulationFailure) {
        guard let disk = disks[summary.identifier.rawValue], !summary.isDeleting else { return }
        let parent = summary.parent?.rawValue
        let isRight =
            disk.attributes == [summary.attributes] && disk.sizes == [summary.sizeBytes]
            && (parent == disk.parent || (disk.hasLostParent && parent == nil))
            && summary.snapshotCount == snapshots(of: disk.identifier).count
        guard !isRight else { return }
        throw SimulationFailure(
            "VDI \(hex(disk.identifier)) is listed as \(summary), not \(disk.attributes), "
                + "\(disk.sizes.sorted()), parent \(disk.parent.map(hex) ?? "none"), "
                + "\(snapshots(of: disk.identifier).count) snapshots")
    }

    private func checkListed(
        _ summary: SnapshotSummary, _ snapshot: GuestSnapshot, _ children: Int
    ) throws(SimulationFailure) {
        let isRight =
            summary.vdi.rawValue == snapshot.disk && snapshot.details == [summary.details]
            && summary.sizeBytes == snapshot.sizeBytes
            && summary.createdAtNanoseconds == snapshot.createdAt
            && snapshot.groups == [summary.pendingGroup]
            && summary.parent?.rawValue == snapshot.parent
            // A deleted branching point counts as one child, as long as it is needed.
            && (summary.childCount == children || hasHiddenVersions)
            && summary.isOpen == (snapshot.openings > 0)
        guard !isRight else { return }
        throw SimulationFailure(
            "snapshot \(hex(snapshot.identifier)) is listed as \(summary), not "
                + "\(snapshot.details), \(snapshot.sizeBytes) bytes, created at "
                + "\(snapshot.createdAt), parent \(snapshot.parent.map(hex) ?? "none"), "
                + "\(children) children, \(snapshot.openings) openings")
    }
}
