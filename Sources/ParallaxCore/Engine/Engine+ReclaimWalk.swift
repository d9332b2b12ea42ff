// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The walk of a deletion or a count: the trees of a version and of its only child side by side.
extension Engine {
    enum ReclaimStep { case progress, waits, done, broken }

    /// Goes through one node, or to the next level, or passes over `places` at most that are the same.
    mutating func stepReclaim(_ places: inout Int) -> ReclaimStep {
        guard var job = catalog.reclaim.job else { return .waits }
        if job.isBroken { return .broken }
        let comparison = comparison(of: job)
        var reached = job.cursor
        let difference = forest.nextDifference(
            comparison, from: &reached, places: &places, mayLoad: mayLoadAside)
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
        case .paused:
            pass(job, to: reached)
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

    /// Times that a node which cannot be read is tried again.
    private static let nodeAttempts = 8

    /// A node cannot be read. A count is given up until the next start. A deletion goes on behind
    /// the node: what only it names is not given back, rather than guessed at; and what has been
    /// given back before must not be again, so the job cannot just be dropped.
    mutating func passBrokenNode() {
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
