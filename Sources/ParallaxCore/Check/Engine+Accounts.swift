// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The stream's books beside what a walk has found.
extension Engine {
    /// Adds the bits of what the tables lead to, which is not in the trees.
    func notePages(_ walk: inout TreeWalk) {
        var references = catalog.pages.pages.map(\.reference) + catalog.pages.index
        references += forest.forwards.pages.map(\.reference) + forest.forwards.abandoned
        references += forest.extents.livePages.references
        for reference in references where !reference.isHole && isInStore(reference.address) {
            if !walk.note(reference.address, extentBlocks: superblock.extentBlocks) {
                walk.noteClash(
                    CheckFinding(
                        .loss, .extents, stream: configuration.stream,
                        "Block \(reference.address.block) of extent "
                            + "\(reference.address.extent.rawValue) is a page and something else, too."
                    ))
            }
        }
    }

    /// Compares all of the books, and adds a finding for each that is wrong.
    func compareBooks(_ walk: inout TreeWalk, medium: some StoreMedium) {
        compareBits(&walk)
        compareForwards(&walk)
        // Behind a node that cannot be read nothing can be counted.
        guard !walk.hasLostNodes else { return }
        if walk.liveNodes != forest.liveNodes {
            note(
                .accounting,
                "Shard \(configuration.stream) counts \(forest.liveNodes) radix nodes "
                    + "and has \(walk.liveNodes).", &walk)
        }
        for handle in 0..<catalog.count where catalog.vdis[handle].kind == .head {
            compareHead(handle, &walk)
        }
        for row in 0..<catalog.versions.count where catalog.versions[row].state != .free {
            compareVersion(row, &walk)
        }
        compareExclusive(&walk, medium: medium)
    }

    private func note(
        _ structure: CheckFinding.Structure, _ message: String, _ walk: inout TreeWalk
    ) {
        walk.findings.append(
            CheckFinding(.repairable, structure, stream: configuration.stream, message))
    }

    private func compareHead(_ handle: Int, _ walk: inout TreeWalk) {
        let vdi = catalog.vdis[handle]
        let account = walk.heads[handle] ?? TreeWalk.Account()
        if vdi.allocatedBlocks != account.allocated, !account.isPartial {
            note(
                .accounting,
                "VDI \(catalog.names[handle]) counts \(vdi.allocatedBlocks) allocated "
                    + "blocks and has \(account.allocated).", &walk)
        }
        if vdi.bornBlocks != account.born {
            note(
                .accounting,
                "VDI \(catalog.names[handle]) is charged with \(vdi.bornBlocks) blocks of "
                    + "its head and has \(account.born).", &walk)
        }
    }

    private func compareVersion(_ row: Int, _ walk: inout TreeWalk) {
        let version = catalog.versions[row]
        let account = walk.versions[row] ?? TreeWalk.Account()
        if version.allocatedBlocks != account.allocated, !account.isPartial,
            version.state != .deleted
        {
            note(
                .accounting,
                "\(capitalised(.version(row))) counts \(version.allocatedBlocks) "
                    + "allocated blocks and has \(account.allocated).", &walk)
        }
        // What a head has let go of for a parent that is being given back.
        let freed = version.firstChild.handle.map { catalog.vdis[$0].freedOfParent } ?? 0
        if version.bornBlocks &- freed != account.born {
            note(
                .accounting,
                "\(capitalised(.version(row))) is charged with "
                    + "\(version.bornBlocks &- freed) blocks and has \(account.born).", &walk)
        }
    }

    private func compareBits(_ walk: inout TreeWalk) {
        // What has been said of a lost page need not be said of each extent.
        let areLost = inspection?.hasLostBits == true
        for index in 0..<forest.extents.count {
            let extent = forest.extents[index]
            let words = walk.found[extent.number.rawValue]
            var unknown = 0
            var unmarked = 0
            for word in 0..<(superblock.extentBlocks + 63) / 64 {
                let is64 = extent.bits.words[word]
                let should = words?[word] ?? 0
                unknown += (is64 & ~should).nonzeroBitCount
                unmarked += (should & ~is64).nonzeroBitCount
            }
            if unmarked > 0, !areLost {
                note(
                    .liveBits,
                    "\(unmarked) blocks of extent \(extent.number.rawValue) are used and "
                        + "marked as free.", &walk)
            }
            if unknown > 0, !areLost, !walk.hasLostNodes {
                note(
                    .liveBits,
                    "\(unknown) blocks of extent \(extent.number.rawValue) are marked as "
                        + "used and nothing leads to them.", &walk)
            }
        }
    }

