// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// When the cleaner works, and on what.
extension Engine {
    /// LIMIT: a victim must have this part of its blocks to give: an eighth when nobody waits,
    /// a sixteenth when somebody does. Below that it costs more than it brings.
    private func worthwhileDead(isPressed: Bool) -> Int {
        superblock.extentBlocks / (isPressed ? 16 : 8)
    }

    /// Free slots of the store below which cleaning begins.
    package var cleaningThreshold: Int {
        let share = Int(superblock.slotCount) * configuration.cleaningPermille / 1000
        return max(share, 2 + 2 * Int(superblock.streamCount))
    }

    /// The host tells how many slots of the store are free.
    package mutating func noteFreeSlots(_ count: Int) {
        cleaner.pacing.freeSlots = count
        if count > 0 { noteFreeSpace() }
    }

    /// Cleans until so many slots of the store are free, nothing is left that is worth it, or the device
    /// fails.
    package mutating func requestCleaning(untilFreeSlots goal: Int) {
        guard !cleaner.isBroken, failure == nil else { return }
        cleaner.pacing.goal = goal
        cleaner.pacing.goalRounds = 0
        cleaner.pacing.hopelessAt = nil
    }

    /// Whether a cleaning that was asked for is going on.
    package var isCleaningToGoal: Bool { cleaner.pacing.goal != nil }

    /// For each chunk that goes into the log: how many blocks of victims may be read for it.
    mutating func earnCredit(blocks: Int) {
        let threshold = cleaningThreshold
        let free = cleaner.pacing.freeSlots
        guard free < threshold else { return }
        // At a third below the threshold as much is cleaned as is written: a victim that is half
        // dead makes room for half of what is read.
        let lack = threshold - free
        let dead = max(1, deadShareOfVictims)
        let gain = blocks * 1000 * (3 * lack + threshold) / (2 * threshold * dead)
        cleaner.pacing.credit = min(
            cleaner.pacing.credit + gain, 2 * threshold * superblock.extentBlocks)
    }

    /// What part of a victim's blocks cleaning gives back, in thousandths, roughly: as the whole
    /// store has them.
    private var deadShareOfVictims: Int {
        let blocks = max(1, forest.extents.count * superblock.extentBlocks)
        return max(100, 1000 - 1000 * forest.extents.liveTotal / blocks)
    }

    /// Whether the next read or write may begin.
    var mayClean: Bool {
        let pacing = cleaner.pacing
        if pacing.isUrgent || pacing.goal != nil { return true }
        // What has been begun is ended, so that its victims can be given back.
        if cleaner.phase != .idle { return pacing.credit > 0 || requests.usedCount == 0 }
        return pacing.credit > 0 && pacing.freeSlots < cleaningThreshold
    }

    /// How many pieces may be read at a time, and how large they are. A device takes up commands in turn,
    /// so that each of them is what a guest's request may wait for: less is read beside guests, unless
    /// they wait for the cleaner, and little beside one that has few requests under way.
    var readingPace: (atOnce: Int, blocks: Int) {
        if cleaner.pacing.isUrgent || !isServing {
            return (Cleaner.pieceCount, Cleaner.pieceBlocks)
        }
        return requests.usedCount > Self.fewRequests
            ? (Cleaner.pieceCount - 1, Cleaner.pieceBlocks / 2) : (1, Cleaner.pieceBlocks / 4)
    }

    private static let fewRequests = 4

    /// Looks whether those who wait, or who have asked, have got what they wanted.
    mutating func settlePacing() {
        if cleaner.pacing.isUrgent, !isWaitingForSpace { endUrgency() }
        if let goal = cleaner.pacing.goal, cleaner.isQuiet, cleaner.pacing.freeSlots >= goal {
            cleaner.pacing.goal = nil
        }
    }

    private mutating func endUrgency() {
        cleaner.pacing.isUrgent = false
        cleaner.pacing.urgentRounds = 0
    }

