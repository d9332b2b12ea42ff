// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Who may use the last blocks of the log, so that a full store can always be emptied again.
///
/// ```
///   blocks left in the log and in leased extents
///   | data, new VDIs | holes that guests ask for | deletions | cleaning | checkpoints |
///   ^ plenty         ^ checkpoint + cleaning     ^ + 1       ^ checkpoint + cleaning  ^ 0
///                      + 2 of the largest
/// ```
/// To free an extent takes a deletion, the holes that it makes, and a checkpoint. A checkpoint
/// that a crash cuts off has used its blocks for nothing, and one that frees nothing uses them for
/// little: so data leave room for two of the largest kind, and in a full store a checkpoint begins
/// only if it frees an extent, or if dirty nodes leave no other way. Deletions use most of what is
/// kept for cleaning where there is nothing to clean.
extension CatalogChange {
    /// What may be used of the log for its record. What keeps blocks alive, as a snapshot does,
    /// goes before writes do.
    var reserve: Engine.Reserve {
        switch self {
        case .create, .clone, .snapshot, .rollback: .data
        case .resize, .rename, .setAttributes, .setDetails: .holes
        case .delete, .deleteSnapshot, .finishGroup: .deletion
        }
    }
}

extension Engine {
    /// What a caller may use of the log's last blocks.
    enum Reserve {
        /// What makes the store fuller.
        case data
        /// Holes that guests ask for.
        case holes
        /// Deletions and what they entail.
        case deletion
        /// The checkpoint itself.
        case checkpoint
    }

    /// Where a snapshot is held, a release lets a deletion follow. Other details can be changed as often as
    /// somebody likes.
    func reserve(of change: CatalogChange) -> Reserve {
        guard case .setDetails(let identifier, let details) = change, !details.isHeld,
            let row = visibleRow(of: identifier), catalog.versions[row].isHeld
        else { return change.reserve }
        return .deletion
    }

    /// Holds changes back while a replay would need too many node frames, or the log too much
    /// space: then a checkpoint has to come first.
    mutating func throttle(_ reserve: Reserve) -> ChunkRoom? {
        guard reserve != .checkpoint else { return nil }
        guard failure == nil else { return .wait }
        // Changes of the catalogue need no frames.
        let frames =
            reserve == .deletion ? 0 : (stagedOperations + 1) * RadixForest.framesPerChange
        if frames > 0, forest.cache.replayBound + frames > frameLimit / 4 * 3 {
            checkpoint.isNeeded = true
            let isHopeless = isStoreFull && checkpoint.phase == .idle && !hasRoomForCheckpoint
            return isHopeless ? refuse(reserve) : .wait
        }
        guard usableBlocks < blocksToLeave(by: reserve) else { return nil }
        if hasRefusedData, reserve == .data { return refuse(reserve) }
        guard isStoreFull, extentsRequested == 0, !isDropUnderWay, !log.hasUnappliedExtents else {
            return .wait
        }
        if isCheckpointRelief {
            checkpoint.isNeeded = true
            return .wait
        }
        if mayFreeExtents {
            // One that takes more than it gives would only make it worse, as long as there is more.
            if isCheckpointWorthIt || !cleanForWaiting() { checkpoint.isNeeded = true }
            return .wait
        }
        if cleanForWaiting() { return .wait }
        switch reserve {
        case .deletion: return roomForLastDeletions
        case .holes: return lowerFrameLimitToSpace() ? nil : refuse(reserve)
        case .data, .checkpoint: return refuse(reserve)
        }
    }

    /// What is kept for cleaning is of no use where there is nothing to clean: a deletion may use it, but
    /// for the checkpoint after it and then a round of the cleaner (`chooseVictims`). What is dirty counts
    /// twice in that, and a checkpoint takes it once.
    private var roomForLastDeletions: ChunkRoom? {
        mutating get {
            let needed = 2 * checkpointReserve + tableBlocks + superblock.extentBlocks / 16
            if usableBlocks >= needed { return nil }
            let gain = forest.cache.replayBound - dirtyTableBlocks - 32
            guard gain > 0, checkpoint.phase == .idle, changesSinceFreeze > 0, hasRoomForCheckpoint
            else { return refuse(.deletion) }
            checkpoint.isNeeded = true
            return .wait
        }
    }

    /// There is no space. Before the end nothing is cleaned any more, so that nobody can say that: guests
    /// that get no answer ask again after the next start.
    private mutating func refuse(_ reserve: Reserve) -> ChunkRoom {
        if isWindingDown && requests.usedCount > 0 { return .wait }
        // To look again takes a walk through all extents.
        if !(hasRefusedData && reserve == .data) { noteRefusal() }
        hasRefusedData = hasRefusedData || reserve == .data
        return .full
    }

    /// Whether a checkpoint now would give back four times the blocks that it takes; where nothing but
    /// checkpoints gives anything back, as many. A checkpoint leaves extents behind which only the next
    /// can drop: those that its nodes are in.
    var isCheckpointWorthIt: Bool {
        let factor = mayLogMoves ? 4 : 1
        return emptyExtents * superblock.extentBlocks
            >= factor * (forest.cache.dirtyCount + catalog.pages.dirty.count + dirtyTableBlocks)
    }