    private func compareForwards(_ walk: inout TreeWalk) {
        var places: Set<UInt64> = []
        var doubles = 0
        var astray = 0
        forest.forwards.forEach { name, place in
            if isAstray(name, place, walk) {
                astray += 1
            } else if !places.insert(place.rawValue).inserted {
                doubles += 1
            }
        }
        if doubles > 0 {
            walk.findings.append(
                CheckFinding(
                    .loss, .forwards, stream: configuration.stream,
                    "\(doubles) forwards of shard \(configuration.stream) lead to the place of "
                        + "another."))
        }
        if astray > 0 {
            note(
                .forwards,
                "\(astray) forwards of shard \(configuration.stream) have names that nothing uses.",
                &walk)
        }
    }

    /// Whether no tree calls a block by this name. Behind a node that cannot be read one may, if the
    /// block lives and is not known by another name.
    func isAstray(_ name: BlockAddress, _ place: BlockAddress, _ walk: TreeWalk) -> Bool {
        guard isInStore(place) else { return true }
        if walk.movedNames.contains(name.rawValue) { return false }
        guard walk.hasLostNodes, !walk.isFound(place) else { return true }
        if forest.name(of: place) != name { return true }
        return !forest.extents.isLive(place) && inspection?.hasLostBits != true
    }
}

/// What each snapshot alone holds.
extension Engine {
    private func compareExclusive(_ walk: inout TreeWalk, medium: some StoreMedium) {
        // While a version is being given back its neighbours have nothing to be compared with.
        if catalog.reclaim.job?.purpose == .free { return }
        for row in 0..<catalog.versions.count where catalog.isVisible(row) {
            guard catalog.versions[row].isCounted,
                let told = catalog.exclusiveBytes(row: row)
            else { continue }
            let version = catalog.versions[row]
            var found: UInt64 = 0
            if version.childCount < 2 {
                found = exclusive(
                    version.tree, catalog.tree(of: version.firstChild),
                    floor: catalog.floor(row), medium: medium)
            }
            if told != found * UInt64(blockBytes) {
                note(
                    .accounting,
                    "\(capitalised(.version(row))) alone holds \(found) blocks and "
                        + "counts \(told / UInt64(blockBytes)).", &walk)
            }
        }
    }

    /// Data blocks born after `floor` that `mine` has and `other` has not.
    private func exclusive(
        _ mine: TreeRoot, _ other: TreeRoot, floor: UInt32, medium: some StoreMedium
    ) -> UInt64 {
        guard mine.levels > 0 else { return 0 }
        var theirs = other.levels > 0 ? other.root : .hole
        var level = other.levels - 1
        // The tree that is lower stands below the leftmost place of the other.
        while level >= mine.levels, !theirs.isHole {
            theirs = entries(of: theirs, medium: medium)?[0] ?? .hole
            level -= 1
        }
        return exclusive(
            mine.root, mine.levels - 1, theirs, theirs.isHole ? -1 : level, floor: floor,
            medium: medium)
    }

    private func exclusive(
        _ mine: BlockReference, _ level: Int, _ theirs: BlockReference, _ theirLevel: Int,
        floor: UInt32, medium: some StoreMedium
    ) -> UInt64 {
        guard !mine.isHole, mine.birth > floor,
            !(theirLevel == level && theirs.address == mine.address),
            let entries = entries(of: mine, medium: medium)
        else { return 0 }
        let others =
            theirLevel == level && !theirs.isHole ? self.entries(of: theirs, medium: medium) : nil
        var count: UInt64 = 0
        for slot in 0..<radixFanout where !entries[slot].isHole {
            let entry = entries[slot]
            if level == 0 {
                if entry.birth > floor, others?[slot].address != entry.address { count += 1 }
                continue
            }
            // A lower tree is below the first child.
            let isLower = theirLevel >= 0 && theirLevel < level && slot == 0
            count += exclusive(
                entry, level - 1, isLower ? theirs : others?[slot] ?? .hole,
                isLower ? theirLevel : level - 1, floor: floor, medium: medium)
        }
        return count
    }
}