    /// Those of which waiting would gain least: the cost of winning a block, (1 + u) / (1 - u), falls
    /// while blocks die, by the rate of deaths over the square of what is dead (Lomet and Luo,
    /// "Efficiently reclaiming space in a log structured store", 2021). Where all blocks die equally
    /// fast these are the emptiest. When somebody waits only what is dead counts.
    mutating func chooseVictims() -> [ExtentNumber] {
        let pacing = cleaner.pacing
        let isPressed = pacing.isUrgent || pacing.goal != nil
        let dead = worthwhileDead(isPressed: isPressed)
        var candidates: [Candidate] = []
        for index in 0..<forest.extents.count
        where isVictim(forest.extents[index], dead, isPressed: isPressed) {
            let extent = forest.extents[index]
            let rate = forest.extents.decayRate(
                at: index, clock: counters.chunkBytes / UInt64(blockBytes))
            let dead = Float(superblock.extentBlocks - Int(extent.live))
            candidates.append(
                (isPressed ? dead : dead * dead / rate, extent.number, Int(extent.live)))
            if candidates.count == 2 * Self.candidateCount { keepBest(&candidates) }
        }
        keepBest(&candidates)
        let coldRoom = cleaner.room(extentBlocks: superblock.extentBlocks)
        // The reserves are for those who wait: the checkpoint of this round, with the pages that moves
        // add, and the next.
        let least =
            pacing.isUrgent
            ? checkpointReserve + tableBlocks + coldRoom / 32
            : blocksToLeave(by: .holes) + tableBlocks
        guard usableBlocks >= least else { return [] }
        // When somebody waits, as much as there is room for.
        var room = pacing.isUrgent ? coldRoom : min(coldRoom, cleaner.batchBlocks)
        var victims: [ExtentNumber] = []
        var gain = 0
        for candidate in candidates {
            guard candidate.live <= room || (victims.isEmpty && candidate.live <= coldRoom) else {
                continue
            }
            victims.append(candidate.number)
            room -= candidate.live
            gain += superblock.extentBlocks - candidate.live
            if room <= 0 || victims.count == Self.victimsPerRound { break }
        }
        let moves = victims.count * superblock.extentBlocks - gain
        return !pacing.isUrgent || isUrgentRoundPaid(gain: gain, moves: moves) ? victims : []
    }

    /// What an urgent round brings must pay for its checkpoint (`cleaningReserve`), if that might take what
    /// deletions need. Above that it need not: mostly the log gives the victims up, without a checkpoint.
    /// Nor may it begin to use what deletions need where it would end before an extent has been won.
    private func isUrgentRoundPaid(gain: Int, moves: Int) -> Bool {
        let cost = cleaningCost(moves: moves) + min(moves, forest.forwards.pages.count)
        // A second one follows where the first leaves victims behind; new forward pages raise the reserves.
        let spent = 2 * cost + 3 * (moves / 32 + 2)
        if usableBlocks >= blocksToLeave(by: .deletion) + spent { return true }
        return gain >= 3 * cost && (!mayLogMoves || willWinExtent)
    }

    /// Whether all that there is to gain, with the room that has been won already, makes an extent.
    private var willWinExtent: Bool {
        let least = worthwhileDead(isPressed: true)
        let won = cleaner.room(extentBlocks: superblock.extentBlocks) - superblock.extentBlocks
        let prospect = cleaningProspect {
            $0.state == .sealed && $0.live == 0 || isVictim($0, least, isPressed: true)
        }
        return prospect + max(0, won) > 0
    }

    private static let victimsPerRound = 16

    private typealias Candidate = (score: Float, number: ExtentNumber, live: Int)

    /// Of hundreds of thousands of extents only these are sorted: some are too full for the room that is left.
    private static let candidateCount = 8 * victimsPerRound

    private func keepBest(_ candidates: inout [Candidate]) {
        candidates.sort { $0.score > $1.score }
        candidates.removeLast(max(0, candidates.count - Self.candidateCount))
    }

    /// Sealed, all of its chunks applied, and something in it: what is empty needs no cleaning.
    private func isVictim(_ extent: ExtentTable.Extent, _ least: Int, isPressed: Bool) -> Bool {
        extent.state == .sealed && extent.live > 0 && !extent.isPinned
            && extent.cleanedUntil <= checkpoint.root.sequence
            && extent.lastLSN <= appliedLSN
            // A replay needs the log since the last checkpoint: that is dropped by the next.
            && (isPressed || extent.number.isCold || extent.lastLSN < checkpoint.root.replayLSN)
            && superblock.extentBlocks - Int(extent.live) >= least
    }

