// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Worlds that are made for one sequence of events each, which the others hardly ever come to.
extension Profile {
    /// What a strait is made for.
    private enum Strait: CaseIterable {
        /// Two crashes with one chunk between them: chunks that the first has left behind the end
        /// of the log fit to the new one.
        case relapses
        /// Syncs come to no end while guests go on: a slot that comes back too early is written again
        /// before what it was given back for is durable.
        case stalledSyncs
        /// The device fails, or errs, where the cleaner reads and writes.
        case failingMoves
        /// Many leaves: a checkpoint writes them in many turns, a deletion needs many more.
        case wideTrees
        /// What was written last rots, and the machine stops.
        case rottenLogs
    }

    /// A third of the worlds. Nothing of what they were is left. False: it is none of them.
    mutating func specialiseStraits(_ random: inout SeededRandom) -> Bool {
        guard random.oneIn(3) else { return false }
        let strait = Strait.allCases[random.weightedIndex([1, 3, 3, 2, 2])]
        self = Profile(character: strait == .failingMoves ? .churning : .plain, random: &random)
        maxDisks = 4
        maxSnapshots = 6
        switch strait {
        case .relapses: relapse(&random)
        case .stalledSyncs: stallSyncs(&random)
        case .failingMoves: failMoves(&random)
        case .wideTrees: widenTrees(&random)
        case .rottenLogs: rotLogs(&random)
        }
        return true
    }

    /// A twelfth of the others: so many small disks that each extent has blocks of all of them, in a
    /// store that they nearly fill.
    mutating func specialiseCrowds(_ random: inout SeededRandom) {
        guard random.oneIn(12) else { return }
        self = Profile(character: .churning, random: &random)
        shape.streamCount = random.oneIn(4) ? 2 : 1
        let mebibytes = random.integer(in: shape.streamCount == 2 ? 26...36 : 14...30)
        shape.storeBytes = UInt64(mebibytes) << 20
        drawCleaner(permilles: [25, 200, 500], &random)
        diskBytes = [1 << 20]
        diskCount = mebibytes * random.integer(in: 50...90) / 100
        maxDisks = diskCount + 2
        writesLittle = random.oneIn(2)
        writesMuch = !writesLittle
        longBursts = 50
        versionPercent = random.integer(in: 0...20)
        weights.clean = 3
        weights.verify = 0
        if random.oneIn(4) { rotOneIn = random.integer(in: 10...60) }
        if random.oneIn(6) { faults.readErrorOneIn = random.integer(in: 50...300) }
    }

    /// In an eighth of all worlds quotas are set, in an eighth the store is scrubbed. One in eight becomes
    /// another, where that, or the cleaner in a checkpoint of many turns, meets what is under way.
    mutating func addChores(_ random: inout SeededRandom) {
        switch random.index(below: 24) {
        case 0: cleanWideTrees(&random)
        case 1: rationMuch(&random)
        case 2: scrubMuch(&random)
        default: break
        }
        if random.oneIn(8) { weights.ration = max(weights.ration, 8) }
        if random.oneIn(8) { weights.scrub = max(weights.scrub, 4) }
    }

    private mutating func cleanWideTrees(_ random: inout SeededRandom) {
        self = Profile(character: .churning, random: &random)
        widenTrees(&random)
        shape.storeBytes = UInt64(random.integer(in: 24...40)) << 20
        drawCleaner(permilles: [200, 500], &random)
        diskBytes = [shape.storeBytes / 8 * 6 / UInt64(diskCount) & ~0xFFFFF, 256 << 20]
        writesSparsely = random.oneIn(2)
        writesMuch = !writesSparsely
        weights.clean = 8
    }

    /// Large writes that wait half-way for a chunk, small ones in their middle, and what they cost changes.
    private mutating func rationMuch(_ random: inout SeededRandom) {
        self = Profile(character: .plain, random: &random)
        shape.streamCount = 1
        shape.maxChunksInFlight = random.integer(in: 1...2)
        diskCount = random.integer(in: 1...2)
        diskBytes = [1 << 20, 2 << 20]
        maxDisks = 4
        maxSnapshots = 6
        writesMuch = true
        longBursts = 60
        versionPercent = 25
        versions.snapshot = 60
        versions.deleteSnapshot = 40
        weights.ration = 40
        weights.verify = 0
    }

    private mutating func scrubMuch(_ random: inout SeededRandom) {
        self = Profile(character: .churning, random: &random)
        drawCleaner(permilles: [200, 500], &random)
        versionPercent = random.integer(in: 0...20)
        weights.clean = 10
        weights.scrub = 30
    }

    private mutating func shrink(_ random: inout SeededRandom, mebibytes: ClosedRange<Int>) {
        shape.storeBytes = UInt64(random.integer(in: mebibytes)) << 20
        shape.streamCount = 1
        diskCount = random.integer(in: 1...2)
        diskBytes = [1 << 20, 2 << 20]
    }

    private mutating func relapse(_ random: inout SeededRandom) {
        shrink(&random, mebibytes: 10...24)
        shape.maxChunksInFlight = random.integer(in: 3...6)
        weights.relapse = 24
        weights.verify = 0
    }

    private mutating func stallSyncs(_ random: inout SeededRandom) {
        shrink(&random, mebibytes: 10...28)
        shape.checkpointLogBytes = random.integer(in: 1...6) << 20
        shape.maxChunksInFlight = random.integer(in: 2...6)
        shape.cleaningPermille = [0, 25, 200, 500][random.index(below: 4)]
        shape.cleanerBatchBlocks = 192
        queueDepth = 32
        writesMuch = true
        prefersReleased = true
        versionPercent = random.oneIn(2) ? 0 : 5
        weights.stall = 16
        weights.clean = 4
        weights.verify = 0
    }

    private mutating func failMoves(_ random: inout SeededRandom) {
        versionPercent = random.integer(in: 0...20)
        drawCleaner(permilles: [200, 500], &random)
        weights.clean = 8
        switch random.index(below: 3) {
        case 0: faults.writeErrorOneIn = random.integer(in: 20...100)
        case 1: faults.fullDeviceOneIn = random.integer(in: 20...100)
        default: faults.flippedReadOneIn = random.integer(in: 20...100)
        }
    }

    private mutating func widenTrees(_ random: inout SeededRandom) {
        shape.storeBytes = UInt64(random.integer(in: 64...96)) << 20
        shape.streamCount = 1
        shape.nodeCacheBytes = random.integer(in: 1200...2400) * blockBytes
        shape.checkpointLogBytes = 16 << 20
        shape.checkpointIntervalNanoseconds = 30_000_000_000
        diskCount = random.integer(in: 1...2)
        diskBytes = [256 << 20, 512 << 20]
        writesSparsely = true
        longBursts = 50
        versionPercent = random.integer(in: 0...30)
        versions.deleteSnapshot = 30
        weights.checkpoint = 8
        weights.create = 5
        weights.delete = 5
        weights.crashProcess = 5
        weights.crashPower = 5
        weights.verify = 0
    }

    private mutating func rotLogs(_ random: inout SeededRandom) {
        shrink(&random, mebibytes: 10...24)
        shape.checkpointLogBytes = 4 << 20
        weights.rotLog = 4
    }
}
