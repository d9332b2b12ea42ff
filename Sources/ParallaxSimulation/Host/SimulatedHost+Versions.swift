// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Changes that concern snapshots: what they do to what the administrator knows.
extension SimulatedHost {
    /// The snapshots of one VDI, in a fixed order.
    func snapshots(of disk: UInt64) -> [GuestSnapshot] {
        sortedSnapshots.filter { $0.disk == disk }
    }

    var sortedSnapshots: [GuestSnapshot] {
        snapshots.keys.sorted().compactMap { snapshots[$0] }
    }

    func model(of snapshot: GuestSnapshot) -> ModelSnapshot? {
        streams[snapshot.stream].oracle.snapshots[snapshot.identifier]
    }

    func beginVersionChange(_ entry: inout ChangeInFlight, _ stream: SimulatedStream) {
        let disk = entry.change.vdi.flatMap { disks[$0] }
        let snapshot = entry.change.snapshot.flatMap { snapshots[$0] }
        entry.source = entry.change.snapshot.flatMap { stream.oracle.snapshots[$0] }
        switch entry.change {
        case .snapshot:
            entry.window = stream.oracle.beginSnapshot()
            disk?.snapshotsInFlight += 1
        case .rollback:
            entry.window = stream.oracle.beginSnapshot()
            entry.mayBeInUse = disk?.requestsInFlight ?? 0 > 0
            if let vdi = entry.change.vdi { ignoreReads(of: vdi, stream) }
            disk?.isRollingBack = true
            disk?.changesInFlight += 1
            hasHiddenVersions = true
            snapshot?.changesInFlight += 1
            if let snapshot { disk?.sizes.insert(snapshot.sizeBytes) }
        case .setDetails(_, let details):
            snapshot?.details.append(details)
            snapshot?.changesInFlight += 1
        case .deleteSnapshot:
            snapshot?.isDeletionPending = true
            entry.mayBeInUse = snapshot?.openings ?? 0 > 0
        case .clone: snapshot?.changesInFlight += 1
        case .finishGroup(let group, let commit):
            for member in members(of: group, on: stream) {
                if commit { member.groups.insert(0) } else { member.isDeletionPending = true }
            }
        case .create, .resize, .rename, .delete, .setAttributes: break
        }
    }

    /// A guest that reads while the head is replaced may get either.
    private func ignoreReads(of disk: UInt64, _ stream: SimulatedStream) {
        for tag in stream.requests.keys {
            guard let request = stream.requests[tag], request.disk == disk else { continue }
            switch request.expectation {
            case .read(let submittedAt, _):
                stream.requests[tag]?.expectation = .read(
                    submittedAt: submittedAt, isScribbled: true)
            case .allocation(let submittedAt):
                stream.requests[tag]?.expectation = .read(
                    submittedAt: submittedAt, isScribbled: true)
            case .mutation, .flush, .refusal, .snapshotRead, .snapshotAllocation: break
            }
        }
    }

    func settleVersionChange(
        _ entry: ChangeInFlight, _ outcome: CatalogOutcome, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        let disk = entry.change.vdi.flatMap { disks[$0] }
        let snapshot = entry.change.snapshot.flatMap { snapshots[$0] }
        switch (entry.change, outcome) {
        case (.clone(_, let name, let sizeBytes, _), .vdi(let identifier)):
            snapshot?.changesInFlight -= 1
            try addDisk(
                identifier.rawValue, stream, name: name, sizeBytes: sizeBytes, from: entry.source)
        case (.snapshot(let vdi, let details, let createdAt, let group), .snapshot(let identifier)):
            disk?.snapshotsInFlight -= 1
            let size = try sizeOfNew(identifier.rawValue, disk, stream)
            try addSnapshot(
                GuestSnapshot(
                    identifier: identifier.rawValue, disk: vdi.rawValue, stream: stream.index,
                    sizeBytes: size, createdAt: createdAt, details: details, group: group),
                entry, stream)
            noteMember(identifier.rawValue, of: group)
        case (.setDetails(let target, let details), .snapshot(let made)) where made == target:
            snapshot?.details = [details]
            snapshot?.changesInFlight -= 1
        case (.deleteSnapshot(let target), .snapshot(let made)) where made == target:
            if let snapshot { forget(snapshot) }
        case (.rollback(let target, _, let keeping, let createdAt), .rollback(let made, let kept))
        where made == target && (keeping == nil) == (kept == nil):
            if let keeping, let kept, let disk {
                let size = try sizeOfNew(kept.rawValue, disk, stream)
                try addSnapshot(
                    GuestSnapshot(
                        identifier: kept.rawValue, disk: target.rawValue, stream: stream.index,
                        sizeBytes: size, createdAt: createdAt, details: keeping, group: 0),
                    entry, stream)
            }
            finishRollback(entry, stream)
        case (.finishGroup(let group, let commit), .group(let made)) where made == group:
            settleGroup(group, commit: commit, stream)
        default:
            throw SimulationFailure("change \(entry.change) was answered with \(outcome)")
        }
    }