    /// Whether cleaning may give somebody who waits an extent.
    private var mayGainByCleaning: Bool {
        guard !cleaner.isBroken, !isWindingDown else { return false }
        if cleaner.phase != .idle { return true }
        if let live = cleaner.pacing.hopelessAt {
            guard forest.extents.liveTotal + superblock.extentBlocks / 16 < live else {
                return false
            }
        }
        let least = worthwhileDead(isPressed: true)
        return cleaningProspect { isVictim($0, least, isPressed: true) } > 0
    }

    /// Blocks that there are to gain in these extents, beyond one extent and the checkpoints around it.
    private func cleaningProspect(in isCounted: (ExtentTable.Extent) -> Bool) -> Int {
        var gain = -superblock.extentBlocks - 2 * cleaningCost(moves: superblock.extentBlocks)
        for index in 0..<forest.extents.count where isCounted(forest.extents[index]) {
            let live = Int(forest.extents[index].live)
            gain += superblock.extentBlocks - live - superblock.extentBlocks / 64
        }
        return gain
    }

    /// Somebody has been told that there is no space. Whether that was right is not judged by what the
    /// cleaner would take now, but by all that is dead.
    mutating func noteRefusal() {
        let least = worthwhileDead(isPressed: true)
        let prospect = cleaningProspect {
            $0.state == .sealed && !$0.isPinned && superblock.extentBlocks - Int($0.live) >= least
        }
        prospectRefused = max(prospectRefused, prospect)
    }

    /// Somebody waits for space that only cleaning can give. False: it cannot.
    mutating func cleanForWaiting() -> Bool {
        if giveUpDeadColdExtent() { return true }
        guard mayGainByCleaning else { return false }
        cleaner.pacing.hopelessAt = nil
        cleaner.pacing.isUrgent = true
        guard cleaner.phase == .idle, chooseVictims().isEmpty else { return true }
        if takeLeaseFromLog() { return true }
        giveUpUrgency()
        return false
    }

    /// Without any room to move to, as when what was moved has emptied no extent because each kept a
    /// damaged block, the log does without one that it holds in advance. False: it cannot, or that
    /// is not what is missing.
    private mutating func takeLeaseFromLog() -> Bool {
        guard wasRefusedExtent, cleaner.spares.isEmpty, !hasRoomForVictim else { return false }
        // It is on its way.
        if !checkpoint.returning.isEmpty { return true }
        guard checkpoint.phase == .idle, hasLeaseToSpare else { return false }
        cleaner.pacing.needsLease = true
        checkpoint.isNeeded = true
        return true
    }

    mutating func noteNothingToClean() {
        if cleaner.pacing.isUrgent, !takeLeaseFromLog() { giveUpUrgency() }
        if hasEmptyExtents, cleaner.pacing.goal != nil, changesSinceFreeze > 0 {
            checkpoint.isWanted = true
        } else if checkpoint.phase == .idle, releasing.isEmpty, grace.isEmpty, !isDropUnderWay {
            cleaner.pacing.goal = nil
        }
        // Perhaps all that is worth it is younger than the last checkpoint.
        if isCheckpointPaid { checkpoint.isWanted = true }
        cleaner.pacing.credit = min(cleaner.pacing.credit, 0)
    }

    private mutating func giveUpUrgency() {
        cleaner.pacing.hopelessAt = forest.extents.liveTotal
        endUrgency()
    }

    /// LIMIT: rounds after which those who wait are told that the store is full.
    private var urgentRoundLimit: Int { 16 + 2 * forest.extents.count }

    mutating func noteRoundFinished() {
        counters.cleanerRounds += 1
        if cleaner.pacing.isUrgent {
            cleaner.pacing.urgentRounds += 1
            if cleaner.pacing.urgentRounds > urgentRoundLimit { giveUpUrgency() }
        }
        if cleaner.pacing.goal != nil {
            cleaner.pacing.goalRounds += 1
            if cleaner.pacing.goalRounds > urgentRoundLimit { cleaner.pacing.goal = nil }
        }
        guard hasEmptyExtents else { return }
        let isPressed =
            cleaner.pacing.isUrgent || cleaner.pacing.freeSlots < cleaningThreshold / 8
        if isCheckpointWorthIt, isPressed || isCheckpointPaid { checkpoint.isWanted = true }
    }

    /// Whether four times as much has been written since the last checkpoint as the next has nodes
    /// to write.
    private var isCheckpointPaid: Bool {
        bytesSinceCheckpoint / blockBytes >= 4 * max(forest.cache.dirtyCount, 64)
    }
}
