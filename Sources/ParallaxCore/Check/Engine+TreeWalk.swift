// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Walking the trees. For checks, never for requests.
extension Engine {
    /// Walks every tree, parents before children, and last what is being given back: what that shares
    /// with others is whole then.
    func walkTrees(_ walk: inout TreeWalk, medium: some StoreMedium) {
        let job = catalog.reclaim.job.flatMap { $0.purpose == .free ? $0 : nil }
        var pending: [RecordOwner] = []
        for row in 0..<catalog.versions.count
        where catalog.versions[row].state != .free && catalog.versions[row].parent < 0 {
            pending.append(.version(row))
        }
        for handle in 0..<catalog.count
        where catalog.vdis[handle].kind == .head && catalog.vdis[handle].version < 0 {
            pending.append(.vdi(handle))
        }
        while let owner = pending.popLast() {
            if owner != job?.target { walkTree(of: owner, &walk, medium: medium) }
            guard let row = owner.row else { continue }
            var child = catalog.versions[row].firstChild
            while !child.isNone {
                if let below = child.row {
                    pending.append(.version(below))
                    child = catalog.versions[below].next
                } else if let head = child.handle {
                    pending.append(.vdi(head))
                    child = catalog.vdis[head].next
                }
            }
        }
        guard let job else { return }
        walk.deletion = job
        walkTree(of: job.target, &walk, medium: medium)
        walk.deletion = nil
    }

    private func walkTree(
        of owner: RecordOwner, _ walk: inout TreeWalk, medium: some StoreMedium
    ) {
        walk.owner = owner
        walk.hasToldSharing = false
        let parent = catalog.parent(of: owner)
        walk.floor = parent >= 0 ? catalog.versions[Int(parent)].epoch : 0
        let tree = catalog.tree(of: owner)
        var summary = TreeWalk.Summary(level: 0, firstBlock: 0)
        if tree.levels > 0, tree.levels <= Limits.radixLevels {
            summary = visit(
                tree.root, content: nil, level: tree.levels - 1, block: 0, &walk, medium: medium)
        } else if !tree.root.isHole {
            walk.findings.append(
                CheckFinding(
                    .loss, .versions, stream: configuration.stream,
                    "\(describe(owner)) has a tree of \(tree.levels) levels, which is impossible."))
        }
        settle(owner, summary, &walk)
    }

    private func settle(
        _ owner: RecordOwner, _ summary: TreeWalk.Summary, _ walk: inout TreeWalk
    ) {
        let isPartial = summary.damage?.hasLostNodes ?? false || walk.deletion != nil
        if let row = owner.row {
            walk.versions[row, default: TreeWalk.Account()].allocated = summary.mapped
            walk.versions[row]?.isPartial = isPartial
        } else if let handle = owner.handle {
            walk.heads[handle, default: TreeWalk.Account()].allocated = summary.mapped
            walk.heads[handle]?.isPartial = isPartial
        }
        if let damage = summary.damage { noteLosses(damage, of: owner, &walk) }
    }

    /// Only what people can see is lost to them.
    private func noteLosses(
        _ damage: TreeDamage, of owner: RecordOwner, _ walk: inout TreeWalk
    ) {
        var loss = CheckLoss(
            vdi: VDIIdentifier(0), vdiName: "", snapshotName: nil, firstBlock: 0, blockCount: 0,
            reason: .data)
        // What lies behind the end of the disk is nobody's.
        var end = UInt64.max
        if let row = owner.row {
            guard catalog.isVisible(row) else { return }
            loss.vdi = catalog.versions[row].vdi
            loss.snapshotName = catalog.versions.decodedDetails(row).name
        } else if let handle = owner.handle {
            guard !catalog.vdis[handle].isDeleting else { return }
            loss.vdi = catalog.vdis[handle].identifier
            end = catalog.vdis[handle].sizeBlocks
        }
        loss.vdiName = name(of: loss.vdi)
        let room = walk.lossRoom(ofHeads: owner.handle != nil)
        for run in damage.runs(atMost: room) where run.firstBlock < end {
            loss.firstBlock = run.firstBlock
            loss.blockCount = min(run.count, end - run.firstBlock)
            loss.reason = run.reason
            walk.add(loss)
        }
        walk.lossesLeftOut += max(0, damage.runCount - room)
    }

    func describe(_ owner: RecordOwner) -> String {
        if let handle = owner.handle { return "VDI \(catalog.names[handle])" }
        guard let row = owner.row else { return "nothing" }
        let vdi = name(of: catalog.versions[row].vdi)
        guard catalog.isVisible(row) else { return "a deleted snapshot of VDI \(vdi)" }
        return "snapshot \(vdi)@\(catalog.versions.decodedDetails(row).name)"
    }

    func capitalised(_ owner: RecordOwner) -> String {
        let text = describe(owner)
        return text.prefix(1).uppercased() + text.dropFirst()
    }
}

