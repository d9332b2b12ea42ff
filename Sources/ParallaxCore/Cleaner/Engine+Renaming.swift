// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Keeping the table of forwards small. A head takes up the places of moved blocks as their names
/// whenever it writes the leaf (`RadixForest.renameMoved`); leaves that nobody writes are gone
/// through here when enough names have been added. What is left are blocks of snapshots: their
/// nodes never change, and their names live as long as they.
struct RenamingSweep {
    /// The head that is gone through, and the block up to which it has been; nil: none.
    var handle: Int?
    var cursor: UInt64 = 0
    /// Names that had been added when the last one began.
    var namesAtStart: UInt64 = 0
    /// The node that it waits for, and how many blocks are below that.
    var awaited: BlockAddress?
    var awaitedSpan: UInt64 = 0

    /// The node cannot be read. What is below it cannot be renamed.
    mutating func noteBroken(_ address: BlockAddress) {
        guard awaited == address else { return }
        awaited = nil
        cursor = (cursor / awaitedSpan + 1) * awaitedSpan
    }
}

extension Engine {
    /// LIMIT: leaves that a turn looks at, beside guests and without. Each may take 50 µs.
    private static let leavesPerBusyTurn = 2
    private static let leavesPerIdleTurn = 64

    /// Names beyond which a sweep is worth it: a sixteenth of what lives.
    private var namesForSweep: UInt64 {
        UInt64(max(configuration.leastNamesForSweep, forest.extents.liveTotal / 16))
    }

    mutating func advanceRenaming() {
        guard failure == nil, !isWindingDown, beginSweepIfDue() else { return }
        var budget = isServing ? Self.leavesPerBusyTurn : Self.leavesPerIdleTurn
        while budget > 0, let handle = renaming.handle {
            budget -= 1
            guard catalog.vdis[handle].kind == .head, !catalog.vdis[handle].isDeleting else {
                goOnToNextHead(behind: handle)
                continue
            }
            guard renameLeaf(handle) else { return }
        }
    }

    private mutating func beginSweepIfDue() -> Bool {
        if renaming.handle != nil { return true }
        guard !forest.forwards.isEmpty,
            forest.namesForwarded - renaming.namesAtStart >= namesForSweep
        else { return false }
        renaming = RenamingSweep(handle: 0, namesAtStart: forest.namesForwarded)
        if catalog.count == 0 { renaming.handle = nil }
        return renaming.handle != nil
    }

    private mutating func goOnToNextHead(behind handle: Int) {
        renaming.cursor = 0
        renaming.handle = handle + 1 < catalog.count ? handle + 1 : nil
    }

    /// Goes through the next leaf. False: it has to wait.
    private mutating func renameLeaf(_ handle: Int) -> Bool {
        let vdi = catalog.vdis[handle]
        guard renaming.cursor < VDI.span(levels: vdi.levels) else {
            goOnToNextHead(behind: handle)
            return true
        }
        let block = renaming.cursor
        renaming.awaited = nil
        // Before the walk: making room may throw its path out.
        let hasFrames = mayDirtyNodes && forest.cache.ensureFree(RadixForest.framesPerChange)
        switch forest.walk(vdi, to: block, mayLoad: mayLoadAside) {
        case .hole(let end): renaming.cursor = end
        case .leaf(let leaf):
            if forest.wantsRenaming(leaf, vdi) {
                guard hasFrames else { return false }
                catalog.touch(handle)
                let writable = forest.writableLeaf(&catalog.vdis[handle], for: block)
                forest.renameMoved(writable, catalog.vdis[handle])
                changesSinceFreeze += 1
            }
            renaming.cursor = (block / UInt64(radixFanout) + 1) * UInt64(radixFanout)
        case .loading(let frame):
            let node = forest.cache.frames[frame]
            renaming.awaited = node.address
            renaming.awaitedSpan = VDI.span(levels: Int(node.level) + 1)
            sendNodeLoads()
            return false
        case .starved:
            sendNodeLoads()
            return false
        }
        return true
    }

    /// Whether there are frames, and log for the checkpoint, as there must be for a write.
    private var mayDirtyNodes: Bool {
        let frames = (stagedOperations + 1) * RadixForest.framesPerChange
        return forest.cache.replayBound + frames <= frameLimit / 2
            && usableBlocks >= blocksToLeave(by: .data)
    }
}
