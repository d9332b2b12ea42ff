// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The radix trees of a stream, over one node cache, with the live counts of what they refer to.
///
/// ```
///   VDI root ---> level 2 ---> level 1 ---> level 0 (leaf) ---> data blocks
///                 256^3        256^2        256 blocks = 1 MiB of disk
/// ```
/// Owned by the shard thread. Trees are as high as the highest mapped block needs.
struct RadixForest: ~Copyable {
    var cache: NodeCache
    var extents: ExtentTable
    /// Where the cleaner has put what trees still call by its old address.
    var forwards = ForwardTable()
    /// The same from place to name: only in memory.
    private(set) var names = ForwardTable()
    /// Names added to `forwards` since it was opened.
    var namesForwarded: UInt64 = 0
    /// Nodes in the store to which the current trees refer.
    var liveNodes = 0
    /// A head let go of more than it had.
    var isContradicted = false
    /// Loads that the engine must ask the device for.
    var wantedLoads: FixedRing<UInt32>

    init(frameCount: Int, slotCount: Int, extentBlocks: Int) {
        cache = NodeCache(frameCount: frameCount)
        extents = ExtentTable(slotCount: slotCount, extentBlocks: extentBlocks)
        wantedLoads = FixedRing(minimumCapacity: frameCount)
    }

    enum Walk {
        /// The leaf is in this frame.
        case leaf(Int)
        /// Nothing is mapped from the asked block up to, not including, `end`.
        case hole(end: UInt64)
        /// The node in this frame is being loaded; ask again when it is there.
        case loading(Int)
        /// No frame to load into; ask again after a checkpoint or a load has made progress.
        case starved
    }
}

extension RadixForest {
    /// Finds the leaf that maps `block`. Starts the load of the first node that is missing if it
    /// `mayLoad`; else that is `.starved`.
    mutating func walk(_ vdi: VDI, to block: UInt64, mayLoad: Bool = true) -> Walk {
        let span = VDI.span(levels: vdi.levels)
        guard block < span else { return .hole(end: .max) }
        var reference = vdi.root
        var level = vdi.levels - 1
        while true {
            if reference.isHole {
                let width = VDI.span(levels: level + 1)
                return .hole(end: (block / width + 1) * width)
            }
            let frame: Int
            if reference.address.isResident {
                frame = reference.address.residentFrame
            } else if let found = cache.find(reference.address) {
                if cache.frames[found].state == .loading { return .loading(found) }
                frame = found
            } else {
                guard mayLoad, let started = cache.beginLoad(reference, level: level) else {
                    return .starved
                }
                wantedLoads.append(UInt32(started))
                return .loading(started)
            }
            cache.frames[frame].isRecent = true
            if level == 0 { return .leaf(frame) }
            let slot = Int(truncatingIfNeeded: block >> UInt64(radixBits * level)) & 255
            reference = cache.entries(frame)[slot]
            level -= 1
        }
    }

    /// Frames that a change of one leaf may need: a copy of each level and new roots.
    static let framesPerChange = Limits.radixLevels * 2

    /// The leaf that maps `block`, writable, with a writable path to it. The caller has made sure
    /// of `framesPerChange` free frames and then seen `walk` find the leaf or a hole.
    mutating func writableLeaf(_ vdi: inout VDI, for block: UInt64) -> Int {
        growTree(&vdi, toMap: block)
        var level = vdi.levels - 1
        var frame = makeWritable(&vdi.root, level: level, block: block, vdi: vdi)
        while level > 0 {
            let slot = Int(truncatingIfNeeded: block >> UInt64(radixBits * level)) & 255
            level -= 1
            frame = makeWritable(
                &cache.entries(frame)[slot], level: level, block: block, vdi: vdi)
        }
        return frame
    }

    private mutating func growTree(_ vdi: inout VDI, toMap block: UInt64) {
        while block >= VDI.span(levels: vdi.levels) {
            if !vdi.root.isHole {
                let frame = newNode(level: vdi.levels, block: 0, vdi: vdi)
                cache.entries(frame)[0] = vdi.root
                vdi.root = residentReference(frame, vdi)
            }
            vdi.levels += 1
        }
    }

    /// The node behind `reference`, made if there is none, copied if it is frozen or clean.
    private mutating func makeWritable(
        _ reference: inout BlockReference, level: Int, block: UInt64, vdi: VDI
    ) -> Int {
        if reference.isHole {
            let frame = newNode(level: level, block: block, vdi: vdi)
            reference = residentReference(frame, vdi)
            return frame
        }
        let old: Int
        if reference.address.isResident {
            old = reference.address.residentFrame
            let youngest = max(vdi.mutableStamp, cache.checkpointStamp)
            if cache.frames[old].state == .dirty && cache.frames[old].stamp >= youngest {
                return old
            }
        } else {
            guard let found = cache.find(reference.address) else {
                preconditionFailure("RadixForest: the path was not resident")
            }
            old = found
        }
        let frame = copyNode(old, level: level, block: block, vdi: vdi)
        noteReplaced(old, birth: reference.birth, level: level, block: block, vdi: vdi)
        if reference.address.isResident { cache.release(old) }
        reference = residentReference(frame, vdi)
        return frame
    }

