// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a full walk of all trees finds, beside what the tables say.
package struct EngineCensus: Sendable {
    /// Distinct blocks to which anything refers, by extent: data, nodes, record pages.
    package var liveBlocks: [UInt64: Int] = [:]
    /// The same by the table of extents. Extents without live blocks are in neither.
    package var countedBlocks: [UInt64: Int] = [:]
    /// What each visible snapshot alone holds, in blocks, and what is recorded of it (nil: not
    /// counted yet).
    package var exclusiveBlocks: [SnapshotIdentifier: UInt64] = [:]
    package var recordedExclusive: [SnapshotIdentifier: UInt64?] = [:]
    package var liveNodes = 0
    package var countedNodes = 0
    /// Live data blocks that were found, and those that VDIs and versions are charged with.
    package var dataBlocks = 0
    package var bornBlocks: UInt64 = 0
    package var problems: [String] = []

    package init() {}
}

/// Walks every tree from its root, in no hurry: for tests and for checks, never for requests.
private struct CensusTaker {
    /// Places of blocks seen so far; nodes are gone into once.
    var nodes: Set<UInt64> = []
    var blocks: Set<UInt64> = []
    var census = EngineCensus()
    let load: (UInt64, UnsafeMutableRawPointer) -> Void
    /// Which nodes of the tree under way are given back already.
    var deletion: ReclaimJob?

    /// A block at this place lives.
    mutating func note(_ address: BlockAddress) {
        if blocks.insert(address.rawValue).inserted {
            census.liveBlocks[address.extent.rawValue, default: 0] += 1
        }
    }
}

extension Engine {
    /// `load` copies the block at an offset of the store, for nodes that are not in memory.
    package func census(
        includingExclusive: Bool = true, load: @escaping (UInt64, UnsafeMutableRawPointer) -> Void
    ) -> EngineCensus {
        var taker = CensusTaker(load: load)
        var owners: [RecordOwner] = []
        for handle in 0..<catalog.count where catalog.vdis[handle].kind == .head {
            owners.append(.vdi(handle))
        }
        for row in 0..<catalog.versions.count where catalog.versions[row].state != .free {
            owners.append(.version(row))
        }
        // What is being given back comes last: what it shares with others is whole.
        let job = catalog.reclaim.job.flatMap { $0.purpose == .free ? $0 : nil }
        for owner in owners where owner != job?.target { visit(catalog.tree(of: owner), &taker) }
        if let job {
            taker.deletion = job
            visit(catalog.tree(of: job.target), &taker)
            taker.deletion = nil
        }
        taker.census.dataBlocks = taker.blocks.count - taker.nodes.count
        for reference in catalog.pages.pages.map(\.reference) + catalog.pages.index
        where !reference.isHole {
            taker.note(reference.address)
        }
        for page in forest.forwards.pages where !page.reference.isHole {
            taker.note(page.reference.address)
        }
        for reference in forest.forwards.abandoned { taker.note(reference.address) }
        for reference in forest.extents.livePages.references where !reference.isHole {
            taker.note(reference.address)
        }
        compareBits(&taker)
        taker.census.liveNodes = taker.nodes.count
        for handle in 0..<catalog.count where catalog.vdis[handle].kind == .head {
            taker.census.bornBlocks += catalog.vdis[handle].bornBlocks
            taker.census.bornBlocks -= catalog.vdis[handle].freedOfParent
        }
        for row in 0..<catalog.versions.count where catalog.versions[row].state != .free {
            taker.census.bornBlocks += catalog.versions[row].bornBlocks
        }
        taker.census.countedNodes = forest.liveNodes
        notePinnedFrames(&taker)
        notePendingCharges(&taker)
        for index in 0..<forest.extents.count where forest.extents[index].live > 0 {
            let extent = forest.extents[index]
            taker.census.countedBlocks[extent.number.rawValue] = Int(extent.live)
        }
        if includingExclusive { countExclusive(&taker) }
        return taker.census
    }

    /// Whether the live bits are those of the blocks that were found.
    private func compareBits(_ taker: inout CensusTaker) {
        var wrong = 0
        var first = ""
        for index in 0..<forest.extents.count {
            let extent = forest.extents[index]
            for block in 0..<superblock.extentBlocks {
                let place = BlockAddress(extent: extent.number, block: block)
                let isLive = taker.blocks.contains(place.rawValue)
                guard extent.bits[block] != isLive else { continue }
                wrong += 1
                if first.isEmpty {
                    first = "block \(block) of extent \(extent.number.rawValue) lives: \(isLive)"
                }
            }
        }
        if wrong > 0 { taker.census.problems.append("\(wrong) live bits are wrong: \(first)") }
        let names = forest.forwards.count
        var places: Set<UInt64> = []
        forest.forwards.forEach { _, place in places.insert(place.rawValue) }
        if places.count != names || !places.isSubset(of: taker.blocks) {
            taker.census.problems.append(
                "of \(names) forwards \(places.intersection(taker.blocks).count) lead to a live block"
            )
        }
    }

