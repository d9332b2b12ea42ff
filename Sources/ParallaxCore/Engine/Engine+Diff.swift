// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The comparison under way, and those that wait.
struct DiffQueue {
    struct Job {
        var query: DiffQuery
        var ticket: UInt64
        var cursor: UInt64
        var ranges: [DiffRange] = []
        var layout = DiskLayout()
        /// Where the last block was that counted for the layout.
        var last: (block: UInt64, place: BlockAddress)?
        var awaited = BlockAddress.hole
        var isBroken = false
        var nodes = 0
    }

    var job: Job?
    /// Turns in which it could not load a node, since the last pair of leaves.
    var starvedTurns = 0
    var waiting = Fifo<(query: DiffQuery, ticket: UInt64)>()
    var replies = Fifo<DiffReply>()

    var hasWork: Bool { job != nil || !waiting.isEmpty }
    /// There is something to do that waits for no node.
    var hasMore: Bool { job.map { $0.awaited == .hole } ?? !waiting.isEmpty }
}

/// Comparing two versions: their trees side by side, so that the cost is that of the difference,
/// whatever the size of the disk.
extension Engine {
    /// Asks for a comparison; the answer comes from `nextDiffReply`.
    package mutating func submit(diff: DiffQuery, ticket: UInt64) {
        diffs.waiting.append((diff, ticket))
    }

    package mutating func nextDiffReply() -> DiffReply? { diffs.replies.popFirst() }

    /// LIMIT: ranges in one answer; leaves that one answer, and one turn, looks at.
    private static let rangesPerAnswer = 1024
    private static let nodesPerAnswer = 16384
    private static let nodesPerTurn = 64

    mutating func advanceDiffs() {
        guard !isWindingDown else { return }
        var budget = Self.nodesPerTurn
        var places = budget * RadixForest.samePlacesPerNode
        while budget > 0, places > 0, diffs.hasWork {
            if diffs.job == nil, let (query, ticket) = diffs.waiting.popFirst() {
                diffs.job = DiffQueue.Job(
                    query: query, ticket: ticket, cursor: query.firstBlock)
            }
            guard stepDiff(&places) else { return }
            budget -= 1
        }
    }

    /// Looks at one pair of leaves, or passes over `places` at most. False: it has to wait for a node.
    private mutating func stepDiff(_ places: inout Int) -> Bool {
        guard var job = diffs.job else { return false }
        job.awaited = .hole
        guard let new = tree(of: job.query.new), let old = oldTree(job.query) else {
            finish(job, .failure(.noSuchVersion))
            return true
        }
        if job.isBroken {
            finish(job, .failure(.ioError))
            return true
        }
        let comparison = TreeComparison(mine: old, other: new, isSymmetric: true)
        let mayLoad = mayLoadAside
        // What turns out to be the same is not looked at again.
        let difference = forest.nextDifference(
            comparison, from: &job.cursor, places: &places, mayLoad: mayLoad)
        switch difference {
        case .nodes(let mine, let other, let block):
            guard block < job.query.endBlock else {
                finish(job, .success(job.answer(nextBlock: nil)))
                return true
            }
            switch compareLeaves(&job, mine, other, block, mayLoad: mayLoad) {
            case .success: break
            case .failure(let wait):
                diffs.job = job
                return waitForDiffNode(wait.difference)
            }
            job.cursor = block + UInt64(radixFanout)
            job.nodes += 1
            diffs.starvedTurns = 0
            let most = job.query.layoutOfLeaves ?? Self.nodesPerAnswer
            if job.ranges.count >= Self.rangesPerAnswer || job.nodes >= most {
                let next = job.cursor < job.query.endBlock ? job.cursor : nil
                finish(job, .success(job.answer(nextBlock: next)))
            } else {
                diffs.job = job
            }
            return true
        case .paused where job.cursor < job.query.endBlock:
            diffs.job = job
            return true
        case .end, .paused:
            finish(job, .success(job.answer(nextBlock: nil)))
            return true
        case .loading, .starved:
            diffs.job = job
            return waitForDiffNode(difference)
        }
    }

    private mutating func waitForDiffNode(_ difference: RadixForest.Difference) -> Bool {
        if case .loading(let node) = difference {
            diffs.job?.awaited = node.address
            sendNodeLoads()
        } else {
            diffs.job?.awaited = .hole
            diffs.starvedTurns += 1
        }
        return false
    }

    private mutating func finish(_ job: DiffQueue.Job, _ result: Result<DiffAnswer, DiffError>) {
        diffs.job = nil
        diffs.starvedTurns = 0
        diffs.replies.append(DiffReply(ticket: job.ticket, result: result))
    }

    private func oldTree(_ query: DiffQuery) -> TreeRoot? {
        guard let old = query.old else { return .empty }
        return tree(of: old)
    }

    private func tree(of version: VersionReference) -> TreeRoot? {
        switch version {
        case .head(let identifier): handle(of: identifier).map { catalog.vdis[Int($0)].tree }
        case .snapshot(let identifier):
            visibleRow(of: identifier).map { catalog.versions[$0].tree }
        }
    }

    private mutating func compareLeaves(
        _ job: inout DiffQueue.Job, _ mine: BlockReference, _ other: BlockReference,
        _ block: UInt64, mayLoad: Bool
    ) -> Result<Void, RadixForest.Wait> {
        var frames: (old: Int?, new: Int?) = (nil, nil)
        if !mine.isHole {
            switch forest.frame(of: mine, level: 0, block: block, mayLoad: mayLoad) {
            case .success(let frame): frames.old = frame
            case .failure(let wait): return .failure(wait)
            }
        }
        if !other.isHole {
            switch forest.frame(of: other, level: 0, block: block, mayLoad: mayLoad) {
            case .success(let frame): frames.new = frame
            case .failure(let wait): return .failure(wait)
            }
        }
        let first = max(job.query.firstBlock, block)
        let end = min(job.query.endBlock, block + UInt64(radixFanout))
        var position = first
        while position < end {
            let slot = Int(position % UInt64(radixFanout))
            let before = frames.old.map { forest.cache.entries($0)[slot] } ?? .hole
            let after = frames.new.map { forest.cache.entries($0)[slot] } ?? .hole
            if job.query.layoutOfLeaves != nil {
                if !after.isHole { job.note(position, at: forest.place(of: after.address)) }
            } else if let kind = Self.change(from: before, to: after) {
                job.note(position, kind)
            }
            position += 1
        }
        return .success(())
    }

    private static func change(
        from before: BlockReference, to after: BlockReference
    ) -> DiffRange.Kind? {
        if before.address == after.address { return nil }
        guard after.isHole else { return .changed }
        return after.holeKind == .zeroed ? .zeroed : .discarded
    }
}

extension DiffQueue.Job {
    func answer(nextBlock: UInt64?) -> DiffAnswer {
        DiffAnswer(ranges: ranges, layout: layout, nextBlock: nextBlock)
    }

    mutating func note(_ block: UInt64, at place: BlockAddress) {
        layout.blockCount += 1
        let isNext =
            last.map { $0.block + 1 == block && $0.place.advanced(by: 1) == place } ?? false
        if !isNext { layout.runCount += 1 }
        last = (block, place)
    }

    mutating func note(_ block: UInt64, _ kind: DiffRange.Kind) {
        if let last = ranges.last, last.kind == kind, last.firstBlock + last.blockCount == block {
            ranges[ranges.count - 1].blockCount += 1
        } else {
            ranges.append(DiffRange(firstBlock: block, blockCount: 1, kind: kind))
        }
    }
}
