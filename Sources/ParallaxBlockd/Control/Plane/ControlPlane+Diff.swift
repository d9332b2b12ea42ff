// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// LIMIT: answers of the shard that one page may take, however few ranges are in them.
    private static var diffAnswersPerPage: Int { 64 }

    /// One page of how `to` differs from `from`. Holds no lock: a version that goes away between
    /// two pages is an error then, and a head may change meanwhile.
    package func diff(
        from: VersionName, to: VersionName, offset: UInt64
    ) async throws(ControlError) -> DiffPage {
        try requireRunning()
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
        let shard = shard(of: new.entry)
        var page = DiffPage(
            from: old.name.description, to: new.name.description, ranges: [], next: offset)
        var query = DiffQuery(
            old: old.reference, new: new.reference, firstBlock: offset / block)
        for _ in 0..<Self.diffAnswersPerPage where page.ranges.count < DiffPage.rangeLimit {
            let answer = try await translatingErrors { [query] in try await shard.compare(query) }
            for range in answer.ranges { page.append(range) }
            page.next = answer.nextBlock.map { $0 * block }
            guard let next = answer.nextBlock else { break }
            query.firstBlock = next
        }
        return page
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
