// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// LIMIT: time that a page may take, far below what a client waits for an answer.
    package static var diffLimit: Duration { .seconds(5) }
    /// LIMIT: blocks of the disk that the first answer of a page looks at, 256 leaves of a tree:
    /// on a slow disk one answer about all of a large one could take minutes.
    private static var diffWindow: UInt64 { 256 * UInt64(radixFanout) }
    /// Answers that come faster are asked for twice as much, others for half.
    private static var quickDiff: Duration { .milliseconds(100) }

    /// One page of how `to` differs from `from`. Holds no lock: a version that goes away between
    /// two pages is an error then, and a head may change meanwhile.
    package func diff(
        from: VersionName, to: VersionName, offset: UInt64
    ) async throws(ControlError) -> DiffPage {
        let block = UInt64(blockBytes)
        guard offset.isMultiple(of: block) else {
            throw ControlError(.invalid, "the offset \(offset) is no multiple of \(block) bytes")
        }
        let (old, new) = (try version(from), try version(to))
        guard old.entry.shard == new.entry.shard else {
            throw ControlError(
                .invalid,
                "\(old.title) and \(new.title) cannot be compared: they have no common ancestor "
                    + "and are on different shards")
        }
        try requireRunning()
        let end = max(try await blockCount(of: old), try await blockCount(of: new))
        let shard = shard(of: new.entry)
        var page = DiffPage(
            from: old.name.description, to: new.name.description, ranges: [], next: nil)
        var query = DiffQuery(old: old.reference, new: new.reference)
        var position = offset / block
        var window = Self.diffWindow
        let clock = ContinuousClock()
        let deadline = clock.now + diffLimit
        repeat {
            // Shards that are stopping compare no more.
            try requireRunning()
            query.firstBlock = position
            query.endBlock = max(position, min(position + window, end))
            let start = clock.now
            let answer = try await translatingErrors { [query] in try await shard.compare(query) }
            for range in answer.ranges { page.append(range) }
            position = answer.nextBlock ?? query.endBlock
            let isQuick = clock.now - start < Self.quickDiff
            window = max(Self.diffWindow, min(isQuick ? window * 2 : window / 2, end))
        } while position < end && page.ranges.count < DiffPage.rangeLimit && clock.now < deadline
        page.next = position < end ? position * block : nil
        return page
    }

    /// Nothing is beyond it. 0 for a snapshot that has been deleted meanwhile.
    private func blockCount(of version: Version) async throws(ControlError) -> UInt64 {
        guard let snapshot = version.snapshot else {
            return version.entry.sizeBytes / UInt64(blockBytes)
        }
        let found = try await summaries([snapshot.identifier], shard: version.entry.shard)
        return (found.first?.sizeBytes ?? 0) / UInt64(blockBytes)
    }
}

extension DiffPage {
    fileprivate mutating func append(_ range: DiffRange) {
        let block = UInt64(blockBytes)
        let kind: Kind =
            switch range.kind {
            case .changed: .changed
            case .zeroed: .zeroed
            case .discarded: .discarded
            }
        ranges.appendMerging(
            Range(offset: range.firstBlock * block, length: range.blockCount * block, kind: kind))
    }
}