    /// The head is now what the snapshot is.
    func finishRollback(_ entry: ChangeInFlight, _ stream: SimulatedStream) {
        guard let source = entry.source, let vdi = entry.change.vdi, let disk = disks[vdi] else {
            return
        }
        if let window = entry.window { stream.oracle.abandonSnapshot(window) }
        stream.oracle.rollBack(vdi, to: source)
        snapshots[source.identifier]?.changesInFlight -= 1
        disk.sizes = [source.sectorCount * UInt64(sectorBytes)]
        disk.parent = nearest(source.identifier)
        disk.hasLostParent = snapshots[source.identifier] == nil
        disk.isRollingBack = false
        disk.changesInFlight -= 1
    }

    /// What the engine says is the new snapshot's size; it must be one that the head had.
    private func sizeOfNew(
        _ identifier: UInt64, _ disk: GuestDisk?, _ stream: SimulatedStream
    ) throws(SimulationFailure) -> UInt64 {
        guard let summary = stream.engine?.summary(of: identifier) else {
            // The VDI's deletion may be made already, and not be answered.
            if let disk, disk.isDeletionPending, let size = disk.sizes.max() { return size }
            throw SimulationFailure("snapshot \(hex(identifier)) was answered and is not there")
        }
        if let disk, !disk.sizes.contains(summary.sizeBytes) {
            throw SimulationFailure("a snapshot of \(disk.sizes.sorted()) bytes is \(summary)")
        }
        return summary.sizeBytes
    }

    func addSnapshot(
        _ snapshot: GuestSnapshot, _ entry: ChangeInFlight, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        let identifier = snapshot.identifier
        guard snapshots[identifier] == nil, buried[identifier] == nil else {
            throw SimulationFailure("identifier \(hex(identifier)) was given twice")
        }
        statistics.snapshots += 1
        snapshots[identifier] = snapshot
        if let window = entry.window {
            stream.oracle.endSnapshot(
                window, identifier: identifier, vdi: snapshot.disk,
                sectorCount: snapshot.sectorCount)
        }
        guard let disk = disks[snapshot.disk] else { return }
        snapshot.parent = disk.parent
        disk.parent = identifier
        disk.hasLostParent = false
    }

    func forget(_ snapshot: GuestSnapshot) {
        let identifier = snapshot.identifier
        hasHiddenVersions = true
        buried[identifier] = .some(snapshot.parent)
        snapshots[identifier] = nil
        streams[snapshot.stream].oracle.removeSnapshot(identifier)
        for other in snapshots.values where other.parent == identifier {
            other.parent = snapshot.parent
        }
        for disk in disks.values where disk.parent == identifier {
            disk.parent = snapshot.parent
            disk.hasLostParent = true
        }
    }

    /// The snapshot, or its nearest ancestor that is not deleted.
    func nearest(_ identifier: UInt64?) -> UInt64? {
        var next = identifier
        while let one = next, let parent = buried[one] { next = parent }
        return next
    }

    func revertVersionChange(_ entry: ChangeInFlight, _ stream: SimulatedStream) {
        let disk = entry.change.vdi.flatMap { disks[$0] }
        let snapshot = entry.change.snapshot.flatMap { snapshots[$0] }
        if let window = entry.window { stream.oracle.abandonSnapshot(window) }
        switch entry.change {
        case .snapshot(_, _, _, let group):
            disk?.snapshotsInFlight -= 1
            noteFailedMember(of: group)
        case .rollback:
            disk?.isRollingBack = false
            disk?.changesInFlight -= 1
            if let disk, let source = entry.source, disk.sizes.count > 1 {
                disk.sizes.remove(source.sectorCount * UInt64(sectorBytes))
            }
            snapshot?.changesInFlight -= 1
        case .setDetails:
            snapshot?.details.removeLast()
            snapshot?.changesInFlight -= 1
        case .deleteSnapshot: snapshot?.isDeletionPending = false
        case .clone: snapshot?.changesInFlight -= 1
        case .finishGroup(let group, _):
            for member in members(of: group, on: stream) {
                member.groups = [group]
                member.isDeletionPending = false
            }
        case .create, .resize, .rename, .delete, .setAttributes: break
        }
    }

    func isExpectedVersionRefusal(_ entry: ChangeInFlight, _ error: CatalogError) -> Bool {
        let disk = entry.change.vdi.flatMap { disks[$0] }
        let snapshot = entry.change.snapshot.flatMap { snapshots[$0] }
        switch (entry.change, error) {
        case (.snapshot, .noSuchVDI), (.rollback, .noSuchVDI):
            return disk?.isDeletionPending ?? true
        case (.clone, .noSuchSnapshot), (.setDetails, .noSuchSnapshot),
            (.deleteSnapshot, .noSuchSnapshot), (.rollback, .noSuchSnapshot):
            guard let snapshot else { return true }
            return snapshot.isDeletionPending || disks[snapshot.disk]?.isDeletionPending ?? true
        case (.deleteSnapshot, .held): return snapshot?.mayBeHeld ?? true
        case (.deleteSnapshot, .inUse), (.rollback, .inUse): return entry.mayBeInUse
        default: return false
        }
    }
}