    /// The head no longer refers to this node; unless a snapshot does, its block is dead.
    private mutating func noteReplaced(
        _ frame: Int, birth: UInt32, level: Int, block: UInt64, vdi: VDI
    ) {
        guard !cache.frames[frame].isHole else { return }
        if birth <= vdi.snapshotEpoch {
            let width = VDI.span(levels: level + 1)
            guard birth > vdi.parentFloor,
                vdi.isReclaimed(level: level, firstBlock: block / width * width)
            else { return }
        }
        if cache.frames[frame].state == .dirty {
            cache.frames[frame].isSuperseded = true
        } else {
            removeLiveNode(at: cache.frames[frame].address)
        }
    }

    mutating func removeLiveNode(at address: BlockAddress) {
        removeLive(address)
        liveNodes -= 1
    }

    /// A node of a current tree has its place.
    mutating func addLiveNode(at address: BlockAddress) {
        extents.addLive(address)
        liveNodes += 1
    }

    private func residentReference(_ frame: Int, _ vdi: VDI) -> BlockReference {
        BlockReference(
            address: BlockAddress(residentFrame: frame), checksum: 0, birth: vdi.epoch)
    }

    private mutating func dirtyFrame(level: Int, block: UInt64, vdi: VDI) -> Int {
        guard let frame = cache.allocateDirty(level: level) else {
            preconditionFailure("RadixForest: frames were not reserved")
        }
        let width = VDI.span(levels: level + 1)
        cache.frames[frame].vdi = vdi.identifier.rawValue
        cache.frames[frame].firstBlock = block / width * width
        return frame
    }

    private mutating func newNode(level: Int, block: UInt64, vdi: VDI) -> Int {
        let frame = dirtyFrame(level: level, block: block, vdi: vdi)
        Memory.zero(cache.content(frame), count: blockBytes)
        return frame
    }

    private mutating func copyNode(_ old: Int, level: Int, block: UInt64, vdi: VDI) -> Int {
        let frame = dirtyFrame(level: level, block: block, vdi: vdi)
        Memory.copy(to: cache.content(frame), from: cache.content(old), count: blockBytes)
        if level > 0 {
            let entries = cache.entries(frame)
            for slot in 0..<radixFanout where entries[slot].address.isResident {
                cache.retain(entries[slot].address.residentFrame)
            }
        } else if !forwards.isEmpty {
            renameMoved(frame, vdi)
        }
        return frame
    }
}

/// Blocks have names, the addresses by which trees refer to them, and places, where they are. They
/// differ when the cleaner has moved a block.
extension RadixForest {
    /// Where the block of this name is.
    @inline(__always)
    func place(of name: BlockAddress) -> BlockAddress {
        forwards.isEmpty ? name : forwards.find(name) ?? name
    }

    /// Nothing refers to the block of this name any more.
    mutating func removeLive(_ name: BlockAddress, isReplayed: Bool = false) {
        extents.removeLive(takeForward(name) ?? name, isReplayed: isReplayed)
    }

    /// By which name trees refer to the block at `place`.
    func name(of place: BlockAddress) -> BlockAddress {
        names.isEmpty ? place : names.find(place) ?? place
    }

    /// The cleaner has put a living block somewhere else. `isReplayed`: as in `ExtentTable`.
    mutating func move(_ old: BlockAddress, to place: BlockAddress, isReplayed: Bool) {
        let name = names.remove(old) ?? old
        forwards.set(name, to: place)
        names.set(place, to: name)
        namesForwarded += 1
        extents.removeLive(old, isReplayed: isReplayed)
        extents.addLive(place)
    }

    /// Forgets a name. Returns the place that it had; nil: its own.
    private mutating func takeForward(_ name: BlockAddress) -> BlockAddress? {
        guard !forwards.isEmpty, let place = forwards.remove(name) else { return nil }
        _ = names.remove(place)
        return place
    }

    /// For a repair: puts an entry back, and takes one away.
    mutating func restoreForward(_ name: BlockAddress, to place: BlockAddress) {
        if let old = forwards.find(name) { _ = names.remove(old) }
        forwards.set(name, to: place)
        names.set(place, to: name)
    }

    /// The same for a block that is known by another name; `dropForwards` sorts that out.
    mutating func addName(_ name: BlockAddress, of place: BlockAddress) {
        forwards.set(name, to: place)
    }

    mutating func dropForwards(_ dropped: [BlockAddress]) {
        for name in dropped { _ = forwards.remove(name) }
        // Of one that stays another may have had the place.
        names = ForwardTable()
        _ = collectNames()
    }

    /// All forwards have been loaded. False: two names have one place.
    mutating func collectNames() -> Bool {
        forwards.forEach { name, place in names.set(place, to: name) }
        return names.count == forwards.count
    }

    /// A leaf that is written anyway takes up the places of moved blocks as their names, where
    /// nobody else can refer to them: those born in this head.
    mutating func renameMoved(_ leaf: Int, _ vdi: VDI) {
        let entries = cache.entries(leaf)
        for slot in 0..<radixFanout
        where !entries[slot].isHole && entries[slot].birth > vdi.snapshotEpoch {
            if let place = takeForward(entries[slot].address) { entries[slot].address = place }
        }
    }

