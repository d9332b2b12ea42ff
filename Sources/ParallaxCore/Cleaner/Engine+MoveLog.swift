// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Making the cleaner's moves durable through the log.
extension Engine {
    mutating func advanceMoveLog() {
        guard failure == nil else { return }
        releaseDropped()
        guard !isWindingDown else { return }
        returnSurplusSpares()
        if logLeasesOfColdExtents() { logMoves() }
        dropEmptied()
    }

    /// Cold extents that were held for more batches than came are given up: not under a round, whose
    /// victims have been chosen by the room in them.
    private mutating func returnSurplusSpares() {
        guard cleaner.spares.count > 1, cleaner.phase == .idle,
            isYielding
                || !isCleaningToGoal && cleaner.pacing.freeSlots >= 2 * cleaningThreshold,
            let number = cleaner.spares.popLast()
        else { return }
        forest.extents.setState(number, .sealed)
        forest.extents.noteEmptied(number)
    }

    /// Room for records that free more than they take.
    private mutating func hasRoomForMoves(recordBytes: Int) -> Bool {
        guard mayLogMoves else { return false }
        return prepareChunk(recordBytes: recordBytes, payloadBlocks: 0, reserve: .checkpoint) == .go
    }

    /// Without that much room only checkpoints make moves durable.
    var mayLogMoves: Bool { usableBlocks >= blocksToLeave(by: .deletion) }

    private mutating func logLeasesOfColdExtents() -> Bool {
        while let number = moveLog.leases.first {
            // A replay behind the checkpoint under way would find a lease of what that has dropped.
            if checkpoint.droppable.contains(number) { return false }
            // One that a checkpoint has dropped meanwhile must not come back.
            if let slot = forest.extents.slot(of: number) {
                guard hasRoomForMoves(recordBytes: ChunkRecord.leaseBytes) else { return false }
                putRecord(of: number) { writer in
                    writer.put(ChunkRecord.Kind.lease)
                    writer.put(UInt8(0))
                    writer.put(UInt16(0))
                    writer.put(slot.rawValue)
                    writer.put(number.rawValue)
                }
            }
            moveLog.leases.removeFirst()
        }
        return true
    }

    private mutating func logMoves() {
        while let batch = moveLog.batches.first, batch.sync <= syncsCompleted {
            if forest.extents.contains(batch.to.extent) {
                let bytes = ChunkRecord.movesFixedBytes + batch.from.count * 8
                guard hasRoomForMoves(recordBytes: bytes) else { return }
                putRecord(of: batch.to.extent) { writer in
                    writer.put(ChunkRecord.Kind.moves)
                    writer.put(UInt8(0))
                    writer.put(UInt16(batch.from.count))
                    writer.put(UInt32(0))
                    writer.put(batch.to.rawValue)
                    for place in batch.from { writer.put(place) }
                }
            }
            moveLog.popFirst()
        }
    }

    /// Puts a record into the chunk being built. No checkpoint drops a cold extent of which the log
    /// that it replays says something.
    private mutating func putRecord(of cold: ExtentNumber?, _ write: (inout ByteWriter) -> Void) {
        let building = log.building
        var writer = log.chunks[building].recordWriter()
        let start = writer.count
        write(&writer)
        log.chunks[building].recordBytes += writer.count - start
        if let cold { forest.extents.noteChunk(cold, lsn: log.chunks[building].lsn) }
    }

    /// Gives up what is empty, as far as a replay will agree. Not while a checkpoint has yet to write
    /// down the extents as they were when it began.
    private mutating func dropEmptied() {
        // As of now: what is dropped may move the log on, and seal an extent that has been passed.
        let look = lookAtEmptied
        guard mayDropBetweenCheckpoints, !forest.extents.emptied.isEmpty,
            moveLog.fruitlessLook != look
        else { return }
        var kept: [ExtentNumber] = []
        var hasRoom = true
        for number in forest.extents.emptied {
            guard let extent = forest.extents.find(number), extent.live == 0 else { continue }
            if hasRoom && isDroppableByLog(extent) {
                hasRoom = hasRoomForMoves(recordBytes: ChunkRecord.dropBytes)
                if hasRoom {
                    drop(extent)
                    continue
                }
            }
            kept.append(number)
        }
        forest.extents.keepEmptied(kept)
        moveLog.fruitlessLook = hasRoom ? look : nil
    }

    /// What decides whether one of the empty extents can be given up: a large deletion leaves many that
    /// cannot for a while, and not every turn looks at them.
    private var lookAtEmptied: MoveLog.Look {
        MoveLog.Look(
            changes: forest.extents.emptiedChanges, moves: moveLog.loggedCount,
            checkpoint: checkpoint.root.sequence)
    }

    private var mayDropBetweenCheckpoints: Bool {
        checkpoint.phase != .nodes && checkpoint.phase != .pages
    }

