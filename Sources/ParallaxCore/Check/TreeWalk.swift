// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a walk through all trees of a stream finds: each node and each data block once, however many
/// snapshots share it.
///
/// ```
///   versions, parents before children       a block that is new to the walk was born in the version
///   s1 --- s2 --- s3 --- head               that is being walked: so births are counted as well
/// ```
/// Memory: one bit for each block of the stream's extents, some 60 bytes for each node, and 8 for each
/// damaged one among those below it.
struct TreeWalk {
    /// What is below a node. Nodes stand at the same place in every tree that has them.
    struct Summary {
        var level: Int
        var firstBlock: UInt64
        var mapped: UInt64 = 0
        /// nil: none.
        var damage: TreeDamage?
    }

    /// What the books should say of a version or a head.
    struct Account {
        var allocated: UInt64 = 0
        var born: UInt64 = 0
        /// Part of the tree cannot be read, or has been given back.
        var isPartial = false
    }

    let verifiesData: Bool
    let lossesKept: Int
    /// By the raw address of the node, resident ones included.
    var nodes: [UInt64: Summary] = [:]
    /// One bit for each block, by extent number.
    var found: [UInt64: [UInt64]] = [:]
    /// Data blocks that fail their checksum.
    var badPlaces: Set<UInt64> = []
    var liveNodes = 0
    var dataBlocks: UInt64 = 0
    var verifiedBlocks: UInt64 = 0
    var heads: [Int: Account] = [:]
    var versions: [Int: Account] = [:]
    var findings: [CheckFinding] = []
    private(set) var losses: [CheckLoss] = []
    private var snapshotLossCount = 0
    var lossesLeftOut = 0
    /// A node could not be read: what it leads to is not known.
    var hasLostNodes = false
    /// The first case of a block that is used as two things, or that nobody owns: no repair knows what
    /// may be freed then.
    private(set) var clash: String?
    /// Names that lead to no extent.
    var lostNames: Set<UInt64> = []
    /// Names by which trees call a block that is somewhere else.
    var movedNames: Set<UInt64> = []

    // Of the tree under way.
    var owner: RecordOwner?
    var floor: UInt32 = 0
    /// Which of its nodes are given back already.
    var deletion: ReclaimJob?
    /// It has been told that the tree has what it does not share with its parent and others have, too.
    var hasToldSharing = false
    var progress: (UInt64) -> Void

    init(verifiesData: Bool, lossesKept: Int, progress: @escaping (UInt64) -> Void) {
        self.verifiesData = verifiesData
        self.lossesKept = lossesKept
        self.progress = progress
    }

    /// Sets the bit of a block. False: it was set.
    mutating func note(_ place: BlockAddress, extentBlocks: Int) -> Bool {
        let word = place.block >> 6
        let mask: UInt64 = 1 << UInt64(place.block & 63)
        let empty = { Array(repeating: UInt64(0), count: (extentBlocks + 63) / 64) }
        let old = found[place.extent.rawValue, default: empty()][word]
        guard old & mask == 0 else { return false }
        found[place.extent.rawValue, default: empty()][word] = old | mask
        return true
    }

    /// How many more losses of heads, or of snapshots, are listed.
    func lossRoom(ofHeads: Bool) -> Int {
        lossesKept - (ofHeads ? losses.count - snapshotLossCount : snapshotLossCount)
    }

    mutating func add(_ loss: CheckLoss) {
        losses.append(loss)
        if loss.snapshotName != nil { snapshotLossCount += 1 }
    }

    mutating func noteClash(_ finding: CheckFinding) {
        if clash == nil { clash = finding.message }
        findings.append(finding)
    }

    func isFound(_ place: BlockAddress) -> Bool {
        guard let words = found[place.extent.rawValue] else { return false }
        return words[place.block >> 6] & 1 << UInt64(place.block & 63) != 0
    }
}
