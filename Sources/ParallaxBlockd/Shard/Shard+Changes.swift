// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore

/// Changes of the catalogue that were asked for together.
struct ChangeBatch {
    var results: [CatalogResult?]
    var missing: Int
    var reply: ShardReply<[CatalogResult]>
    /// The group that they are members of; 0: none.
    var group: UInt64
}

/// A change whose answer has not come.
struct PendingChange {
    var batch: UInt64
    var index: Int
}

/// A group snapshot that has members on this shard.
struct OpenGroup {
    var cut: GroupCut
    var memberCount: Int
    var cutCount = 0
    var answerCount = 0
    var failureCount = 0
    var reportedCount = 0
    var isReleased = false

    /// Members that need no more waiting for. An answer says so too, should it come first.
    var arrivedCount: Int { max(cutCount + failureCount, answerCount) }
}

extension Shard where ShardReactor: ~Copyable {
    mutating func submit(
        _ batch: [CatalogChange], _ cut: GroupCut?, _ reply: ShardReply<[CatalogResult]>
    ) {
        guard !batch.isEmpty else {
            reply.resume(returning: [])
            return
        }
        let number = nextTicket
        nextTicket += 1
        batches[number] = ChangeBatch(
            results: Array(repeating: nil, count: batch.count), missing: batch.count,
            reply: reply, group: cut?.group ?? 0)
        if let cut { groups[cut.group] = OpenGroup(cut: cut, memberCount: batch.count) }
        for (index, change) in batch.enumerated() {
            let ticket = nextTicket
            nextTicket += 1
            changes[ticket] = PendingChange(batch: number, index: index)
            engine.submit(change: change, ticket: ticket)
        }
    }

    /// Passes the engine's answers on, now that the changes are durable.
    mutating func answerChanges() {
        reportCuts()
        while let answer = engine.nextChangeReply() {
            guard let pending = changes.removeValue(forKey: answer.ticket) else { continue }
            switch answer.result {
            case .success(let outcome):
                switch outcome {
                case .vdi(let vdi), .rollback(let vdi, _): noteChanged(vdi)
                case .snapshot, .group: break
                }
                finish(pending, .success(outcome))
            case .failure(let error):
                finish(pending, .failure(explain(error)))
            }
        }
        while let reply = engine.nextDiffReply() {
            guard let waiter = comparisons.removeValue(forKey: reply.ticket) else { continue }
            switch reply.result {
            case .success(let answer): waiter.resume(returning: answer)
            case .failure(let error): waiter.resume(throwing: explain(error))
            }
        }
    }

    private mutating func finish(_ pending: PendingChange, _ result: CatalogResult) {
        guard var batch = batches.removeValue(forKey: pending.batch) else { return }
        batch.results[pending.index] = result
        batch.missing -= 1
        if batch.group != 0 { noteAnswer(of: batch.group, result) }
        guard batch.missing > 0 else {
            if groups[batch.group]?.isReleased == true { groups[batch.group] = nil }
            batch.reply.resume(returning: batch.results.compactMap(\.self))
            return
        }
        batches[pending.batch] = batch
    }

    /// Tells the group of the members that were cut in this turn.
    private mutating func reportCuts() {
        while let group = engine.nextCut() {
            groups[group]?.cutCount += 1
            // Given up before this member was cut: nobody will release it again.
            if groups[group]?.isReleased != false { engine.releaseGroup(group) }
            reportArrivals(group)
        }
    }

    private mutating func noteAnswer(of group: UInt64, _ result: CatalogResult) {
        groups[group]?.answerCount += 1
        if case .failure = result {
            groups[group]?.failureCount += 1
            groups[group]?.cut.giveUp()
        }
        reportArrivals(group)
    }

    private mutating func reportArrivals(_ group: UInt64) {
        guard let open = groups[group], open.arrivedCount > open.reportedCount else { return }
        groups[group]?.reportedCount = open.arrivedCount
        open.cut.arrive(open.arrivedCount - open.reportedCount)
    }

    mutating func releaseGroup(_ group: UInt64) {
        engine.releaseGroup(group)
        guard let open = groups[group] else { return }
        // Kept until the last member is answered: one may still be cut.
        groups[group]?.isReleased = true
        if open.answerCount == open.memberCount { groups[group] = nil }
    }

    mutating func compare(_ query: DiffQuery, _ reply: ShardReply<DiffAnswer>) {
        let ticket = nextTicket
        nextTicket += 1
        comparisons[ticket] = reply
        engine.submit(diff: query, ticket: ticket)
    }
}

private func explain(_ error: DiffError) -> ControlError {
    switch error {
    case .noSuchVersion:
        ControlError(.notFound, "one of the two versions has been deleted meanwhile")
    case .ioError:
        ControlError(
            .ioError, "the versions cannot be compared: the store cannot be read there")
    }
}

private func explain(_ error: CatalogError) -> ControlError {
    switch error {
    case .noSuchVDI: ControlError(.notFound, "There is no such VDI.")
    case .invalidSize:
        ControlError(
            .invalid, "The size is not possible; use a multiple of 4K from 1M to 64T.")
    case .invalidName: ControlError(.invalid, "The name is empty or too long.")
    case .tooManyVDIs:
        ControlError(.noSpace, "The shard has too many VDIs; delete some first.")
    case .noSuchSnapshot: ControlError(.notFound, "There is no such snapshot.")
    case .invalidDetails:
        ControlError(
            .invalid, "Name, comment, labels and holds are longer than there is room for.")
    case .tooManySnapshots:
        ControlError(.noSpace, "The shard has too many snapshots; delete some first.")
    case .tooManyEpochs:
        ControlError(.noSpace, "The VDI has had 2^32 snapshots; copy it and go on there.")
    case .held: ControlError(.held, "The snapshot is held; release it first.")
    case .inUse: ControlError(.attached, "It is being read just now; detach it first.")
    case .noSuchGroup: ControlError(.notFound, "There is no such group.")
    case .noSpace:
        ControlError(
            .noSpace, "The store is full; delete a VDI or snapshots, or grow the store.")
    case .ioError:
        ControlError(
            .ioError, "The store cannot be written any more; see the daemon's log.")
    }
}
