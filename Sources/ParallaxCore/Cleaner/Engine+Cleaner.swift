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

/// Finding what lives.
extension Engine {
    /// Takes the live blocks of the piece, until the batch is full.
    private mutating func lookThroughPiece() {
        while cleaner.scan.block < cleaner.scan.pieceEnd, !cleaner.isBatchFull {
            let block = cleaner.scan.block
            let content = cleaner.piece.base + (block - cleaner.scan.pieceStart) * blockBytes
            let place = BlockAddress(extent: cleaner.scan.victim, block: block)
            if cleaner.scan.payloadLeft > 0, let record = recordOfNextBlock() {
                cleaner.scan.payloadLeft -= 1
                if forest.extents.isLive(place) { take(place, content, record) }
                cleaner.scan.indexInRecord += 1
            } else {
                if forest.extents.isLive(place) { cleaner.scan.damaged += 1 }
                beginChunk(content, block)
            }
            cleaner.scan.block += 1
        }
    }

    /// A chunk begins here, or else nothing that is known: then the next block is looked at as if
    /// one began there. No harm comes of a block that only looks like a header: what it says of a
    /// name is believed only if the forwards say the same.
    private mutating func beginChunk(_ content: UnsafeRawPointer, _ block: Int) {
        cleaner.scan.payloadLeft = 0
        cleaner.scan.record = nil
        cleaner.scan.indexInRecord = 0
        guard content.load(as: UInt64.self) == ChunkHeader.magic else { return }
        let header = cleaner.chunkHeader.base
        Memory.copy(to: header, from: content, count: blockBytes)
        guard
            let chunk = ChunkHeader.decode(
                from: header, uuid: superblock.uuid, stream: configuration.stream),
            chunk.extent == cleaner.scan.victim, chunk.block == block,
            block + 1 + chunk.payloadBlocks <= superblock.extentBlocks
        else { return }
        cleaner.scan.payloadLeft = chunk.payloadBlocks
        cleaner.scan.records = ChunkRecordReader(header: header, recordBytes: chunk.recordBytes)
    }

    /// What the chunk says of its next payload block; nil: nothing, it is malformed.
    private mutating func recordOfNextBlock() -> ChunkRecord? {
        while true {
            if let record = cleaner.scan.record,
                cleaner.scan.indexInRecord < record.payloadBlocks
            {
                return record
            }
            guard let next = cleaner.scan.records?.next() else { return nil }
            cleaner.scan.record = next
            cleaner.scan.indexInRecord = 0
        }
    }

    private mutating func take(
        _ place: BlockAddress, _ content: UnsafeRawPointer, _ record: ChunkRecord
    ) {
        let index = cleaner.scan.indexInRecord
        let header = UnsafeRawPointer(cleaner.chunkHeader.base)
        var survivor = Cleaner.Survivor(
            place: place, name: place, vdi: 0, firstBlock: 0,
            checksum: record.checksum(index, in: header), level: -1,
            buffer: Int32(cleaner.survivors.count))
        switch record {
        case .data(let vdi, let firstBlock, _, _):
            survivor.vdi = vdi.rawValue
            survivor.firstBlock = firstBlock + UInt64(index)
        case .node(let vdi, let level, let firstBlock, _):
            survivor.vdi = vdi.rawValue
            survivor.firstBlock = firstBlock
            survivor.level = Int32(level)
        case .moved(let vdi, _, let offset):
            let moved = MovedBlock.read(header, offset: offset + index * MovedBlock.bytes)
            survivor.vdi = vdi.rawValue
            survivor.firstBlock = moved.firstBlock
            survivor.level = Int32(moved.level)
            survivor.name = moved.name
        case .table:
            cleaner.tablePlaces.insert(place.rawValue)
            return
        case .hole, .lease, .vdi: return
        }
        guard Checksum.ofBlock(content) == survivor.checksum else {
            counters.checksumFailures += 1
            cleaner.scan.damaged += 1
            return
        }
        let target = cleaner.batchMemory() + Int(survivor.buffer) * blockBytes
        Memory.copy(to: target, from: content, count: blockBytes)
        cleaner.survivors.append(survivor)
    }

    /// Pages of records, forwards and live bits are not moved: the next checkpoint writes them anew.
    private mutating func renewTables() {
        guard !cleaner.tablePlaces.isEmpty else { return }
        let places = cleaner.tablePlaces
        cleaner.tablePlaces.removeAll(keepingCapacity: true)
        func isMeant(_ reference: BlockReference) -> Bool {
            !reference.isHole && places.contains(reference.address.rawValue)
        }
        for page in catalog.pages.pages.indices
        where isMeant(catalog.pages.pages[page].reference) {
            catalog.pages.touch(UInt32(page))
        }
        for index in catalog.pages.index.indices where isMeant(catalog.pages.index[index]) {
            catalog.pages.touch(UInt32(index * radixFanout))
        }
        for page in forest.forwards.pages.indices
        where isMeant(forest.forwards.pages[page].reference) {
            forest.forwards.touch(page)
        }
        let livePages = forest.extents.livePages.references
        for page in livePages.indices where isMeant(livePages[page]) {
            forest.extents.livePages.touch(page: page)
        }
        changesSinceFreeze += 1
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
            if cleaner.attempts < Cleaner.writeAttempts {
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
