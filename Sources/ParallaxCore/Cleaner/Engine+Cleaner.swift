// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The log cleaner: a round of it, step by step. `docs/space.md` has the whole.
extension Engine {
    /// Moves the cleaner on by one read or write, if its pacing lets it.
    mutating func advanceCleaner() {
        guard failure == nil, !isWindingDown, !cleaner.isBusy, !cleaner.isBroken else { return }
        settlePacing()
        guard mayClean, readRoom > 0 else { return }
        switch cleaner.phase {
        case .idle: beginRound()
        case .scanning: scanOn()
        case .writing: writeChunkOfSurvivors()
        }
    }

    /// Chooses victims and begins to read the first.
    private mutating func beginRound() {
        if cleaner.pacing.isUrgent, mayFreeExtents, isCheckpointWorthIt(factor: 1) {
            // What has been emptied comes back first.
            checkpoint.isNeeded = true
            return
        }
        cleaner.victims = chooseVictims()
        guard !cleaner.victims.isEmpty else {
            if cleaner.pacing.isUrgent, mayFreeExtents {
                checkpoint.isNeeded = true
                return
            }
            return noteNothingToClean()
        }
        cleaner.survivors.removeAll(keepingCapacity: true)
        cleaner.movedCount = 0
        cleaner.phase = .scanning
        beginVictim()
        scanOn()
    }

    private mutating func beginVictim() {
        cleaner.scan = Cleaner.Scan(victim: cleaner.victims.removeFirst())
    }

    /// Looks through what has been read, and reads on.
    private mutating func scanOn() {
        let scan = cleaner.scan
        if scan.block < scan.pieceEnd { lookThroughPiece() }
        if cleaner.isBatchFull { return beginWriting() }
        guard cleaner.scan.block < superblock.extentBlocks else { return finishVictim() }
        guard let slot = forest.extents.slot(of: cleaner.scan.victim) else {
            // Nothing lived in it any more, and a checkpoint has dropped it.
            cleaner.scan.block = superblock.extentBlocks
            return finishVictim()
        }
        let start = cleaner.scan.block
        let count = min(Cleaner.pieceBlocks, superblock.extentBlocks - start)
        cleaner.scan.pieceStart = start
        cleaner.scan.pieceEnd = start
        cleaner.pacing.credit -= count
        cleaner.buffers.initialize(
            to: DataSegment(base: cleaner.piece.base, count: count * blockBytes))
        cleaner.isBusy = true
        cleaner.readEpoch = epochs.enter()
        counters.cleanerReadBytes += UInt64(count * blockBytes)
        commands.append(
            StoreCommand(
                operation: .read, tag: CommandTag(.clean, 0).rawValue,
                offset: superblock.byteOffset(slot: slot, block: start),
                byteCount: count * blockBytes, buffers: UnsafePointer(cleaner.buffers),
                bufferCount: 1))
    }

    private mutating func finishVictim() {
        if cleaner.scan.damaged > 0 {
            forest.extents.pin(cleaner.scan.victim)
            counters.cleanerDamagedBlocks += UInt64(cleaner.scan.damaged)
        }
        counters.cleanedExtents += 1
        renewTables()
        guard !cleaner.victims.isEmpty else {
            cleaner.scan.isOver = true
            return beginWriting()
        }
        beginVictim()
        scanOn()
    }

    mutating func completeClean(result: Int) {
        cleaner.isBusy = false
        if cleaner.readEpoch != 2 {
            epochs.leave(cleaner.readEpoch)
            cleaner.readEpoch = 2
        }
        guard failure == nil else { return }
        switch cleaner.phase {
        case .idle: return
        case .scanning:
            let start = cleaner.scan.pieceStart
            let count = min(Cleaner.pieceBlocks, superblock.extentBlocks - start)
            if result == count * blockBytes {
                cleaner.scan.pieceEnd = start + count
                lookThroughPiece()
            } else {
                passUnreadablePiece(start, count)
            }
        case .writing: completeColdChunk(result)
        }
    }

