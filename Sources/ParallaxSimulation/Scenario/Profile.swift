// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What kind of world a seed stands for: the store, the device's character, what happens how often.
package struct Profile {
    package var shape = StoreShape()
    package var queueDepth = 32
    package var faults = FaultPlan.none
    package var diskCount = 2
    package var diskBytes: [UInt64] = [4 << 20]
    package var rotOneIn = 0
    /// A sector becomes unreadable, once in so many operations.
    package var spoilOneIn = 0
    package var weights = Weights()
    /// How many of 100 operations concern versions, and which.
    package var versionPercent = 0
    package var versions = VersionWeights()
    package var maxSnapshots = 48
    package var maxDisks = 12
    package var stormLength = 3...16
    /// Most requests write, and much at a time.
    package var writesMuch = false
    /// All requests write one block, so that chunks are small and alike.
    package var writesLittle = false
    /// Requests that write do so to one block, anywhere: each to another leaf.
    package var writesSparsely = false
    /// How many of 100 bursts may have five times as many requests as the others.
    package var longBursts = 10
    /// A slot that came back is the first to be used again.
    package var prefersReleased = false

    /// How often each kind of operation is drawn.
    package struct Weights {
        package var burst = 60
        package var run = 40
        package var drain = 6
        package var verify = 1
        package var scribble = 3
        package var refused = 2
        package var create = 2
        package var resize = 1
        package var rename = 1
        package var delete = 1
        package var checkpoint = 2
        package var clockJump = 2
        package var crashProcess = 2
        package var crashPower = 3
        package var restart = 1
        package var clean = 0
        package var relapse = 0
        package var rotLog = 0
        package var stall = 0
        package var ration = 0
        package var scrub = 0
    }

    package struct VersionWeights {
        package var snapshot = 30
        package var storm = 3
        package var clone = 12
        package var chain = 1
        package var deleteSnapshot = 14
        package var deleteMany = 2
        package var rollback = 6
        package var group = 6
        package var details = 5
        package var template = 2
        package var readSnapshot = 10
        package var closeSnapshot = 6
        package var diff = 6
        package var wrongVersion = 5
        package var retain = 0
    }

    /// The kinds of world, and what each is to find.
    package enum Character: String, CaseIterable {
        /// Crashes only, on an honest device: everything must be exact.
        case plain
        /// One VDI after another is filled and deleted in a store with few extents.
        case cramped
        /// Several streams share the slots.
        case manyStreams
        /// Huge, sparsely used VDIs with more nodes than the cache has.
        case deepTrees
        /// Now and then a command fails.
        case failing
        /// Sectors decay.
        case rotting
        /// The device reports success for what it has not done.
        case lying
        /// A thousand snapshots and more of one VDI.
        case storming
        /// A small store fills up with snapshots, and only their deletion makes room.
        case hoarding
        /// Disks that nearly fill the store are written again and again: nothing goes on without
        /// the cleaner.
        case churning
    }

    package let character: Character

    /// Without versions, a seed stands for the world that it stood for before there were any.
    package init(random: inout SeededRandom, hasVersions: Bool) {
        let characters = Character.allCases.dropLast()
        let weights = [30, 20, 12, 14, 12, 7, 5] + (hasVersions ? [2, 12] : [])
        let index = random.weightedIndex(weights)
        self.init(character: characters[index], random: &random)
        guard hasVersions else { return }
        versionPercent = random.integer(in: 10...70)
        specialiseVersions(&random)
        specialiseCleaning(SeededRandom(seed: random.next()))
    }

    /// Retention, and in a third of the worlds a fault of the device more. `random` is a stream of
    /// its own, so that the world stays what it was without.
    mutating func specialiseDamage(_ random: inout SeededRandom) {
        if versionPercent > 0 { versions.retain = 5 }
        guard random.oneIn(3) else { return }
        switch random.index(below: 8) {
        case 0: faults.flippedReadOneIn = random.integer(in: 20...300)
        case 1: spoilOneIn = random.integer(in: 10...60)
        case 2: faults.lyingSyncOneIn = random.integer(in: 2...10)
        case 3: faults.lostWriteOneIn = random.integer(in: 50...400)
        case 4: faults.misdirectedWriteOneIn = random.integer(in: 50...400)
        case 5: rotOneIn = random.integer(in: 10...60)
        case 6: faults.fullDeviceOneIn = random.integer(in: 40...600)
        default: faults.slowOneIn = random.integer(in: 4...40)
        }
    }

    /// A sixth of the worlds: small disks, and hardly anything gets done between two crashes.
    /// Chunks that were in flight lie behind the end of the log when it goes on, and checkpoints are
    /// cut off.
    mutating func specialiseCrashes(_ random: inout SeededRandom) {
        guard random.oneIn(6) else { return }
        shape.storeBytes = UInt64(random.integer(in: 10...24)) << 20
        shape.streamCount = random.oneIn(5) ? 2 : 1
        if shape.streamCount == 2 { shape.storeBytes = max(shape.storeBytes, 16 << 20) }
        shape.checkpointLogBytes = random.integer(in: 1...8) << 17
        shape.checkpointIntervalNanoseconds = 50_000_000
        shape.maxChunksInFlight = random.integer(in: 1...6)
        writesMuch = false
        writesLittle = random.oneIn(2)
        diskCount = random.integer(in: 1...2)
        diskBytes = [1 << 20, 3 << 20]
        maxDisks = 4
        maxSnapshots = 6
        versionPercent = min(versionPercent, 20)
        weights.crashProcess = 8
        weights.crashPower = 16
        weights.checkpoint = 8
        weights.verify = 0
    }

    /// A third of the worlds live near a full store; in the others cleaning happens as it comes.
    private mutating func specialiseCleaning(_ source: SeededRandom) {
        var random = source
        drawCleaner(permilles: [0, 25, 200, 500], &random)
        weights.clean = 3
        guard random.oneIn(3) else { return }
        self = Profile(character: .churning, random: &random)
        versionPercent = random.integer(in: 0...40)
        drawCleaner(permilles: [25, 200, 500], &random)
        weights.clean = 3
        if random.oneIn(4) { faults.slowOneIn = random.integer(in: 4...40) }
        if random.oneIn(8) { faults.readErrorOneIn = random.integer(in: 50...300) }
        if random.oneIn(12) { rotOneIn = random.integer(in: 20...60) }
    }

    /// How much is sorted at a time, and below how much free space cleaning begins.
    mutating func drawCleaner(permilles: [Int], _ random: inout SeededRandom) {
        shape.cleanerBatchBlocks = [192, 300, 600][random.index(below: 3)]
        shape.cleaningPermille = permilles[random.index(below: permilles.count)]
    }

    private mutating func specialiseVersions(_ random: inout SeededRandom) {
        switch character {
        case .storming:
            shape.streamCount = 1
            shape.storeBytes = UInt64(random.integer(in: 48...96)) << 20
            diskCount = 1
            diskBytes = [1 << 20]
            maxDisks = 3
            maxSnapshots = 1500
            versionPercent = 60
            versions.snapshot = 4
            versions.storm = 20
            versions.deleteMany = 4
            stormLength = 40...160
            weights.delete = 0
            weights.burst = 20
        case .hoarding:
            shape.storeBytes = UInt64(random.integer(in: 10...20)) << 20
            shape.streamCount = 1
            diskCount = 2
            diskBytes = [1 << 20, 2 << 20]
            maxDisks = 6
            maxSnapshots = 64
            versions.snapshot = 60
            versions.deleteMany = 6
        case .plain, .cramped, .manyStreams, .deepTrees, .failing, .rotting, .lying, .churning:
            break
        }
        if random.oneIn(3) { shape.nodeCacheBytes = 64 * blockBytes }
        if random.oneIn(6) {
            // Many branches of branches.
            versions.clone = 40
            versions.chain = 6
            maxDisks = 24
        }
    }

    package init(character: Character, random: inout SeededRandom) {
        self.character = character
        shape.extentBytes = 1 << 20
        shape.storeBytes = UInt64(random.integer(in: 24...96)) << 20
        shape.streamCount = random.chance(percent: 20) ? 2 : 1
        shape.nodeCacheBytes = random.integer(in: 64...128) * blockBytes
        shape.checkpointLogBytes = random.integer(in: 1...12) << 20
        shape.maxChunksInFlight = random.integer(in: 1...6)
        shape.checkpointIntervalNanoseconds =
            random.chance(percent: 50) ? 30_000_000_000 : 50_000_000
        queueDepth = [1, 2, 8, 32, 128][random.index(below: 5)]
        diskCount = random.integer(in: 1...4)
        diskBytes = [1 << 20, 2 << 20, 4 << 20, 8 << 20]
        specialise(&random)
    }

    private mutating func specialise(_ random: inout SeededRandom) {
        switch character {
        case .plain: break
        case .cramped:
            shape.storeBytes = UInt64(random.integer(in: 7...16)) << 20
            shape.streamCount = 1
            weights.delete = 4
            weights.create = 5
        case .manyStreams:
            shape.streamCount = random.integer(in: 2...4)
            diskCount = shape.streamCount * 2
            let slots = shape.streamCount * Limits.extentsPerStream
            shape.storeBytes = max(shape.storeBytes, UInt64(slots + 2) << 20)
        case .deepTrees:
            diskBytes = [1 << 30, 1 << 40, 64 << 40]
            shape.nodeCacheBytes = 64 * blockBytes
        case .failing:
            shape.streamCount = 1
            let kind = random.index(below: 4)
            if kind == 0 || kind == 3 { faults.readErrorOneIn = random.integer(in: 10...300) }
            if kind == 1 || kind == 3 { faults.writeErrorOneIn = random.integer(in: 100...600) }
            if kind == 2 || kind == 3 { faults.syncErrorOneIn = random.integer(in: 10...60) }
        case .rotting:
            rotOneIn = random.integer(in: 10...60)
        case .storming, .hoarding: break
        case .churning: churn(&random)
        case .lying:
            let kind = random.index(below: 3)
            if kind == 0 { faults.lostWriteOneIn = random.integer(in: 20...200) }
            if kind == 1 { faults.misdirectedWriteOneIn = random.integer(in: 50...400) }
            if kind == 2 { faults.lyingSyncOneIn = random.integer(in: 2...10) }
        }
        if random.chance(percent: 30) { faults.slowOneIn = random.integer(in: 4...40) }
    }

    /// Disks of half the store to all of it, written in large requests and rarely discarded.
    private mutating func churn(_ random: inout SeededRandom) {
        shape.storeBytes = UInt64(random.integer(in: 12...40)) << 20
        shape.streamCount = random.oneIn(5) ? 2 : 1
        // What each stream holds in advance must be a small part of it.
        if shape.streamCount == 2 { shape.storeBytes = max(shape.storeBytes, 26 << 20) }
        shape.checkpointLogBytes = random.integer(in: 1...4) << 20
        let share = random.integer(in: 50...99)
        diskCount = random.integer(in: 1...3)
        let mebibytes = max(1, Int(shape.storeBytes >> 20) * share / 100 / diskCount)
        diskBytes = [UInt64(mebibytes) << 20]
        maxDisks = diskCount + 2
        maxSnapshots = 6
        weights.burst = 120
        weights.create = 1
        weights.delete = 1
        writesMuch = true
    }
}
