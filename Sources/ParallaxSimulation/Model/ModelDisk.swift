// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What one VDI may hold: a history for each block that was ever written.
package final class ModelDisk {
    package let identifier: UInt64
    package var sectorCount: UInt64
    /// Never iterated in hash order where the order could show.
    package var blocks: [UInt64: BlockHistory] = [:]

    /// Zeroings that requests in flight may still turn out to have come before: blocks that were
    /// not tracked when they were acknowledged do not have them in their histories.
    package var recentZeroings: [Stamp] = []

    /// VDIs whose writes a clone has inherited.
    package let ancestors: Set<UInt64>

    package init(identifier: UInt64, sectorCount: UInt64, ancestors: Set<UInt64> = []) {
        self.identifier = identifier
        self.sectorCount = sectorCount
        self.ancestors = ancestors
    }

    /// Begins as `snapshot` is.
    package convenience init(identifier: UInt64, sectorCount: UInt64, from snapshot: ModelSnapshot)
    {
        self.init(
            identifier: identifier, sectorCount: sectorCount,
            ancestors: snapshot.ancestors.union([snapshot.vdi]))
        for (block, value) in snapshot.content {
            var history = BlockHistory()
            history.base = value
            history.current = value
            blocks[block] = history
        }
        for block in snapshot.undecided.keys {
            var history = BlockHistory()
            history.forget()
            blocks[block] = history
        }
    }

    func mayHold(writesTo vdi: UInt64) -> Bool { vdi == identifier || ancestors.contains(vdi) }

    package var trackedBlocks: [UInt64] { blocks.keys.sorted() }

    /// Calls `body` for each block of `mutation`. A block that nobody wrote to reads as zeros
    /// before and after a zeroing, so zeroings (which may span terabytes) skip those.
    func forEachBlock(
        of mutation: Mutation, _ body: (UInt64, inout BlockHistory, SectorMask) -> Void
    ) {
        if !mutation.isZeroing {
            for block in mutation.blocks {
                body(block, &blocks[block, default: BlockHistory()], mutation.mask(in: block))
            }
            return
        }
        let range = mutation.blocks
        let affected =
            range.count > blocks.count
            ? blocks.keys.filter { range.contains($0) } : range.filter { blocks[$0] != nil }
        for block in affected {
            body(block, &blocks[block, default: BlockHistory()], mutation.mask(in: block))
        }
    }
}