extension Engine {
    /// What is below `reference`. `content`: its entries, if they have been read already.
    private func visit(
        _ reference: BlockReference, content: [BlockReference]?, level: Int, block: UInt64,
        _ walk: inout TreeWalk, medium: some StoreMedium
    ) -> TreeWalk.Summary {
        let empty = TreeWalk.Summary(level: level, firstBlock: block)
        guard !reference.isHole, !isGivenBack(level: level, block: block, walk) else {
            return empty
        }
        if let known = walk.nodes[key(of: reference)] {
            guard known.level == level, known.firstBlock == block else {
                return lose(reference, empty, "stands at two places of the trees", &walk)
            }
            noteShared(reference, &walk)
            return known
        }
        noteNode(reference, &walk)
        guard let entries = content ?? entries(of: reference, medium: medium),
            !entries.contains(where: { !$0.isHole && $0.address.flags > (level == 0 ? 0 : 1) })
        else {
            let fault =
                walk.lostNames.contains(reference.address.rawValue)
                ? "leads nowhere" : "cannot be read or fails its checksum"
            return remember(lose(reference, empty, fault, &walk), reference, &walk)
        }
        let summary =
            level == 0
            ? visitLeaf(entries, reference, block: block, &walk, medium: medium)
            : visitInner(entries, level: level, block: block, &walk, medium: medium)
        return remember(summary, reference, &walk)
    }

    private func remember(
        _ summary: TreeWalk.Summary, _ reference: BlockReference, _ walk: inout TreeWalk
    ) -> TreeWalk.Summary {
        walk.nodes[key(of: reference)] = summary
        return summary
    }

    private func isGivenBack(level: Int, block: UInt64, _ walk: borrowing TreeWalk) -> Bool {
        guard let job = walk.deletion else { return false }
        return job.level > level || (job.level == level && block < job.cursor)
    }

    /// Where the node is in the store; nil: only in memory.
    private func address(of reference: BlockReference) -> BlockAddress? {
        guard reference.address.isResident else { return reference.address }
        let frame = forest.cache.frames[reference.address.residentFrame]
        return frame.state == .dirty || frame.isHole ? nil : frame.address
    }

    private func key(of reference: BlockReference) -> UInt64 {
        (address(of: reference) ?? reference.address).rawValue
    }

    private func noteNode(_ reference: BlockReference, _ walk: inout TreeWalk) {
        guard let address = address(of: reference) else { return }
        let place = forest.place(of: address)
        guard isInStore(place) else {
            walk.lostNames.insert(address.rawValue)
            return
        }
        if place != address { walk.movedNames.insert(address.rawValue) }
        if walk.note(place, extentBlocks: superblock.extentBlocks) {
            walk.liveNodes += 1
        } else {
            walk.noteClash(
                CheckFinding(
                    .loss, .node, stream: configuration.stream,
                    "Block \(place.block) of extent \(place.extent.rawValue) is a radix node and "
                        + "something else, too."))
        }
    }

    /// The walk has found this before. Then the parent of the tree has it too, which owns it: what was
    /// born behind the parent is the tree's own, and is freed when the tree lets go of it. If it was
    /// found all the same, the record of the version is lost that it comes from.
    private func noteShared(_ reference: BlockReference, _ walk: inout TreeWalk) {
        // What is being given back is walked after its child.
        guard reference.birth > walk.floor, walk.deletion == nil, !walk.hasToldSharing,
            let owner = walk.owner
        else { return }
        walk.hasToldSharing = true
        walk.noteClash(
            CheckFinding(
                .loss, .versions, stream: configuration.stream,
                "\(capitalised(owner)) shares blocks with other disks or snapshots, and the snapshot "
                    + "is not there from which they have them."))
    }

    func isInStore(_ place: BlockAddress) -> Bool {
        place.flags == 0 && place.block < superblock.extentBlocks
            && forest.extents.contains(place.extent)
    }

    private func lose(
        _ reference: BlockReference, _ summary: TreeWalk.Summary, _ fault: String,
        _ walk: inout TreeWalk
    ) -> TreeWalk.Summary {
        walk.hasLostNodes = true
        let count = VDI.span(levels: summary.level + 1)
        let last = summary.firstBlock + count - 1
        let place = forest.place(of: reference.address)
        let whose = walk.owner.map { describe($0) } ?? ""
        walk.findings.append(
            CheckFinding(
                .loss, .node, stream: configuration.stream,
                "The radix node of level \(summary.level) in block \(place.block) of extent "
                    + "\(place.extent.rawValue) \(fault): blocks \(summary.firstBlock) to \(last) of "
                    + "\(whose) cannot be had."))
        var lost = summary
        lost.damage = TreeDamage(runs: [
            TreeDamage.Run(firstBlock: summary.firstBlock, count: count, reason: .node)
        ])
        return lost
    }