    private mutating func drop(_ extent: ExtentTable.Extent) {
        putRecord(of: nil) { writer in
            writer.put(ChunkRecord.Kind.drop)
            writer.put(UInt8(0))
            writer.put(UInt16(0))
            writer.put(UInt32(0))
            writer.put(extent.number.rawValue)
        }
        moveLog.drops.append(
            MoveLog.Drop(slot: extent.slot, lsn: log.chunks[log.building].lsn))
        forest.extents.remove(extent.number)
        counters.droppedExtents += 1
    }

    /// Not between a checkpoint's freeze and its tables: the log from the freeze on may still have the
    /// lease of what was dropped, and in the tables its slot would be another extent's already.
    private mutating func releaseDropped() {
        guard mayDropBetweenCheckpoints else { return }
        while let drop = moveLog.drops.first, drop.lsn <= durableLSN {
            releasing.append(drop.slot)
            _ = moveLog.drops.popFirst()
        }
    }

    /// Whether slots will come back without a checkpoint.
    var isDropUnderWay: Bool {
        guard mayLogMoves else { return !moveLog.drops.isEmpty }
        if !moveLog.isEmpty { return true }
        if moveLog.fruitlessLook == lookAtEmptied { return false }
        for number in forest.extents.emptied {
            if let extent = forest.extents.find(number), isDroppableByLog(extent) { return true }
        }
        return false
    }

    func isDroppableByLog(_ extent: ExtentTable.Extent) -> Bool {
        extent.lastMove <= moveLog.loggedCount
            && forest.extents.isDroppable(extent, afterCheckpoint: checkpoint.root)
    }

    /// A sync would bring slots nearer.
    var moveLogWantsSync: Bool {
        if let drop = moveLog.drops.first, drop.lsn > durableLSN { return drop.lsn <= appliedLSN }
        guard let batch = moveLog.batches.first, batch.sync > syncsCompleted else { return false }
        return cleaner.phase == .idle || isWaitingForSpace
            || moveLog.batches.count >= Self.batchesPerSync
    }

    /// LIMIT: cold chunks after which a sync is asked for while the cleaner works on.
    private static let batchesPerSync = 8
}

/// The same, found in the log.
extension Engine {
    /// Blocks that have died since, or whose move the checkpoint knows, are passed over.
    mutating func replayMoves(
        to first: BlockAddress, count: Int, header: UnsafeRawPointer, fromOffset: Int,
        medium: some StoreMedium
    ) throws(StoreError) {
        var reader = ByteReader(header, count: blockBytes, at: fromOffset)
        let names = rescuedNames(of: first, medium: medium)
        for index in 0..<count {
            let from = BlockAddress(rawValue: reader.take(UInt64.self) ?? 0)
            guard from.rawValue != 0, forest.extents.isLive(from) else { continue }
            let place = first.advanced(by: index)
            guard first.extent.isCold, forest.extents.contains(first.extent),
                first.block + count <= superblock.extentBlocks, !forest.extents.isLive(place)
            else { throw Self.damaged("a block was moved to where nothing can be") }
            // Of a node the replay may still look for the old place: so it is not dropped before the
            // next checkpoint. What is data and what a node is not known here.
            forest.move(from, to: place, isReplayed: false)
            if let names { keepOtherNames(from, names[place], of: place) }
            changesSinceFreeze += 1
        }
        cleaner.noteFilled(first.extent, upTo: first.block + count)
    }

    /// After a replay: which cold extents are full, which has room, which are spare.
    mutating func settleColdExtents() throws(StoreError) {
        for index in 0..<forest.extents.count where forest.extents[index].number.isCold {
            let extent = forest.extents[index]
            let isSpare = extent.number > cleaner.cold.newest
            guard extent.number < cleaner.cold.next, !isSpare || extent.live == 0 else {
                throw Self.damaged(
                    "the cold extents of shard \(configuration.stream) make no sense")
            }
            if isSpare {
                forest.extents.setState(extent.number, .leased)
                cleaner.spares.append(extent.number)
            } else if extent.number == cleaner.cold.newest,
                cleaner.cold.filled < superblock.extentBlocks
            {
                forest.extents.setState(extent.number, .open)
                cleaner.isColdOpen = true
            } else {
                forest.extents.setState(extent.number, .sealed)
            }
        }
        cleaner.spares.sort()
    }

    /// `reading`: where the record is.
    mutating func replayDrop(
        _ number: ExtentNumber, reading: ExtentNumber
    ) throws(StoreError) {
        // The checkpoint does not know it any more.
        guard let extent = forest.extents.find(number) else { return }
        guard extent.live == 0, number.isCold || number < reading else {
            throw Self.damaged(
                "extent \(number.rawValue) was given up although something lives in it")
        }
        forest.extents.remove(number)
        changesSinceFreeze += 1
    }
}
