// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A tree to be compared: the root of a version or of a head.
struct TreeRoot: BitwiseCopyable {
    var root = BlockReference.hole
    var levels = 0

    static var empty: TreeRoot { TreeRoot() }
}

/// How two trees are to be compared.
struct TreeComparison: BitwiseCopyable {
    var mine: TreeRoot
    var other: TreeRoot
    /// Look for nodes of this level; 0 for leaves.
    var level = 0
    /// Pass over what of mine was born at or before this.
    var floor: UInt32 = 0
    /// Look also where only the other tree has anything.
    var isSymmetric = false
}

/// A node that a walk needs and that is being loaded.
struct AwaitedNode: BitwiseCopyable {
    var address: BlockAddress
    var level: Int
    /// A block below it.
    var block: UInt64
}

extension RadixForest {
    enum Difference {
        /// Two nodes of the level at the same place, which begins at `block`, that are not the
        /// same; either may be a hole.
        case nodes(mine: BlockReference, other: BlockReference, block: UInt64)
        /// The trees are the same from the asked block on.
        case end
        /// As many places as were to be passed over are the same; ask again in a later turn.
        case paused
        /// A node is being loaded; ask again when it is there.
        case loading(AwaitedNode)
        case starved
    }

    /// LIMIT: runs of places found to be the same that cost a turn as much as one node that differs. Between
    /// two that differ there is a run at each level at most, and mostly one; where nodes differ and nothing
    /// below them does, there are only runs.
    static let samePlacesPerNode = 4

    /// Finds the first place at or behind `block` where the trees differ, and moves `block` behind what
    /// is the same. Subtrees that are the same node are passed over as a whole, so the cost is that of the
    /// difference. `places` is how many runs of them, each below one node, may be passed over, and counts
    /// down: with at least one `block` gets on, or the answer is another than `paused`.
    mutating func nextDifference(
        _ comparison: TreeComparison, from block: inout UInt64, places: inout Int, mayLoad: Bool
    ) -> Difference {
        let height = max(comparison.mine.levels, comparison.other.levels)
        while height > comparison.level, block < VDI.span(levels: height) {
            guard places > 0 else { return .paused }
            switch descend(comparison, height: height, to: block, mayLoad: mayLoad) {
            case .found(let difference): return difference
            case .same(let end):
                block = end
                places -= 1
            }
        }
        return .end
    }

    private enum Descent {
        case found(Difference)
        /// Nothing differs up to this block.
        case same(end: UInt64)
    }

    private mutating func descend(
        _ comparison: TreeComparison, height: Int, to block: UInt64, mayLoad: Bool
    ) -> Descent {
        var level = height - 1
        var mine = Self.top(comparison.mine, level: level, block: block)
        var other = Self.top(comparison.other, level: level, block: block)
        // The nodes in which those are named.
        var above: (mine: BlockReference, other: BlockReference)?
        while true {
            let width = VDI.span(levels: level + 1)
            if level == comparison.level {
                // A tree that is lower has no node here.
                mine = mine ?? .hole
                other = other ?? .hole
            }
            if let mine, let other {
                if isSame(mine, other, comparison) {
                    let place = block / width
                    let end = above.map { endOfRun(comparison, $0.mine, $0.other, level, place) }
                    return .same(end: (end ?? place + 1) * width)
                }
                if level == comparison.level {
                    return .found(
                        .nodes(mine: mine, other: other, block: block / width * width))
                }
            }
            level -= 1
            above = nil
            if let mine, let other { above = (mine, other) }
            if let reference = mine {
                switch child(of: reference, block: block, level: level, mayLoad: mayLoad) {
                case .success(let below): mine = below
                case .failure(let wait): return .found(wait.difference)
                }
            } else {
                mine = Self.top(comparison.mine, level: level, block: block)
            }
            if let reference = other {
                switch child(of: reference, block: block, level: level, mayLoad: mayLoad) {
                case .success(let below): other = below
                case .failure(let wait): return .found(wait.difference)
                }
            } else {
                other = Self.top(comparison.other, level: level, block: block)
            }
        }
    }

    /// The first of the places of `level` behind `place`, below the same two nodes, that is not the same in
    /// both; or the one behind these nodes.
    private func endOfRun(
        _ comparison: TreeComparison, _ mine: BlockReference, _ other: BlockReference, _ level: Int,
        _ place: UInt64
    ) -> UInt64 {
        let mine = entries(of: mine)
        let other = entries(of: other)
        var next = place + 1
        while next % UInt64(radixFanout) != 0 {
            let slot = Int(truncatingIfNeeded: next) % radixFanout
            guard isSame(mine?[slot] ?? .hole, other?[slot] ?? .hole, comparison) else { break }
            next += 1
        }
        return next
    }

    /// Of a node that was just found in memory; nil: it is a hole.
    private func entries(of reference: BlockReference) -> UnsafeMutablePointer<BlockReference>? {
        if reference.isHole { return nil }
        let frame =
            reference.address.isResident
            ? reference.address.residentFrame : cache.find(reference.address)
        return frame.map { cache.entries($0) }
    }

    /// The reference to a tree's node of `level`, if that is its root or above it: nil while
    /// `block` is in the tree and the root further down.
    private static func top(_ tree: TreeRoot, level: Int, block: UInt64) -> BlockReference? {
        guard block < VDI.span(levels: tree.levels) else { return .hole }
        return level == tree.levels - 1 ? tree.root : nil
    }

    private func isSame(
        _ mine: BlockReference, _ other: BlockReference, _ comparison: TreeComparison
    ) -> Bool {
        if mine.isHole { return other.isHole || !comparison.isSymmetric }
        return mine.birth <= comparison.floor || place(mine) == place(other)
    }

    /// The address of a node, also if the reference does not know yet that it has one.
    private func place(_ reference: BlockReference) -> BlockAddress {
        guard reference.address.isResident else { return reference.address }
        let frame = cache.frames[reference.address.residentFrame]
        return frame.state == .dirty || frame.isHole ? reference.address : frame.address
    }

    struct Wait: Error {
        var difference: Difference
    }

    private mutating func child(
        of reference: BlockReference, block: UInt64, level: Int, mayLoad: Bool
    ) -> Result<BlockReference, Wait> {
        guard !reference.isHole else { return .success(.hole) }
        let slot = Int(truncatingIfNeeded: block >> UInt64(radixBits * (level + 1))) & 255
        return frame(of: reference, level: level + 1, block: block, mayLoad: mayLoad).map {
            cache.entries($0)[slot]
        }
    }

    /// The frame of a node, whose load is started if it is missing.
    mutating func frame(
        of reference: BlockReference, level: Int, block: UInt64, mayLoad: Bool
    ) -> Result<Int, Wait> {
        let awaited = AwaitedNode(address: reference.address, level: level, block: block)
        if reference.address.isResident { return .success(reference.address.residentFrame) }
        if let found = cache.find(reference.address) {
            guard cache.frames[found].state != .loading else {
                return .failure(Wait(difference: .loading(awaited)))
            }
            cache.frames[found].isRecent = true
            return .success(found)
        }
        guard mayLoad, let started = cache.beginLoad(reference, level: level) else {
            return .failure(Wait(difference: .starved))
        }
        wantedLoads.append(UInt32(started))
        return .failure(Wait(difference: .loading(awaited)))
    }
}
