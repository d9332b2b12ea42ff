// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Comparisons of two snapshots, compared with what the model says.
extension SimulatedHost {
    /// Both must be decided. `old` nil: an empty disk.
    func submitDiff(
        _ old: GuestSnapshot?, _ new: GuestSnapshot, blocks: Range<UInt64>? = nil
    ) {
        let stream = streams[new.stream]
        guard let engine = stream.engine, let model = model(of: new) else { return }
        nextTicket += 1
        var query = DiffQuery(
            old: old.map { .snapshot(SnapshotIdentifier($0.identifier)) },
            new: .snapshot(SnapshotIdentifier(new.identifier)))
        if let blocks {
            query.firstBlock = blocks.lowerBound
            query.endBlock = blocks.upperBound
        }
        stream.diffs[nextTicket] = DiffInFlight(
            query: query, old: old.flatMap { self.model(of: $0) }, new: model)
        trace.note(.diff, nextTicket, "diff \(nextTicket): \(query)")
        engine.submit(diff: query, ticket: nextTicket)
    }

    func drainDiffReplies(_ stream: SimulatedStream) throws(SimulationFailure) {
        while let reply = stream.engine?.nextDiffReply() {
            trace.note(.diff, reply.ticket, "diff \(reply.ticket): \(reply.result)")
            guard var diff = stream.diffs.removeValue(forKey: reply.ticket) else {
                throw SimulationFailure("answer to diff \(reply.ticket), which was not waiting")
            }
            switch reply.result {
            case .success(let answer):
                diff.ranges += answer.ranges
                try checkShape(of: answer, diff, reply.ticket)
                if let next = answer.nextBlock {
                    diff.query.firstBlock = next
                    stream.diffs[reply.ticket] = diff
                    stream.engine?.submit(diff: diff.query, ticket: reply.ticket)
                } else {
                    statistics.diffs += 1
                    try check(diff, reply.ticket)
                }
            case .failure(.noSuchVersion):
                let versions = [diff.old, diff.new].compactMap { $0?.identifier }
                let isGone = versions.contains { identifier in
                    snapshots[identifier].map { !isReadable($0) } ?? true
                }
                guard isGone else {
                    throw SimulationFailure("diff \(reply.ticket): no such version")
                }
            case .failure(.ioError):
                guard mayFail(stream) else {
                    throw SimulationFailure("diff \(reply.ticket) failed for no reason")
                }
            }
        }
    }

    /// Ranges are in order, do not overlap, and stay within what was asked and answered.
    private func checkShape(
        of answer: DiffAnswer, _ diff: DiffInFlight, _ ticket: UInt64
    ) throws(SimulationFailure) {
        var position = diff.query.firstBlock
        for range in answer.ranges {
            let (end, overflow) = range.firstBlock.addingReportingOverflow(range.blockCount)
            guard range.blockCount > 0, range.firstBlock >= position, !overflow,
                end <= min(diff.query.endBlock, answer.nextBlock ?? .max)
            else {
                throw SimulationFailure("diff \(ticket): range \(range) after block \(position)")
            }
            position = end
        }
        if let next = answer.nextBlock, next <= diff.query.firstBlock {
            throw SimulationFailure("diff \(ticket) goes back to block \(next)")
        }
    }

    private func check(_ diff: DiffInFlight, _ ticket: UInt64) throws(SimulationFailure) {
        guard !hasLostTrust else { return }
        let zeros = BlockValue(repeating: 0)
        let bounds = diff.firstAsked..<diff.query.endBlock
        var kinds: [UInt64: DiffRange.Kind] = [:]
        let tracked = Set((diff.old?.trackedBlocks ?? []) + diff.new.trackedBlocks).sorted()
            .filter { bounds.contains($0) }
        var index = 0
        for range in diff.ranges {
            while index < tracked.count, tracked[index] < range.firstBlock { index += 1 }
            while index < tracked.count, tracked[index] < range.firstBlock + range.blockCount {
                kinds[tracked[index]] = range.kind
                index += 1
            }
        }
        for block in tracked {
            let old = diff.old?.content[block] ?? zeros
            let new = diff.new.content[block] ?? zeros
            switch kinds[block] {
            case nil where old != new:
                throw SimulationFailure(
                    "diff \(ticket): block \(block) differs, \(old) and \(new), and is not named")
            case .zeroed where new != zeros, .discarded where new != zeros:
                throw SimulationFailure(
                    "diff \(ticket): block \(block) is said to read as zeros and is \(new)")
            default: break
            }
        }
    }
}
