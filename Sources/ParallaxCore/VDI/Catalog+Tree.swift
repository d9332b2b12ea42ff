// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The tree of versions: each version and each head under the version that it continues.
///
/// ```
///   s1 --- s2 --- s3 --- head of A          s2 has two children: it is a branching point
///            \--- s4 --- head of B (a clone)
/// ```
/// I1 `childCount` is the length of the list that begins at `firstChild`.
/// I2 the epoch of a version is greater than its parent's.
extension Catalog {
    /// Puts `link` under `parent` (-1: under none).
    mutating func addChild(_ link: VersionLink, to parent: Int32) {
        setParent(link, parent)
        setNeighbours(link, previous: .none, next: .none)
        guard parent >= 0 else {
            refreshHead(link)
            return
        }
        let first = versions[Int(parent)].firstChild
        setNeighbours(link, previous: .none, next: first)
        if !first.isNone { setPrevious(first, link) }
        versions[Int(parent)].firstChild = link
        versions[Int(parent)].childCount += 1
        refreshHead(link)
        // The one that was alone is so no more.
        if versions[Int(parent)].childCount == 2 { refreshHead(first) }
    }

    /// Takes `link` out from under its parent.
    mutating func removeChild(_ link: VersionLink) {
        let parent = parent(of: link)
        guard parent >= 0 else { return }
        let (previous, next) = neighbours(link)
        if previous.isNone {
            versions[Int(parent)].firstChild = next
        } else {
            setNext(previous, next)
        }
        if !next.isNone { setPrevious(next, previous) }
        versions[Int(parent)].childCount -= 1
        setParent(link, -1)
        setNeighbours(link, previous: .none, next: .none)
        if versions[Int(parent)].childCount == 1 { refreshHead(versions[Int(parent)].firstChild) }
    }

    /// `new` takes the place of `old` under its parent; `old` is under none then.
    mutating func replaceChild(_ old: VersionLink, with new: VersionLink) {
        let parent = parent(of: old)
        let (previous, next) = neighbours(old)
        setParent(new, parent)
        setNeighbours(new, previous: previous, next: next)
        setParent(old, -1)
        setNeighbours(old, previous: .none, next: .none)
        if parent >= 0 {
            if previous.isNone {
                versions[Int(parent)].firstChild = new
            } else {
                setNext(previous, new)
            }
            if !next.isNone { setPrevious(next, new) }
        }
        refreshHead(new)
    }

    /// What a head knows of its parent. To be called when the parent changes, or its parent, or
    /// the number of its children, or whether it is counted.
    mutating func refreshHead(_ link: VersionLink) {
        guard let head = link.handle else { return }
        let parent = vdis[head].version
        vdis[head].reclaimLevel = -1
        vdis[head].reclaimCursor = 0
        if vdis[head].lostBlocks > 0 {
            vdis[head].lostBlocks = 0
            touch(head)
        }
        vdis[head].countedBelow = 0
        vdis[head].snapshotEpoch = 0
        vdis[head].parentFloor = 0
        guard parent >= 0 else { return }
        let version = versions[Int(parent)]
        vdis[head].snapshotEpoch = version.epoch
        vdis[head].parentFloor = version.epoch
        guard version.childCount == 1 else { return }
        vdis[head].parentFloor = floor(Int(parent))
        if version.isCounted { vdis[head].countedBelow = .max }
    }

    /// Births up to here are in the version's parent too.
    func floor(_ row: Int) -> UInt32 {
        let parent = versions[row].parent
        return parent >= 0 ? versions[Int(parent)].epoch : 0
    }

    func tree(of link: VersionLink) -> TreeRoot {
        if let row = link.row { return versions[row].tree }
        if let handle = link.handle { return vdis[handle].tree }
        return .empty
    }

    func tree(of owner: RecordOwner) -> TreeRoot { tree(of: owner.link) }
    func parent(of owner: RecordOwner) -> Int32 { parent(of: owner.link) }

    /// The row of the version that it continues, or -1.
    func parent(of link: VersionLink) -> Int32 {
        if let row = link.row { return versions[row].parent }
        if let handle = link.handle { return vdis[handle].version }
        return -1
    }

    private mutating func setParent(_ link: VersionLink, _ parent: Int32) {
        if let row = link.row { versions[row].parent = parent }
        if let handle = link.handle { vdis[handle].version = parent }
    }

    private func neighbours(_ link: VersionLink) -> (previous: VersionLink, next: VersionLink) {
        if let row = link.row { return (versions[row].previous, versions[row].next) }
        if let handle = link.handle { return (vdis[handle].previous, vdis[handle].next) }
        return (.none, .none)
    }

    private mutating func setNeighbours(
        _ link: VersionLink, previous: VersionLink, next: VersionLink
    ) {
        setPrevious(link, previous)
        setNext(link, next)
    }

    private mutating func setPrevious(_ link: VersionLink, _ previous: VersionLink) {
        if let row = link.row { versions[row].previous = previous }
        if let handle = link.handle { vdis[handle].previous = previous }
    }

    private mutating func setNext(_ link: VersionLink, _ next: VersionLink) {
        if let row = link.row { versions[row].next = next }
        if let handle = link.handle { vdis[handle].next = next }
    }
}

/// The list of a VDI's snapshots, in the order in which they were made.
extension Catalog {
    mutating func appendSnapshot(_ row: Int, to handle: Int) {
        let last = vdis[handle].lastSnapshot
        versions[row].previousInVDI = last
        versions[row].nextInVDI = -1
        if last >= 0 {
            versions[Int(last)].nextInVDI = Int32(row)
        } else {
            vdis[handle].firstSnapshot = Int32(row)
        }
        vdis[handle].lastSnapshot = Int32(row)
        vdis[handle].snapshotCount += 1
        if versions[row].isHeld { vdis[handle].heldSnapshots += 1 }
    }

    mutating func removeSnapshot(_ row: Int, from handle: Int) {
        let previous = versions[row].previousInVDI
        let next = versions[row].nextInVDI
        if previous >= 0 {
            versions[Int(previous)].nextInVDI = next
        } else {
            vdis[handle].firstSnapshot = next
        }
        if next >= 0 {
            versions[Int(next)].previousInVDI = previous
        } else {
            vdis[handle].lastSnapshot = previous
        }
        versions[row].previousInVDI = -1
        versions[row].nextInVDI = -1
        vdis[handle].snapshotCount -= 1
        if versions[row].isHeld { vdis[handle].heldSnapshots -= 1 }
    }
}