    /// Whether more would be left after a checkpoint, because of the record pages that need not be written
    /// any more: each of them is in three of the reserves at least.
    var isCheckpointRelief: Bool {
        checkpoint.phase == .idle && changesSinceFreeze > 0 && hasRoomForCheckpoint
            && 2 * catalog.pages.dirty.count > dirtyTableBlocks + 32
    }

    /// Whether writes wait for space, or would.
    var isWaitingForSpace: Bool { usableBlocks < blocksToLeave(by: .data) }

    func blocksToLeave(by reserve: Reserve) -> Int {
        switch reserve {
        case .data:
            checkpointReserve + 2 * largestCheckpoint + purgeReserve + cleaningReserve + 64
        case .holes: checkpointReserve + largestCheckpoint + purgeReserve + cleaningReserve
        case .deletion: checkpointReserve + cleaningReserve + 16
        case .checkpoint: 0
        }
    }

    /// Blocks that the log can still take, less what is lost at the end of each extent.
    var usableBlocks: Int {
        log.availableBlocks - (log.leases.count + 1) * LogWriter.lostPerExtent
    }

    /// Leases with which so many blocks are usable, wherever in its extent the log is.
    private func leases(for blocks: Int) -> Int {
        let usable = superblock.extentBlocks - LogWriter.lostPerExtent
        return (blocks + LogWriter.lostPerExtent + usable - 1) / usable
    }

    /// Blocks of log that a checkpoint begun now might need.
    var checkpointReserve: Int {
        checkpointBlocks(
            nodes: forest.cache.replayBound + stagedOperations * RadixForest.framesPerChange)
    }

    /// Whether a checkpoint of what is dirty now can be written to its end.
    var hasRoomForCheckpoint: Bool {
        usableBlocks >= checkpointBlocks(nodes: forest.cache.replayBound) - 16
    }

    /// Blocks that a checkpoint may need after any number of holes: no more nodes can be dirty
    /// than there are, nor than a checkpoint is waited for.
    private var largestCheckpoint: Int {
        checkpointBlocks(
            nodes: min(
                frameLimit / 4 * 3, forest.liveNodes + forest.cache.replayBound))
    }

    private func checkpointBlocks(nodes: Int) -> Int {
        nodes + nodes / 64 + tableBlocks + tableBlocks / 128 + 32
    }

    /// Blocks for the checkpoints of cleaning in a full store, until it has given back a whole
    /// extent: each round gives at least three times as much as its checkpoint takes.
    private var cleaningReserve: Int { superblock.extentBlocks / 3 + 2 * tableBlocks }

    /// What a checkpoint takes that knows of so many moves and little else: the tables, the pages of
    /// live bits of the extents in question, the forward pages.
    func cleaningCost(moves: Int) -> Int { 16 + tableBytesBlocks + moves / 64 }

    /// Blocks that the tables themselves take.
    private var tableBytesBlocks: Int {
        CheckpointTables.blockCount(
            extents: forest.extents.count, indexBlocks: catalog.pages.indexCount + 1,
            livePages: livePageBound, forwardPages: forest.forwards.pages.count + 2)
    }

    /// Blocks that a checkpoint now would write of the tables and what belongs to them.
    private var dirtyTableBlocks: Int {
        tableBytesBlocks + forest.forwards.dirtyCount + forest.extents.livePages.dirty.count
    }

    var tableBlocks: Int {
        tableBytesBlocks + livePageBound + forest.forwards.pages.count + 2
            + catalog.pages.checkpointBlocks(more: stagedOperations + Self.pagesPerDeletion)
            + checkpoint.pages.count - checkpoint.stagedPages
    }

    /// Whether deletions may change more record pages: what they change must get into a checkpoint.
    var hasRoomForDeletions: Bool { usableBlocks >= checkpointReserve + Self.pagesPerDeletion }

    /// The same for work in the background, of which there may be any amount: it leaves what a deletion
    /// needs that an administrator asks for, and cleaning. What was let in with just that comes to its
    /// end all the same, if it changes no more pages than a part of what is kept for cleaning.
    var hasRoomToFinish: Bool {
        guard hasRoomForDeletions else { return false }
        let dirty = catalog.pages.dirty.count
        let withoutPages =
            blocksToLeave(by: .deletion) - 3 * catalog.pages.checkpointBlocks(more: 0)
        return dirty <= Self.pagesPerDeletion
            || usableBlocks >= withoutPages && dirty <= superblock.extentBlocks / 12
            || usableBlocks >= withoutPages + dirty + dirtyTableBlocks + 16
    }

    private var livePageBound: Int {
        forest.extents.livePages.pageCount(extents: forest.extents.count + 2)
    }