    /// Whether a leaf that this head alone has names moved blocks by their old addresses.
    func wantsRenaming(_ leaf: Int, _ vdi: VDI) -> Bool {
        let entries = cache.entries(leaf)
        for slot in 0..<radixFanout
        where !entries[slot].isHole && entries[slot].birth > vdi.snapshotEpoch
            && forwards.find(entries[slot].address) != nil
        {
            return true
        }
        return false
    }
}

extension RadixForest {
    /// A node's read is done. Returns whether the node is good: the right bytes, and no entry
    /// that names a place which this stream does not have.
    mutating func finishLoad(_ frame: Int, succeeded: Bool) -> Bool {
        let plausible = succeeded && isPlausible(frame)
        return cache.finishLoad(frame, succeeded: plausible)
    }

    private func isPlausible(_ frame: Int) -> Bool {
        let entries = cache.entries(frame)
        // A node of a version that is being given back may still name nodes whose extents are gone.
        let isLeaf = cache.frames[frame].level == 0
        for slot in 0..<radixFanout where !entries[slot].isHole {
            let address = entries[slot].address
            guard address.flags == 0, !isLeaf || extents.contains(place(of: address)) else {
                return false
            }
        }
        return true
    }

    /// Points `count` entries of a writable leaf at blocks that follow each other from `address`.
    mutating func map(
        _ vdi: inout VDI, leaf: Int, block: UInt64, count: Int, address: BlockAddress,
        checksums: UnsafeRawPointer
    ) {
        let entries = cache.entries(leaf) + Int(truncatingIfNeeded: block) % radixFanout
        for index in 0..<count {
            forget(&vdi, entries[index], block: block + UInt64(index))
            let checksum = checksums.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)
            entries[index] = BlockReference(
                address: address.advanced(by: index), checksum: UInt32(littleEndian: checksum),
                birth: vdi.epoch)
        }
        vdi.allocatedBlocks += UInt64(count)
        vdi.bornBlocks += UInt64(count)
        extents.addLive(address, count: count)
    }

    /// Turns `count` entries of a writable leaf into holes. Only a head that continues a version
    /// remembers of which kind: the others have nothing to be compared with.
    mutating func unmap(
        _ vdi: inout VDI, leaf: Int, block: UInt64, count: Int, kind: HoleKind
    ) {
        let entries = cache.entries(leaf) + Int(truncatingIfNeeded: block) % radixFanout
        let hole = vdi.snapshotEpoch > 0 ? BlockReference.hole(kind, birth: vdi.epoch) : .hole
        for index in 0..<count where !entries[index].isHole {
            forget(&vdi, entries[index], block: block + UInt64(index))
            entries[index] = hole
        }
    }

    /// Whether any of `count` entries of the leaf is mapped.
    func isAnyMapped(leaf: Int, block: UInt64, count: Int) -> Bool {
        let entries = cache.entries(leaf) + Int(truncatingIfNeeded: block) % radixFanout
        for index in 0..<count where !entries[index].isHole { return true }
        return false
    }

    /// The head lets go of a block, which is dead unless a version has it too.
    private mutating func forget(_ vdi: inout VDI, _ old: BlockReference, block: UInt64) {
        guard !old.isHole else { return }
        if !vdi.allocatedBlocks.takeOff(1) { isContradicted = true }
        if old.birth > vdi.snapshotEpoch {
            if !vdi.bornBlocks.takeOff(1) { isContradicted = true }
            removeLive(old.address, isReplayed: true)
        } else if old.birth > vdi.parentFloor {
            if vdi.isReclaimed(level: 0, firstBlock: block) {
                vdi.freedOfParent += 1
                removeLive(old.address)
            } else if block < vdi.countedBelow {
                vdi.lostBlocks += 1
            }
        }
    }
}

extension RadixForest {
    /// A second owner refers to the tree of `root`.
    mutating func share(_ root: BlockReference) {
        if root.address.isResident { cache.retain(root.address.residentFrame) }
    }

    mutating func unshare(_ root: BlockReference) {
        if root.address.isResident { cache.release(root.address.residentFrame) }
    }

    /// Replaces the resident references of a node to children that have their place by then.
    mutating func resolveChildren(_ frame: Int) {
        let entries = cache.entries(frame)
        for slot in 0..<radixFanout where entries[slot].address.isResident {
            resolve(&entries[slot])
        }
    }

    /// Replaces a resident reference to a node that has its place; leaves others alone.
    mutating func resolve(_ reference: inout BlockReference) {
        guard reference.address.isResident else { return }
        let child = reference.address.residentFrame
        switch cache.frames[child].state {
        case .dirty: return
        case .clean, .writing:
            if cache.frames[child].isHole {
                reference = .hole
            } else {
                reference.address = cache.frames[child].address
                reference.checksum = cache.frames[child].checksum
            }
            cache.release(child)
        case .free, .loading: preconditionFailure("NodeCache I1: reference to an unused frame")
        }
    }
}
