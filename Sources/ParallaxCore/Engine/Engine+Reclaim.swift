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
        while budget > 0 {
            if catalog.reclaim.job == nil {
                catalog.reclaim.starvedTurns = 0
                guard beginReclaim() else { return }
            }
            let step = stepReclaim()
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
    private enum ReclaimStep { case progress, waits, done, broken }

    /// Goes through one node, or to the next level.
    private mutating func stepReclaim() -> ReclaimStep {
        guard var job = catalog.reclaim.job else { return .waits }
        if job.isBroken { return .broken }
        let comparison = comparison(of: job)
        var reached = job.cursor
        let difference = forest.nextDifference(
            comparison, from: &reached, mayLoad: mayLoadAside)
        switch difference {
        case .nodes(let mine, let other, let block):
            if job.level == 0 {
                switch goThroughLeaf(&job, mine, other, block, comparison.floor) {
                case .success: break
                case .failure(let wait): return waitForNode(wait.difference)
                }
            }
            if job.purpose == .free {
                forest.removeLiveNode(at: mine.address)
                changesSinceFreeze += 1
            }
            job.cursor = block + VDI.span(levels: job.level + 1)
            job.attempts = 0
            catalog.reclaim.job = job
            showProgress(job)
            return .progress
        case .end:
            job.level += 1
            job.cursor = 0
            job.attempts = 0
            if job.purpose == .count || job.level >= comparison.mine.levels { return .done }
            catalog.reclaim.job = job
            showProgress(job)
            return .progress
        case .loading, .starved:
            pass(job, to: reached)
            return waitForNode(difference)
        }
    }

    /// What turned out to be the same so far is not looked at again: it may take more nodes than there is
    /// room for.
    private mutating func pass(_ job: ReclaimJob, to block: UInt64) {
        guard block > job.cursor else { return }
        var job = job
        job.cursor = block
        job.attempts = 0
        catalog.reclaim.job = job
        showProgress(job)
    }

    /// Whether what goes on in the background may load a node now.
    var mayLoadAside: Bool { loadPermits > 0 && !applierWaits }

    private mutating func waitForNode(_ difference: RadixForest.Difference) -> ReclaimStep {
        if case .loading(let node) = difference {
            catalog.reclaim.starvedTurns = 0
            catalog.reclaim.job?.awaited = node
            sendNodeLoads()
        } else {
            catalog.reclaim.job?.awaited = nil
            catalog.reclaim.starvedTurns += 1
        }
        return .waits
    }

    private func comparison(of job: ReclaimJob) -> TreeComparison {
        var comparison = TreeComparison(
            mine: catalog.tree(of: job.target), other: .empty, level: job.level)
        if let row = job.target.row {
            comparison.other = catalog.tree(of: catalog.versions[row].firstChild)
            comparison.floor = catalog.floor(row)
        } else if let handle = job.target.handle {
            comparison.floor = catalog.vdis[handle].snapshotEpoch
        }
        return comparison
    }

    /// Frees or counts the data blocks of a leaf that are not in the child's.
    private mutating func goThroughLeaf(
        _ job: inout ReclaimJob, _ mine: BlockReference, _ other: BlockReference, _ block: UInt64,
        _ floor: UInt32
    ) -> Result<Void, RadixForest.Wait> {
        var otherEntries: UnsafeMutablePointer<BlockReference>?
        if !other.isHole {
            switch forest.frame(of: other, level: 0, block: block, mayLoad: mayLoadAside) {
            case .success(let frame): otherEntries = forest.cache.entries(frame)
            case .failure(let wait): return .failure(wait)
            }
        }
        let frame: Int
        switch forest.frame(of: mine, level: 0, block: block, mayLoad: mayLoadAside) {
        case .success(let found): frame = found
        case .failure(let wait): return .failure(wait)
        }
        let entries = forest.cache.entries(frame)
        var freed: UInt64 = 0
        for slot in 0..<radixFanout {
            let entry = entries[slot]
            guard !entry.isHole, entry.birth > floor,
                otherEntries?[slot].address != entry.address
            else { continue }
            if job.purpose == .free {
                forest.removeLive(entry.address)
                freed += 1
            } else {
                job.counted += 1
            }
        }
        catalog.noteFreed(freed, of: job.target)
        return .success(())
    }

    /// Tells a head that goes on being written how far its parent has been gone through.
    mutating func showProgress(_ job: ReclaimJob) {
        guard let row = job.target.row, let head = catalog.versions[row].firstChild.handle else {
            return
        }
        switch job.purpose {
        case .free:
            catalog.settleFreed(head: head, parent: row)
            catalog.vdis[head].reclaimLevel = Int8(job.level)
            catalog.vdis[head].reclaimCursor = job.cursor
        case .count: catalog.vdis[head].countedBelow = job.cursor
        }
    }

    /// Before the records are frozen: what the child's head has let go of is not charged any more.
    mutating func settleReclaim() {
        guard let job = catalog.reclaim.job, job.purpose == .free, let row = job.target.row,
            let head = catalog.versions[row].firstChild.handle
        else { return }
        catalog.settleFreed(head: head, parent: row)
    }

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

    /// Times that a node which cannot be read is tried again.
    private static let nodeAttempts = 8

    /// A node cannot be read. A count is given up until the next start. A deletion goes on behind
    /// the node: what only it names is not given back, rather than guessed at; and what has been
    /// given back before must not be again, so the job cannot just be dropped.
    private mutating func passBrokenNode() {
        guard var job = catalog.reclaim.job, let node = job.awaited else { return }
        guard job.purpose == .free else {
            catalog.reclaim.job = nil
            return
        }
        job.isBroken = false
        job.awaited = nil
        job.attempts += 1
        if job.attempts >= Self.nodeAttempts {
            let width = VDI.span(levels: node.level + 1)
            job.cursor = (node.block / width + 1) * width
            job.attempts = 0
            counters.nodesPassedOver += 1
        }
        catalog.reclaim.job = job
        showProgress(job)
    }

    /// A node that the job waits for cannot be read.
    mutating func noteBrokenNode(_ address: BlockAddress) {
        if catalog.reclaim.job?.awaited?.address == address { catalog.reclaim.job?.isBroken = true }
        if diffs.job?.awaited == address { diffs.job?.isBroken = true }
        renaming.noteBroken(address)
    }
}