    /// Record pages that a deletion and what it entails change at a time: the version's own, its
    /// neighbours', those of the heads behind them.
    private static let pagesPerDeletion = 8

    /// Blocks for the records of deletions and for the checkpoints around them: one that gives what
    /// is deleted its places, one that frees the extents.
    private var purgeReserve: Int { 64 + 2 * (tableBlocks + 8) }

    /// Whether a checkpoint would free an extent, or one that is under way may.
    var mayFreeExtents: Bool {
        if checkpoint.phase != .idle || !releasing.isEmpty || !grace.isEmpty || !released.isEmpty {
            return true
        }
        return hasEmptyExtents && usableBlocks >= checkpointReserve
    }

    var hasEmptyExtents: Bool { emptyExtents > 0 }

    /// Extents in which nothing lives, and which the next checkpoint drops, or the one after it: the
    /// log cannot.
    private var emptyExtents: Int {
        var count = 0
        let mayLog = mayLogMoves
        for index in 0..<forest.extents.count {
            let extent = forest.extents[index]
            guard extent.state == .sealed, !(mayLog && isDroppableByLog(extent)) else { continue }
            if extent.live == 0 || isLeftByNextCheckpoint(extent) { count += 1 }
        }
        return count
    }

    /// Only tables live in it, which the next checkpoint writes anew.
    private func isLeftByNextCheckpoint(_ extent: ExtentTable.Extent) -> Bool {
        extent.cleanedUntil > checkpoint.root.sequence && !extent.isPinned
    }

    /// Another stream finds the store full: what this one can do without is due now, and not when
    /// its time has come. A checkpoint frees empty extents and leases held in advance; cleaning
    /// makes more. One without changes would free nothing more.
    package mutating func giveBackSpace() {
        yieldUntil = now + Self.yieldNanoseconds
        cleaner.pacing.credit = max(cleaner.pacing.credit, 2 * superblock.extentBlocks)
        let isWorthIt = changesSinceFreeze > 0 && hasEmptyExtents || hasSurplusLeases
        if isWorthIt { checkpoint.isNeeded = true }
    }

    private static let yieldNanoseconds: UInt64 = 1_000_000_000

    /// Others need what is held in advance, and nothing here waits for it.
    var isYielding: Bool {
        isAskedForSpace && staging.isEmpty && catalog.waiting.isEmpty
    }

    /// Leases without which deletions, and what they entail, would still be possible.
    private var neededLeases: Int { leases(for: blocksToLeave(by: .holes) + tableBlocks) }

    var hasLeaseToSpare: Bool { log.leases.count > neededLeases }

    var hasSurplusLeases: Bool { (isYielding || cleaner.pacing.needsLease) && hasLeaseToSpare }

    /// For the checkpoint that begins: the leases that it does without.
    mutating func returnSurplusLeases(replayLSN: LogSequenceNumber) {
        while hasSurplusLeases, let number = log.returnLastLease(replayLSN: replayLSN) {
            if let slot = forest.extents.slot(of: number) { checkpoint.returning.append(slot) }
            forest.extents.remove(number)
            // One is enough for the cleaner.
            cleaner.pacing.needsLease = false
        }
        cleaner.pacing.needsLease = false
    }

    /// Whether the blocks of a checkpoint that nothing depends on would be missed.
    var isShortOfSpace: Bool {
        wasRefusedExtent && usableBlocks < blocksToLeave(by: .data) && !hasEmptyExtents
            && !isCheckpointRelief
    }

    var spaceDiagnosis: String {
        "usable \(usableBlocks), to leave by data \(blocksToLeave(by: .data)) holes "
            + "\(blocksToLeave(by: .holes)) deletion \(blocksToLeave(by: .deletion)), head "
            + "\(log.head) of \(log.extentBlocks)"
    }

    /// Whether the log is close to its end and no extent follows: better an unprepared one now
    /// than a prepared one later.
    package var needsExtentNow: Bool {
        log.leases.isEmpty
            && (log.extentBlocks - log.head < log.extentBlocks / 4 || !staging.isEmpty)
    }

    /// Extents to ask the allocator for now.
    package var wantedExtents: Int {
        guard failure == nil, !isStoreFull, !wasRefusedExtent || now >= nextExtentRetry else {
            return 0
        }
        let leases = max(0, wantedLeases - log.leases.count)
        let spares = max(0, wantedSpares - cleaner.spares.count)
        return max(0, leases + spares - extentsRequested)
    }

    /// Extents to hold for the log.
    var wantedLeases: Int {
        isYielding
            ? neededLeases
            : configuration.leasesAhead + leases(for: blocksToLeave(by: .data))
    }

    /// Cold extents to hold: one always; for a whole batch when there is enough.
    var wantedSpares: Int {
        let free = cleaner.pacing.freeSlots
        let isAtWork = cleaner.pacing.isCleaning && free < cleaningThreshold || isCleaningToGoal
        guard isAtWork, !isYielding else { return 1 }
        return max(1, min(1 + cleaner.batchBlocks / superblock.extentBlocks, free / 4))
    }
}
