// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Giving back what a deleted version alone had, in the background.
///
/// A block's lifetime along a path of the tree of versions is one piece. So what deleting a version
/// frees is what was born after its parent (its birth says so) and is not in its only child (at the
/// same place there stands another address). With two children or more nothing is freed: what one
/// of them lets go of may be in another; the version stays as a branching point until only one is
/// left.
extension Engine {
    /// The version is no longer one that people see.
    mutating func markDeleted(_ row: Int) {
        if let handle = catalog.handle(of: catalog.versions[row].vdi).map(Int.init) {
            catalog.removeSnapshot(row, from: handle)
        }
        catalog.versions[row].state = .deleted
        catalog.versions[row].isHeld = false
        catalog.setDetails(row: row, [])
        catalog.versions[row].isQueued = false
        queue(row)
    }

    /// Queues the version for what there is to do about it now.
    mutating func queue(_ row: Int) {
        guard !catalog.versions[row].isQueued, catalog.versions[row].childCount < 2 else { return }
        if catalog.versions[row].state == .deleted {
            catalog.versions[row].isQueued = true
            catalog.reclaim.deletions.append(.version(row))
        } else if !catalog.versions[row].isCounted {
            catalog.versions[row].isQueued = true
            catalog.reclaim.counts.append(UInt32(row))
        }
    }

    /// The version has a child more, which is the same as itself: it has nothing alone.
    mutating func noteNewChild(_ row: Int) {
        catalog.versions[row].exclusiveBlocks = 0
        catalog.versions[row].isCounted = true
        catalog.touch(row: row)
        if let job = catalog.reclaim.job, job.target == .version(row) { catalog.reclaim.job = nil }
        if catalog.versions[row].childCount == 1 {
            catalog.refreshHead(catalog.versions[row].firstChild)
        }
    }

    /// A neighbour of the version in the tree is gone: what it has alone must be counted again.
    private mutating func noteLostNeighbour(_ row: Int32) {
        guard row >= 0, catalog.versions[Int(row)].childCount < 2 else { return }
        let row = Int(row)
        catalog.versions[row].isCounted = false
        catalog.versions[row].exclusiveBlocks = 0
        catalog.touch(row: row)
        catalog.refreshHead(catalog.versions[row].firstChild)
        queue(row)
    }
}

extension Engine {
    /// LIMIT: nodes that one turn goes through, with and without guests that wait; and snapshots of
    /// a deleted VDI that it marks.
    private static let nodesPerBusyTurn = 64
    private static let nodesPerIdleTurn = 2048
    private static let marksPerTurn = 256

    mutating func advanceReclaim() {
        catalog.reclaim.hasMore = false
        guard failure == nil, !isWindingDown, catalog.reclaim.hasWork else {
            catalog.reclaim.starvedTurns = 0
            return
        }
        markSnapshotsOfDeleted()
        var budget = requests.usedCount > 0 ? Self.nodesPerBusyTurn : Self.nodesPerIdleTurn
        var places = budget * RadixForest.samePlacesPerNode
        while budget > 0, places > 0 {
            if catalog.reclaim.job == nil {
                catalog.reclaim.starvedTurns = 0
                guard beginReclaim() else { return }
            }
            let step = stepReclaim(&places)
            if step != .waits { catalog.reclaim.starvedTurns = 0 }
            switch step {
            case .progress: budget -= 1
            case .waits: return
            case .done:
                // What ends here changes record pages.
                guard hasRoomToFinish else { return waitForRoom() }
                finishReclaim()
                budget -= 1
            case .broken: passBrokenNode()
            }
        }
        catalog.reclaim.hasMore = true
    }

    /// For the record pages that would have to be changed. A checkpoint may give some; a count is given up
    /// until the next start, so that deletions, which may give some, do not wait for it.
    private mutating func waitForRoom() {
        if isCheckpointRelief { checkpoint.isNeeded = true }
        if catalog.reclaim.job?.purpose == .count { catalog.reclaim.job = nil }
    }

    /// The snapshots of a deleted VDI go newest first; when all are marked, the head.
    private mutating func markSnapshotsOfDeleted() {
        var budget = Self.marksPerTurn
        while budget > 0, let handle = catalog.reclaim.vdis.first.map(Int.init) {
            guard hasRoomToFinish else { return waitForRoom() }
            let last = catalog.vdis[handle].lastSnapshot
            guard last >= 0 else {
                _ = catalog.reclaim.vdis.popFirst()
                catalog.reclaim.deletions.append(.vdi(handle))
                continue
            }
            catalog.pendingRows.removeAll { $0 == UInt32(last) }
            markDeleted(Int(last))
            changesSinceFreeze += 1
            budget -= 1
        }
        if budget == 0 { catalog.reclaim.hasMore = true }
    }

