// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Bringing a stream that was opened for inspection to a state in which it can serve again: the books
/// are made to say what a walk has found, and the log goes on where nothing lives.
extension Engine {
    /// `walk` is one through this engine, as it is now.
    mutating func mend(_ walk: TreeWalk) {
        dropAstrayForwards(walk)
        adoptBits(walk)
        forest.liveNodes = walk.liveNodes
        // What the log said of blocks that the books did not know: from here on they do.
        forgetContradictions()
        mendAccounts(walk)
        mostClaimed = appliedLSN
        continueBehindWhatLives()
        touchAllPages()
        changesSinceFreeze += 1
        // The log says nothing of all this.
        forest.extents.holdAll()
        inspection = nil
    }

    private mutating func dropAstrayForwards(_ walk: TreeWalk) {
        var astray: [BlockAddress] = []
        forest.forwards.forEach { name, place in
            if isAstray(name, place, walk) { astray.append(name) }
        }
        forest.dropForwards(astray)
    }

    /// What is beneath a node that cannot be read stays as it is: a later read of the node may succeed,
    /// and must not find other data there.
    private mutating func adoptBits(_ walk: TreeWalk) {
        var walk = walk
        forest.forwards.forEach { _, place in
            _ = walk.note(place, extentBlocks: superblock.extentBlocks)
        }
        for index in 0..<forest.extents.count {
            forest.extents.adoptBits(
                index, walk.found[forest.extents[index].number.rawValue],
                keepsOthers: walk.hasLostNodes)
        }
    }

    private mutating func mendAccounts(_ walk: TreeWalk) {
        for row in 0..<catalog.versions.count where catalog.versions[row].state != .free {
            let account = walk.versions[row] ?? TreeWalk.Account()
            catalog.versions[row].bornBlocks = account.born
            if catalog.reclaim.job?.target != .version(row) {
                catalog.versions[row].allocatedBlocks = account.allocated
            }
            // What each holds alone is counted anew, in the background.
            catalog.versions[row].isCounted = false
            catalog.versions[row].exclusiveBlocks = 0
            catalog.touch(row: row)
            queue(row)
        }
        for handle in 0..<catalog.count where catalog.vdis[handle].kind == .head {
            let account = walk.heads[handle] ?? TreeWalk.Account()
            catalog.vdis[handle].bornBlocks = account.born
            catalog.vdis[handle].bornInVersions = 0
            catalog.vdis[handle].freedOfParent = 0
            if catalog.reclaim.job?.target != .vdi(handle) {
                catalog.vdis[handle].allocatedBlocks = account.allocated
            }
            forgetLosses(handle)
            catalog.touch(handle)
        }
        catalog.sumBirths()
    }

    /// The head's count of what only its parent holds begins again with the parent's.
    private mutating func forgetLosses(_ handle: Int) {
        catalog.vdis[handle].lostBlocks = 0
        catalog.vdis[handle].countedBelow = 0
    }

    /// The log ends where no chunk is whole. Behind that there may be blocks that live, if it was
    /// damage that made the end; they must not be written over.
    private mutating func continueBehindWhatLives() {
        skipSequenceNumbers()
        let last = lastLiving
        guard (last.extent.rawValue, last.block) >= (log.extent.rawValue, log.head) else { return }
        for index in 0..<forest.extents.count {
            let number = forest.extents[index].number
            guard !number.isCold, number <= last.extent else { continue }
            forest.extents.setState(number, number == last.extent ? .open : .sealed)
        }
        while !log.leases.isEmpty, log.leases[0].extent <= last.extent {
            _ = log.leases.popFirst()
        }
        log.extent = last.extent
        log.head = last.block + 1
        log.nextExtent = max(log.nextExtent, last.extent.next)
    }

    /// The last block of the log that lives, or that the log has reached.
    private var lastLiving: BlockAddress {
        var last = BlockAddress(extent: log.extent, block: max(0, log.head - 1))
        for index in 0..<forest.extents.count {
            let extent = forest.extents[index]
            guard !extent.number.isCold, extent.number >= log.extent,
                let block = extent.bits.last(below: superblock.extentBlocks)
            else { continue }
            if (extent.number.rawValue, block) > (last.extent.rawValue, last.block) {
                last = BlockAddress(extent: extent.number, block: block)
            }
        }
        return last
    }

    /// LSNs between those of chunks that were lost and those that come now.
    private static let skippedLSNs: UInt64 = 1 << 32

    /// No LSN is given twice. And behind a cut there are whole chunks still, which say how far the log
    /// had been durable: if it went on from there with the numbers that were lost, they would say of
    /// its new chunks that they had been flushed, and the end of the log would look like damage. So it
    /// goes on far beyond all that they can have named.
    private mutating func skipSequenceNumbers() {
        var next = log.nextLSN
        for index in 0..<forest.extents.count {
            next = max(next, forest.extents[index].lastLSN.next)
        }
        if let inspection, inspection.isLogCut {
            next = max(next, inspection.lastLSNBehindCut)
            next = LogSequenceNumber(next.rawValue + Self.skippedLSNs)
        }
        guard next > log.nextLSN else { return }
        log.nextLSN = next
        appliedLSN = LogSequenceNumber(next.rawValue - 1)
        durableLSN = appliedLSN
    }

    /// Everything that a checkpoint can write anew it does, so that no damaged page is left.
    private mutating func touchAllPages() {
        for page in catalog.pages.pages.indices { catalog.pages.touch(UInt32(page)) }
        for page in forest.forwards.pages.indices { forest.forwards.touch(page) }
        for page in forest.extents.livePages.references.indices {
            forest.extents.livePages.touch(page: page)
        }
    }
}