    /// Between checkpoints nobody holds a node that is in the store by its frame: it could not be evicted.
    private func notePinnedFrames(_ taker: inout CensusTaker) {
        guard checkpoint.phase == .idle else { return }
        let pinned = (0..<forest.cache.frameCount).count { frame in
            forest.cache.frames[frame].state == .clean && forest.cache.frames[frame].references > 0
        }
        if pinned > 0 { taker.census.problems.append("\(pinned) clean nodes cannot be evicted") }
    }

    /// What is charged in advance is given back by the last part of each request.
    private func notePendingCharges(_ taker: inout CensusTaker) {
        guard requests.usedCount == 0 else { return }
        for handle in 0..<catalog.count where catalog.vdis[handle].pendingCharge > 0 {
            taker.census.problems.append("\(catalog.names[handle]) is charged for nothing")
        }
    }

    private func visit(_ tree: TreeRoot, _ taker: inout CensusTaker) {
        guard tree.levels > 0 else { return }
        visit(tree.root, level: tree.levels - 1, block: 0, &taker)
    }

    private func visit(
        _ reference: BlockReference, level: Int, block: UInt64, _ taker: inout CensusTaker
    ) {
        guard !reference.isHole else { return }
        if let job = taker.deletion {
            if job.level > level || (job.level == level && block < job.cursor) { return }
        }
        guard let (entries, address) = content(reference, &taker) else { return }
        if let address {
            guard taker.nodes.insert(address.rawValue).inserted else { return }
            taker.note(forest.place(of: address))
        }
        let width = VDI.span(levels: level)
        for slot in 0..<radixFanout where !entries[slot].isHole {
            if level == 0 {
                taker.note(forest.place(of: entries[slot].address))
            } else {
                visit(
                    entries[slot], level: level - 1, block: block + UInt64(slot) * width, &taker)
            }
        }
    }

    /// A copy of a node's entries, and its place if it has one.
    private func content(
        _ reference: BlockReference, _ taker: inout CensusTaker
    ) -> ([BlockReference], BlockAddress?)? {
        var frame: Int?
        var address: BlockAddress? = reference.address
        if reference.address.isResident {
            let resident = reference.address.residentFrame
            frame = resident
            let state = forest.cache.frames[resident]
            address = state.state == .dirty || state.isHole ? nil : state.address
        } else if let found = forest.cache.find(reference.address),
            forest.cache.frames[found].state != .loading
        {
            frame = found
        }
        if let frame { return (Self.entries(at: forest.cache.content(frame)), address) }
        let block = BlockBuffer()
        let place = forest.place(of: reference.address)
        if let slot = forest.extents.slot(of: place) {
            taker.load(superblock.byteOffset(slot: slot, block: place.block), block.base)
            if Checksum.ofBlock(block.base) == reference.checksum {
                return (Self.entries(at: block.base), address)
            }
        }
        taker.census.problems.append(
            "the node at block \(reference.address.block) of extent "
                + "\(reference.address.extent.rawValue) cannot be read")
        return nil
    }

    /// A copy of a node's entries.
    static func entries(at base: UnsafeRawPointer) -> [BlockReference] {
        Array(
            UnsafeBufferPointer(
                start: base.assumingMemoryBound(to: BlockReference.self), count: radixFanout))
    }

    private func countExclusive(_ taker: inout CensusTaker) {
        for row in 0..<catalog.versions.count where catalog.isVisible(row) {
            let version = catalog.versions[row]
            taker.census.recordedExclusive[version.identifier] = .some(
                catalog.exclusiveBytes(row: row).map { $0 / UInt64(blockBytes) })
            guard version.childCount < 2 else {
                taker.census.exclusiveBlocks[version.identifier] = 0
                continue
            }
            var others = blocks(of: catalog.tree(of: version.firstChild), &taker)
            if version.parent >= 0 {
                let parent = catalog.versions[Int(version.parent)].tree
                others.formUnion(blocks(of: parent, &taker))
            }
            let mine = blocks(of: version.tree, &taker)
            taker.census.exclusiveBlocks[version.identifier] = UInt64(
                mine.subtracting(others).count)
        }
    }

    /// The places of a tree's data blocks.
    private func blocks(of tree: TreeRoot, _ taker: inout CensusTaker) -> Set<UInt64> {
        var found: Set<UInt64> = []
        if tree.levels > 0 { collect(tree.root, level: tree.levels - 1, &found, &taker) }
        return found
    }

    private func collect(
        _ reference: BlockReference, level: Int, _ found: inout Set<UInt64>,
        _ taker: inout CensusTaker
    ) {
        guard !reference.isHole, let (entries, _) = content(reference, &taker) else { return }
        for slot in 0..<radixFanout where !entries[slot].isHole {
            if level == 0 {
                found.insert(entries[slot].address.rawValue)
            } else {
                collect(entries[slot], level: level - 1, &found, &taker)
            }
        }
    }
}
