// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The log cleaner: a round of it, step by step. `docs/space.md` has the whole.
extension Engine {
    /// Moves the cleaner on, as far as its pacing lets it.
    mutating func advanceCleaner() {
        guard failure == nil, !isWindingDown, !cleaner.isBroken else { return }
        settlePacing()
        switch cleaner.phase {
        case .idle: if mayClean, !cleaner.isBusy { beginRound() }
        case .scanning: scanOn()
        case .writing: writeSurvivors()
        }
    }

    /// Chooses victims and begins to read them.
    private mutating func beginRound() {
        if cleaner.pacing.isUrgent, mayFreeExtents, isCheckpointWorthIt {
            // What has been emptied comes back first.
            checkpoint.isNeeded = true
            return
        }
        // With little room it would have to take what fits, and not what is best.
        guard cleaner.pacing.isUrgent || hasRoomForVictim else {
            // Nobody waits for a goal, and there is no slot to reach it with.
            if isCleaningToGoal, wasRefusedExtent, !isDropUnderWay { noteNothingToClean() }
            return
        }
        let victims = chooseVictims()
        guard !victims.isEmpty else {
            if cleaner.pacing.isUrgent, mayFreeExtents {
                checkpoint.isNeeded = true
                return
            }
            return isDropUnderWay ? () : noteNothingToClean()
        }
        cleaner.beginRound(victims)
        scanOn()
    }

    var hasRoomForVictim: Bool {
        cleaner.room(extentBlocks: superblock.extentBlocks) >= superblock.extentBlocks / 8 * 7
    }

    /// Looks through what has been read, in order, and reads on.
    private mutating func scanOn() {
        while true {
            readAhead()
            guard cleaner.hasPieces else {
                if cleaner.victims.isEmpty { beginWriting() }
                return
            }
            let index = cleaner.oldestPiece % Cleaner.pieceCount
            let piece = cleaner.pieces[index]
            if piece.state == .reading { return }
            if piece.victim != cleaner.scan.victim {
                cleaner.scan = Cleaner.Scan(victim: piece.victim, block: piece.start)
            }
            lookThrough(piece, cleaner.memory(ofPiece: index))
            guard cleaner.scan.block == piece.start + piece.count else { return beginWriting() }
            cleaner.oldestPiece += 1
            if cleaner.scan.block == superblock.extentBlocks { finishVictim() }
            if cleaner.isBatchFull { return beginWriting() }
        }
    }

    /// Keeps the next pieces coming.
    private mutating func readAhead() {
        let pace = readingPace
        while cleaner.hasFreePiece, cleaner.readsInFlight < pace.atOnce,
            let victim = cleaner.victims.first, mayClean, readRoom > 0
        {
            guard let slot = forest.extents.slot(of: victim) else {
                // Nothing lived in it any more, and it has been dropped.
                cleaner.victims.removeFirst()
                cleaner.nextToRead = 0
                continue
            }
            let start = cleaner.nextToRead
            let count = min(pace.blocks, superblock.extentBlocks - start)
            cleaner.nextToRead += count
            if cleaner.nextToRead == superblock.extentBlocks {
                cleaner.victims.removeFirst()
                cleaner.nextToRead = 0
            }
            read(
                Cleaner.Piece(victim: victim, start: start, count: count, epoch: epochs.enter()),
                slot)
        }
    }

    private mutating func read(_ piece: Cleaner.Piece, _ slot: ExtentSlot) {
        let index = cleaner.newestPiece % Cleaner.pieceCount
        let bytes = piece.count * blockBytes
        cleaner.pieces[index] = piece
        cleaner.newestPiece += 1
        cleaner.readsInFlight += 1
        cleaner.pacing.credit -= piece.count
        counters.cleanerReadBytes += UInt64(bytes)
        let buffer = cleaner.readBuffers + index
        buffer.initialize(to: DataSegment(base: cleaner.memory(ofPiece: index), count: bytes))
        commands.append(
            StoreCommand(
                operation: .read, tag: CommandTag(.clean, index).rawValue,
                offset: superblock.byteOffset(slot: slot, block: piece.start), byteCount: bytes,
                buffers: UnsafePointer(buffer), bufferCount: 1))
    }

    private mutating func finishVictim() {
        let victim = cleaner.scan.victim
        let isThere = forest.extents.contains(victim)
        if cleaner.scan.damaged > 0, isThere {
            forest.extents.pin(victim)
            counters.cleanerDamagedBlocks += UInt64(cleaner.scan.damaged)
        }
        counters.cleanedExtents += 1
        if renewTables(), isThere { forest.extents.noteCleaned(victim) }
    }

    mutating func completeClean(_ index: Int, result: Int) {
        if index >= Cleaner.pieceCount {
            return completeColdChunk(index - Cleaner.pieceCount, result)
        }
        cleaner.readsInFlight -= 1
        epochs.leave(cleaner.pieces[index].epoch)
        // A medium that fails here may be good elsewhere: what cannot be read stays where it is.
        let isRead = result == cleaner.pieces[index].count * blockBytes
        cleaner.pieces[index].state = isRead ? .read : .unreadable
        if failure == nil, !isWindingDown, cleaner.phase == .scanning { scanOn() }
    }
}
