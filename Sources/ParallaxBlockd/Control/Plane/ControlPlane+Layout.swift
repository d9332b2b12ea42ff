// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// LIMIT: places of a disk that are looked at, and leaves of its tree at each: 2 GiB of data in all.
    private static var layoutSamples: UInt64 { 32 }
    private static var leavesPerSample: Int { 64 }

    /// How the blocks of a VDI lie in the store: all of them, or of a large disk those at places spread
    /// evenly over it. Holes take no time.
    func layout(
        of entry: Entry, sizeBytes: UInt64
    ) async throws(ControlError) -> LayoutDescription {
        let shard = shard(of: entry)
        let blocks = sizeBytes / UInt64(blockBytes)
        var (sum, isWhole) = (DiskLayout(), true)
        var position: UInt64 = 0
        for sample in 0..<Self.layoutSamples {
            try requireRunning()
            let start = blocks / Self.layoutSamples * sample
            // Leaves that are looked at follow each other across holes.
            if position < start {
                position = start
                isWhole = false
            }
            var query = DiffQuery(old: nil, new: .head(entry.identifier), firstBlock: position)
            query.layoutOfLeaves = Self.leavesPerSample
            let answer = try await translatingErrors { [query] in try await shard.compare(query) }
            sum += answer.layout
            guard let next = answer.nextBlock else { break }
            position = next
            if sample == Self.layoutSamples - 1 { isWhole = false }
        }
        return LayoutDescription(
            meanRunBytes: sum.blockCount * UInt64(blockBytes) / max(sum.runCount, 1),
            lookedAtBytes: sum.blockCount * UInt64(blockBytes), isWhole: isWhole)
    }
}