    /// What cannot be read stays where it is; a medium that fails here may be good elsewhere.
    private mutating func passUnreadablePiece(_ start: Int, _ count: Int) {
        for block in start..<start + count
        where forest.extents.isLive(BlockAddress(extent: cleaner.scan.victim, block: block)) {
            cleaner.scan.damaged += 1
        }
        cleaner.scan.payloadLeft = 0
        cleaner.scan.block = start + count
        cleaner.scan.pieceEnd = cleaner.scan.block
    }
}

/// Putting what lives into cold extents.
extension Engine {
    /// In the order of the disks, so that what was written at random reads sequentially again;
    /// nodes behind the data, from which they are never read together.
    private mutating func beginWriting() {
        cleaner.phase = .writing
        cleaner.movedCount = 0
        cleaner.survivors.sort { left, right in
            if (left.level < 0) != (right.level < 0) { return left.level < 0 }
            if left.vdi != right.vdi { return left.vdi < right.vdi }
            return left.firstBlock < right.firstBlock
        }
        writeChunkOfSurvivors()
    }

    private mutating func writeChunkOfSurvivors() {
        guard cleaner.movedCount < cleaner.survivors.count else { return finishBatch() }
        guard openColdExtent() else { return }
        let limit = min(
            Cleaner.blocksPerChunk, superblock.extentBlocks - cleaner.cold.filled - 1)
        cleaner.attempts = 0
        var count = 0
        let header = cleaner.coldHeader.base
        Memory.zero(header, count: blockBytes)
        var writer = ByteWriter(header, capacity: blockBytes, at: ChunkHeader.recordsOffset)
        var position = cleaner.movedCount
        while position < cleaner.survivors.count, count < limit {
            let run = runOfOneVDI(from: position, limit: limit - count)
            let bytes = ChunkRecord.movedFixedBytes + run * MovedBlock.bytes
            guard writer.count + bytes <= blockBytes else { break }
            writer.put(ChunkRecord.Kind.moved)
            writer.put(UInt8(0))
            writer.put(UInt16(run))
            writer.put(UInt32(0))
            writer.put(cleaner.survivors[position].vdi)
            for index in position..<position + run {
                cleaner.survivors[index].name = nameOf(cleaner.survivors[index])
                let survivor = cleaner.survivors[index]
                MovedBlock(
                    name: survivor.name, level: Int(survivor.level),
                    firstBlock: survivor.firstBlock, checksum: survivor.checksum
                ).write(to: &writer)
                (cleaner.buffers + 1 + count + index - position).initialize(
                    to: DataSegment(
                        base: cleaner.batchMemory() + Int(survivor.buffer) * blockBytes,
                        count: blockBytes))
            }
            position += run
            count += run
        }
        cleaner.chunkCount = count
        ChunkHeader(
            uuid: superblock.uuid, stream: configuration.stream, payloadBlocks: count,
            lsn: LogSequenceNumber(0), generation: superblock.generation,
            extent: cleaner.cold.newest, block: cleaner.cold.filled,
            recordBytes: writer.count - ChunkHeader.recordsOffset,
            durableLSN: LogSequenceNumber(0)
        ).encode(to: header)
        cleaner.buffers.initialize(to: DataSegment(base: header, count: blockBytes))
        sendColdChunk()
    }

    /// How many survivors from `position` on are of one VDI and fit into a record together.
    private func runOfOneVDI(from position: Int, limit: Int) -> Int {
        let vdi = cleaner.survivors[position].vdi
        let end = min(cleaner.survivors.count, position + limit)
        var index = position + 1
        while index < end, cleaner.survivors[index].vdi == vdi { index += 1 }
        return index - position
    }

