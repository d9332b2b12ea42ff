// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Putting what lives into cold extents.
extension Engine {
    /// In the order of the disks, so that what was written at random reads sequentially again;
    /// nodes behind the data, from which they are never read together.
    mutating func beginWriting() {
        cleaner.phase = .writing
        cleaner.survivors.sort { left, right in
            if (left.level < 0) != (right.level < 0) { return left.level < 0 }
            if left.vdi != right.vdi { return left.vdi < right.vdi }
            return left.firstBlock < right.firstBlock
        }
        writeSurvivors()
    }

    mutating func writeSurvivors() {
        while cleaner.stagedCount < cleaner.survivors.count,
            let index = cleaner.coldChunks.firstIndex(where: { $0.state == .free })
        {
            guard openColdExtent() else { return }
            fillColdChunk(index)
            sendColdChunk(index)
        }
        if cleaner.movedCount == cleaner.survivors.count { finishBatch() }
    }

    /// Lays out the next survivors and what is said about them.
    mutating func fillColdChunk(_ index: Int) {
        let limit = min(
            Cleaner.blocksPerChunk, superblock.extentBlocks - cleaner.cold.filled - 1)
        let header = cleaner.header(ofChunk: index)
        let buffers = cleaner.buffers(ofChunk: index)
        let memory = cleaner.batchMemory()
        Memory.zero(header, count: blockBytes)
        var writer = ByteWriter(header, capacity: blockBytes, at: ChunkHeader.recordsOffset)
        var position = cleaner.stagedCount
        var count = 0
        while position < cleaner.survivors.count, count < limit {
            let room = blockBytes - writer.count - ChunkRecord.movedFixedBytes
            guard room >= MovedBlock.bytes else { break }
            let run = runOfOneVDI(
                from: position, limit: min(limit - count, room / MovedBlock.bytes))
            writer.put(ChunkRecord.Kind.moved)
            writer.put(UInt8(0))
            writer.put(UInt16(run))
            writer.put(UInt32(0))
            writer.put(cleaner.survivors[position].vdi)
            for offset in 0..<run {
                let survivor = cleaner.survivors[position + offset]
                MovedBlock(
                    name: forest.name(of: survivor.place), level: Int(survivor.level),
                    firstBlock: survivor.firstBlock, checksum: survivor.checksum
                ).write(to: &writer)
                (buffers + 1 + count + offset).initialize(
                    to: DataSegment(
                        base: memory + Int(survivor.buffer) * blockBytes, count: blockBytes))
            }
            position += run
            count += run
        }
        ChunkHeader(
            uuid: superblock.uuid, stream: configuration.stream, payloadBlocks: count,
            lsn: LogSequenceNumber(0), generation: superblock.generation,
            extent: cleaner.cold.newest, block: cleaner.cold.filled,
            recordBytes: writer.count - ChunkHeader.recordsOffset,
            durableLSN: LogSequenceNumber(0)
        ).encode(to: header)
        buffers.initialize(to: DataSegment(base: header, count: blockBytes))
        cleaner.coldChunks[index] = Cleaner.ColdChunk(
            first: cleaner.stagedCount, count: count,
            place: BlockAddress(extent: cleaner.cold.newest, block: cleaner.cold.filled))
        cleaner.stagedCount = position
        cleaner.cold.filled += 1 + count
    }

    /// How many survivors from `position` on are of one VDI and fit into a record together.
    private func runOfOneVDI(from position: Int, limit: Int) -> Int {
        let vdi = cleaner.survivors[position].vdi
        let end = min(cleaner.survivors.count, position + limit)
        var index = position + 1
        while index < end, cleaner.survivors[index].vdi == vdi { index += 1 }
        return index - position
    }

    private mutating func sendColdChunk(_ index: Int) {
        let chunk = cleaner.coldChunks[index]
        guard let slot = forest.extents.slot(of: chunk.place.extent) else {
            preconditionFailure("Cleaner: the cold extent is not there")
        }
        let bytes = (1 + chunk.count) * blockBytes
        cleaner.coldChunks[index].state = .writing
        cleaner.writesInFlight += 1
        counters.cleanerWrittenBytes += UInt64(bytes)
        commands.append(
            StoreCommand(
                operation: .write, tag: CommandTag(.clean, Cleaner.pieceCount + index).rawValue,
                offset: superblock.byteOffset(slot: slot, block: chunk.place.block),
                byteCount: bytes, buffers: UnsafePointer(cleaner.buffers(ofChunk: index)),
                bufferCount: UInt32(1 + chunk.count)))
    }