    /// LIMIT: deletions that are looked at for one that can begin.
    private static let deletionsPerLook = 64

    private mutating func beginReclaim() -> Bool {
        var needsCheckpoint = false
        for _ in 0..<min(catalog.reclaim.deletions.count, Self.deletionsPerLook) {
            guard let owner = catalog.reclaim.deletions.popFirst() else { break }
            switch readiness(of: owner) {
            case .ready:
                if let row = owner.row { catalog.versions[row].isQueued = false }
                catalog.reclaim.job = ReclaimJob(purpose: .free, target: owner)
                return true
            case .waits: catalog.reclaim.deletions.append(owner)
            case .waitsForCheckpoint:
                catalog.reclaim.deletions.append(owner)
                needsCheckpoint = true
            case .void: if let row = owner.row { catalog.versions[row].isQueued = false }
            }
        }
        if needsCheckpoint { askForCheckpoint() }
        while let row = catalog.reclaim.counts.popFirst().map(Int.init) {
            let version = catalog.versions[row]
            guard version.state == .visible || version.state == .pending else { continue }
            catalog.versions[row].isQueued = false
            guard !version.isCounted, version.childCount < 2 else { continue }
            catalog.reclaim.job = ReclaimJob(purpose: .count, target: .version(row))
            return true
        }
        return false
    }

    private enum Readiness { case ready, waits, waitsForCheckpoint, void }

    /// Giving back needs all nodes to have their places: those that only wait to be written are
    /// written by a checkpoint first.
    private mutating func readiness(of owner: RecordOwner) -> Readiness {
        let isResident: Bool
        if let row = owner.row {
            guard catalog.versions[row].state == .deleted, catalog.versions[row].childCount < 2
            else { return .void }
            forest.resolve(&catalog.versions[row].root)
            isResident = catalog.versions[row].root.address.isResident
        } else {
            let handle = owner.handle ?? 0
            guard catalog.vdis[handle].requestsInFlight == 0 else { return .waits }
            forest.resolve(&catalog.vdis[handle].root)
            isResident = catalog.vdis[handle].root.address.isResident
        }
        return isResident ? .waitsForCheckpoint : .ready
    }

    /// At once when nobody would notice, or space is needed; else they gather for a while. Where space is
    /// short only a checkpoint that something depends on is made, and what deletions will give back does.
    private mutating func askForCheckpoint() {
        if isStoreFull || isShortOfSpace {
            checkpoint.isNeeded = true
        } else if requests.usedCount == 0
            || now >= checkpoint.lastStart + Self.deletionPatienceNanoseconds
        {
            checkpoint.isWanted = true
        }
    }

    private static let deletionPatienceNanoseconds: UInt64 = 2_000_000_000
}

extension Engine {
    private mutating func finishReclaim() {
        guard let job = catalog.reclaim.job else { return }
        catalog.reclaim.job = nil
        changesSinceFreeze += 1
        guard job.purpose == .free else {
            finishCount(job)
            return
        }
        // From now on the head may free what it shared with the version. A replay does not know.
        forest.extents.holdAll()
        if let handle = job.target.handle {
            let parent = catalog.vdis[handle].version
            catalog.removeChild(.head(handle))
            catalog.close(handle)
            noteLostNeighbour(parent)
        } else if let row = job.target.row {
            removeVersion(row)
        }
    }

    /// The version has nothing left of its own: its child takes its place.
    private mutating func removeVersion(_ row: Int) {
        let child = catalog.versions[row].firstChild
        let parent = catalog.versions[row].parent
        catalog.bequeath(row, to: child)
        if child.isNone {
            catalog.removeChild(.snapshot(row))
        } else {
            catalog.removeChild(child)
            catalog.replaceChild(.snapshot(row), with: child)
        }
        catalog.pages.remove(
            .version(row), bytes: Int(catalog.versions[row].recordBytes),
            from: catalog.versions[row].page)
        catalog.versions.free(row)
        noteLostNeighbour(parent)
        if let below = child.row { noteLostNeighbour(Int32(below)) }
        touch(child)
    }

    private mutating func touch(_ link: VersionLink) {
        if let row = link.row { catalog.touch(row: row) }
        if let handle = link.handle { catalog.touch(handle) }
    }

    private mutating func finishCount(_ job: ReclaimJob) {
        guard let row = job.target.row else { return }
        var exclusive = job.counted
        if let head = catalog.versions[row].firstChild.handle {
            exclusive += catalog.vdis[head].lostBlocks
        }
        catalog.versions[row].exclusiveBlocks = exclusive
        catalog.versions[row].isCounted = true
        catalog.touch(row: row)
        catalog.refreshHead(catalog.versions[row].firstChild)
    }
}