    private mutating func sendColdChunk() {
        guard let slot = forest.extents.slot(of: cleaner.cold.newest) else {
            preconditionFailure("Cleaner: the cold extent is not there")
        }
        let bytes = (1 + cleaner.chunkCount) * blockBytes
        cleaner.isBusy = true
        counters.cleanerWrittenBytes += UInt64(bytes)
        commands.append(
            StoreCommand(
                operation: .write, tag: CommandTag(.clean, 0).rawValue,
                offset: superblock.byteOffset(slot: slot, block: cleaner.cold.filled),
                byteCount: bytes, buffers: UnsafePointer(cleaner.buffers),
                bufferCount: UInt32(1 + cleaner.chunkCount)))
    }

    /// False: there is no room; a checkpoint has to give slots back first.
    private mutating func openColdExtent() -> Bool {
        if cleaner.isColdOpen, superblock.extentBlocks - cleaner.cold.filled < 2 {
            sealColdExtent()
        }
        if cleaner.isColdOpen { return true }
        guard !cleaner.spares.isEmpty else {
            abandonRound()
            return false
        }
        cleaner.cold.newest = cleaner.spares.removeFirst()
        cleaner.cold.filled = 0
        cleaner.isColdOpen = true
        forest.extents.setState(cleaner.cold.newest, .open)
        return true
    }

    private mutating func sealColdExtent() {
        forest.extents.setState(cleaner.cold.newest, .sealed)
        // Younger than any checkpoint that has begun: those do not know what is in it.
        forest.extents.noteChunk(cleaner.cold.newest, lsn: log.nextLSN)
        cleaner.cold.filled = superblock.extentBlocks
        cleaner.isColdOpen = false
    }

    private mutating func completeColdChunk(_ result: Int) {
        guard result == (1 + cleaner.chunkCount) * blockBytes else {
            cleaner.attempts += 1
            if cleaner.attempts < Self.writeAttempts {
                sendColdChunk()
            } else {
                // What is not moved stays where it is.
                sealColdExtent()
                cleaner.isBroken = true
                abandonRound()
            }
            return
        }
        let first = BlockAddress(
            extent: cleaner.cold.newest, block: cleaner.cold.filled + 1)
        for index in 0..<cleaner.chunkCount {
            move(cleaner.survivors[cleaner.movedCount + index], to: first.advanced(by: index))
        }
        cleaner.movedCount += cleaner.chunkCount
        cleaner.cold.filled += 1 + cleaner.chunkCount
        if cleaner.movedCount == cleaner.survivors.count { finishBatch() }
    }

    /// The block is at its new place, too: from now on that is the one which counts. Unless it has
    /// died meanwhile, or has got another name than its new chunk says.
    private mutating func move(_ survivor: Cleaner.Survivor, to place: BlockAddress) {
        guard forest.extents.isLive(survivor.place), nameOf(survivor) == survivor.name else {
            return
        }
        forest.forwards.set(survivor.name, to: place)
        forest.namesForwarded += 1
        forest.extents.removeLive(survivor.place)
        forest.extents.addLive(place)
        counters.movedBlocks += 1
        changesSinceFreeze += 1
    }

    /// The name by which trees know the block now: that which its chunk says, unless it has been
    /// given up for the place.
    private func nameOf(_ survivor: Cleaner.Survivor) -> BlockAddress {
        forest.forwards.find(survivor.name) == survivor.place ? survivor.name : survivor.place
    }

    /// The batch is in its new places; the victim under way may have more.
    private mutating func finishBatch() {
        cleaner.survivors.removeAll(keepingCapacity: true)
        cleaner.movedCount = 0
        if cleaner.scan.isOver {
            cleaner.phase = .idle
            noteRoundFinished()
        } else {
            cleaner.phase = .scanning
        }
    }

    private mutating func abandonRound() {
        cleaner.survivors.removeAll(keepingCapacity: true)
        cleaner.victims.removeAll(keepingCapacity: true)
        cleaner.phase = .idle
        noteRoundFinished()
    }
}