    private func visitInner(
        _ entries: [BlockReference], level: Int, block: UInt64, _ walk: inout TreeWalk,
        medium: some StoreMedium
    ) -> TreeWalk.Summary {
        var summary = TreeWalk.Summary(level: level, firstBlock: block)
        let width = VDI.span(levels: level)
        let wanted = entries.filter { entry in
            !entry.isHole && !entry.address.isResident
                && walk.nodes[entry.address.rawValue] == nil
                && forest.cache.find(entry.address) == nil
                && isInStore(forest.place(of: entry.address))
        }
        let fetched = fetch(wanted, medium: medium)
        var damaged: [TreeDamage] = []
        var position = 0
        for slot in 0..<radixFanout where !entries[slot].isHole {
            let entry = entries[slot]
            var content: [BlockReference]?
            if position < wanted.count, wanted[position].address == entry.address {
                content = fetched.entries(position)
                position += 1
            }
            let below = visit(
                entry, content: content, level: level - 1, block: block + UInt64(slot) * width,
                &walk, medium: medium)
            summary.mapped += below.mapped
            if let damage = below.damage { damaged.append(damage) }
        }
        summary.damage = TreeDamage.joined(damaged)
        return summary
    }

    private func visitLeaf(
        _ entries: [BlockReference], _ reference: BlockReference, block: UInt64,
        _ walk: inout TreeWalk, medium: some StoreMedium
    ) -> TreeWalk.Summary {
        var summary = TreeWalk.Summary(level: 0, firstBlock: block)
        var fresh: [BlockReference] = []
        var isFresh = [Bool](repeating: false, count: radixFanout)
        for (slot, entry) in entries.enumerated() where !entry.isHole {
            let place = forest.place(of: entry.address)
            guard isInStore(place) else {
                walk.lostNames.insert(entry.address.rawValue)
                continue
            }
            if place != entry.address { walk.movedNames.insert(entry.address.rawValue) }
            if walk.note(place, extentBlocks: superblock.extentBlocks) {
                fresh.append(entry)
                isFresh[slot] = true
                creditBirth(entry, &walk)
            } else {
                noteShared(entry, &walk)
            }
        }
        walk.dataBlocks += UInt64(fresh.count)
        var damaged: [TreeDamage.Run] = []
        var news: [TreeDamage.Run] = []
        if walk.verifiesData { verify(fresh, &walk, medium: medium) }
        for (slot, entry) in entries.enumerated() where !entry.isHole {
            summary.mapped += 1
            let place = forest.place(of: entry.address)
            guard !isInStore(place) || walk.badPlaces.contains(place.rawValue) else { continue }
            extend(&damaged, block + UInt64(slot))
            // Each is told once; who else has it is in the list of losses.
            if isFresh[slot] || !isInStore(place) { extend(&news, block + UInt64(slot)) }
        }
        if !damaged.isEmpty { summary.damage = TreeDamage(runs: damaged) }
        for run in news { noteData(run, &walk) }
        walk.progress(walk.dataBlocks)
        return summary
    }

    private func extend(_ runs: inout [TreeDamage.Run], _ block: UInt64) {
        if let last = runs.last, last.firstBlock + last.count == block {
            runs[runs.count - 1].count += 1
        } else {
            runs.append(TreeDamage.Run(firstBlock: block, count: 1, reason: .data))
        }
    }

    private func noteData(_ damage: TreeDamage.Run, _ walk: inout TreeWalk) {
        let whose = walk.owner.map { describe($0) } ?? ""
        let last = damage.firstBlock + damage.count - 1
        walk.findings.append(
            CheckFinding(
                .loss, .data, stream: configuration.stream,
                "Blocks \(damage.firstBlock) to \(last) of \(whose) cannot be read or fail their "
                    + "checksum; reads report an error until they are written again."))
    }

    /// A block that no parent has was born here; behind damage, or beside a deletion, further up.
    private func creditBirth(_ entry: BlockReference, _ walk: inout TreeWalk) {
        guard var owner = walk.owner else { return }
        var parent = catalog.parent(of: owner)
        while parent >= 0, entry.birth <= catalog.versions[Int(parent)].epoch {
            owner = .version(Int(parent))
            parent = catalog.versions[Int(parent)].parent
        }
        if let row = owner.row {
            walk.versions[row, default: TreeWalk.Account()].born += 1
        } else if let handle = owner.handle {
            walk.heads[handle, default: TreeWalk.Account()].born += 1
        }
    }

    private func verify(
        _ references: [BlockReference], _ walk: inout TreeWalk, medium: some StoreMedium
    ) {
        let fetched = fetch(references, medium: medium)
        for (position, reference) in references.enumerated()
        where !fetched.isGood(position) {
            walk.badPlaces.insert(forest.place(of: reference.address).rawValue)
        }
        walk.verifiedBlocks += UInt64(references.count)
    }
}