    /// False: there is no room; a checkpoint has to give slots back first. An extent into which
    /// something is being written is not sealed: empty as it may be, it would be dropped.
    private mutating func openColdExtent() -> Bool {
        if cleaner.isColdOpen, superblock.extentBlocks - cleaner.cold.filled < 2 {
            guard cleaner.writesInFlight == 0 else { return false }
            sealColdExtent()
        }
        if cleaner.isColdOpen { return true }
        guard !cleaner.spares.isEmpty else {
            if cleaner.writesInFlight == 0 { abandonRound() }
            return false
        }
        cleaner.cold.newest = cleaner.spares.removeFirst()
        cleaner.cold.filled = 0
        cleaner.isColdOpen = true
        forest.extents.setState(cleaner.cold.newest, .open)
        return true
    }

    /// All that was moved into the open cold extent has died: it is worth more as a slot than for the room
    /// that it has left. False: it is not so.
    mutating func giveUpDeadColdExtent() -> Bool {
        guard cleaner.isColdOpen, cleaner.isQuiet, cleaner.cold.filled > 0,
            let extent = forest.extents.find(cleaner.cold.newest), extent.live == 0
        else { return false }
        sealColdExtent()
        return true
    }

    private mutating func sealColdExtent() {
        forest.extents.setState(cleaner.cold.newest, .sealed)
        // Younger than any checkpoint that has begun: those do not know what is in it.
        forest.extents.noteChunk(cleaner.cold.newest, lsn: log.nextLSN)
        forest.extents.noteEmptied(cleaner.cold.newest)
        cleaner.cold.filled = superblock.extentBlocks
        cleaner.isColdOpen = false
    }

    mutating func completeColdChunk(_ index: Int, _ result: Int) {
        cleaner.writesInFlight -= 1
        cleaner.coldChunks[index].state = .free
        guard failure == nil, cleaner.phase == .writing else { return }
        let chunk = cleaner.coldChunks[index]
        if result == (1 + chunk.count) * blockBytes {
            cleaner.coldChunks[index].state = .written
            if !cleaner.isBroken { moveWritten() }
        } else if chunk.attempts + 1 < Self.writeAttempts {
            cleaner.coldChunks[index].attempts += 1
            return sendColdChunk(index)
        } else {
            // What is not moved stays where it is, and who has asked for more need not wait. Nothing behind
            // it may count as filled.
            cleaner.coldChunks[index].state = .written
            cleaner.isBroken = true
            cleaner.pacing.goal = nil
        }
        guard cleaner.isBroken else { return isWindingDown ? () : writeSurvivors() }
        if cleaner.writesInFlight == 0 {
            leaveColdExtent()
            abandonRound()
        }
    }

    /// It cannot be written. Where it is the last, the next start tries it again: without any room nothing
    /// could be cleaned any more.
    private mutating func leaveColdExtent() {
        if cleaner.spares.isEmpty { cleaner.cold = cleaner.coldAtFreeze } else { sealColdExtent() }
    }

    /// In the order of their places, in which the log says it, too: so what a crash leaves unmoved still
    /// fits behind what is moved.
    private mutating func moveWritten() {
        while let index = cleaner.oldestColdChunk, cleaner.coldChunks[index].state == .written {
            cleaner.coldChunks[index].state = .free
            move(cleaner.coldChunks[index])
            cleaner.movedCount += cleaner.coldChunks[index].count
        }
    }

    /// The blocks are at their new places, too: from now on those are the ones which count. Unless
    /// a block has died meanwhile.
    private mutating func move(_ chunk: Cleaner.ColdChunk) {
        let first = chunk.place.advanced(by: 1)
        // A sync that is under way began too early to cover it.
        var batch = MoveLog.Batch(
            to: first, from: [], sync: syncsStarted + 1,
            checkpoint: forest.extents.nextCheckpoint)
        batch.from.reserveCapacity(chunk.count)
        for index in 0..<chunk.count {
            let survivor = cleaner.survivors[chunk.first + index]
            guard forest.extents.isLive(survivor.place) else {
                batch.from.append(0)
                continue
            }
            // A replay does not read data, but it may look for a node where it was.
            forest.move(
                survivor.place, to: first.advanced(by: index), isReplayed: survivor.level < 0)
            forest.extents.noteMove(survivor.place.extent, batch: moveLog.nextBatch)
            batch.from.append(survivor.place.rawValue)
            counters.movedBlocks += 1
            changesSinceFreeze += 1
        }
        moveLog.append(batch)
    }

    /// The batch is in its new places; the victims under way may have more.
    private mutating func finishBatch() {
        cleaner.forgetSurvivors()
        if cleaner.victims.isEmpty && !cleaner.hasPieces {
            cleaner.phase = .idle
            noteRoundFinished()
        } else {
            cleaner.phase = .scanning
        }
    }

    private mutating func abandonRound() {
        cleaner.forgetSurvivors()
        for index in cleaner.coldChunks.indices { cleaner.coldChunks[index].state = .free }
        cleaner.victims.removeAll(keepingCapacity: true)
        cleaner.phase = .idle
        noteRoundFinished()
    }
}
