// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// To whom the stored blocks are charged. A data block is *born* in the head through which it was
/// written; a snapshot takes over what was born in its head; the child of a version that is given
/// back takes over what is left. So births add up to the blocks that are stored, and a VDI is
/// charged with those of its head and its snapshots.
///
/// I1 the sum of `bornBlocks` over all heads and versions is the number of live data blocks.
/// I2 a VDI's `bornInVersions` is the sum over the versions that name it, deleted ones included.
extension Catalog {
    /// The head has become a version.
    mutating func moveBirths(from handle: Int, to row: Int) {
        let born = vdis[handle].bornBlocks
        vdis[handle].bornBlocks = 0
        versions[row].bornBlocks = born
        vdis[handle].bornInVersions += born
    }

    /// Blocks of what is being given back are free.
    mutating func noteFreed(_ count: UInt64, of owner: RecordOwner) {
        guard count > 0 else { return }
        if let row = owner.row {
            takeBirths(count, from: row)
        } else if let handle = owner.handle {
            if !vdis[handle].bornBlocks.takeOff(count) { isContradicted = true }
            touch(handle)
        }
    }

    /// Takes over what a head has let go of for its parent.
    mutating func settleFreed(head: Int, parent row: Int) {
        let freed = vdis[head].freedOfParent
        guard freed > 0 else { return }
        vdis[head].freedOfParent = 0
        takeBirths(freed, from: row)
    }

    /// The version vanishes, and its only child, if there is one, owns what is left.
    mutating func bequeath(_ row: Int, to child: VersionLink) {
        if let head = child.handle { settleFreed(head: head, parent: row) }
        let born = versions[row].bornBlocks
        setBirths(row, to: 0)
        if let below = child.row {
            setBirths(below, to: versions[below].bornBlocks + born)
        } else if let head = child.handle {
            vdis[head].bornBlocks += born
            touch(head)
        }
    }

    private mutating func takeBirths(_ count: UInt64, from row: Int) {
        var left = versions[row].bornBlocks
        if !left.takeOff(count) { isContradicted = true }
        setBirths(row, to: left)
    }

    private mutating func setBirths(_ row: Int, to new: UInt64) {
        let old = versions[row].bornBlocks
        versions[row].bornBlocks = new
        touch(row: row)
        guard let handle = handle(of: versions[row].vdi).map(Int.init) else { return }
        // Wraps only where `sumBirths` has found a contradiction.
        vdis[handle].bornInVersions = vdis[handle].bornInVersions &+ new &- old
    }

    /// After loading.
    mutating func sumBirths() {
        for row in 0..<versions.count where versions[row].state != .free {
            guard let handle = handle(of: versions[row].vdi).map(Int.init) else { continue }
            let sum = vdis[handle].bornInVersions + versions[row].bornBlocks
            vdis[handle].bornInVersions = min(sum, Limits.accountBlocks)
            if sum > Limits.accountBlocks { isContradicted = true }
        }
    }
}
