// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Asks for a checkpoint soon. It is done when `isIdle`, or when the statistics say so.
    package mutating func requestCheckpoint() {
        if hasUncheckpointedChanges { checkpoint.isWanted = true }
    }

    /// Whether the log holds changes that no durable checkpoint covers.
    var hasUncheckpointedChanges: Bool { changesSinceFreeze > 0 || checkpoint.phase != .idle }

    /// LIMIT: nodes that a turn writes, so that guests get their turns in between.
    private static let nodesPerTurn = 64

    mutating func advanceCheckpoint() {
        guard failure == nil else { return }
        if checkpoint.phase == .idle { beginCheckpointIfDue() }
        switch checkpoint.phase {
        case .idle, .root: break
        case .nodes: if writeNodes() { beginPages() }
        case .pages: if writePages() { beginTables() }
        case .tables: writeTables()
        case .applying:
            if appliedLSN >= checkpoint.lastLSN { checkpoint.phase = .durable }
        case .durable:
            if durableLSN >= checkpoint.lastLSN { writeCheckpointRoot() }
        case .rootDurable:
            if syncsCompleted >= checkpoint.rootSync { finishCheckpoint() }
        }
        sendCheckpointRoot()
    }

    private mutating func beginCheckpointIfDue() {
        // A second checkpoint without a change between drops what the first still needed.
        guard
            changesSinceFreeze > 0
                || (checkpoint.isNeeded && (hasEmptyExtents || hasSurplusLeases))
        else {
            checkpoint.isWanted = false
            checkpoint.isNeeded = false
            return
        }
        let age = now >= checkpoint.lastStart ? now - checkpoint.lastStart : 0
        let isWelcome =
            checkpoint.isWanted || bytesSinceCheckpoint >= configuration.checkpointLogBytes
            || forest.cache.replayBound > frameLimit / 4
            || age >= configuration.checkpointIntervalNanoseconds
        let isDue = checkpoint.isNeeded || (isWelcome && !isShortOfSpace)
        // The frozen trees must be those after a whole chunk, so that replay can start at the next.
        let isAtBoundary =
            log.inFlight.isEmpty || log.chunks[Int(log.inFlight[0])].appliedCount == 0
        guard isDue, isAtBoundary, hasRoomForCheckpoint else { return }
        freeze()
    }

    private mutating func freeze() {
        let start = log.replayStart()
        returnSurplusLeases(replayLSN: start.lsn)
        forest.cache.freezeForCheckpoint()
        settleFrameLimit()
        settleReclaim()
        freezePages()
        freezeForwards()
        forest.extents.beginCheckpoint()
        checkpoint.forgottenLivePages = 0
        checkpoint.stagedLivePages = 0
        forgetLivePages()
        catalog.versions.beginCheckpoint()
        checkpoint.tableContents = CheckpointTables()
        checkpoint.tableContents.liveNodes = max(0, forest.liveNodes)
        checkpoint.tableContents.deletion = deletionUnderWay
        checkpoint.tableContents.cold = cleaner.coldAtFreeze
        checkpoint.tableContents.forwardPages = forwardPages
        checkpoint.tableContents.pageCount = catalog.pages.pages.count
        checkpoint.next = CheckpointRoot(
            uuid: superblock.uuid, stream: configuration.stream,
            sequence: checkpoint.root.sequence + 1, generation: superblock.generation,
            replayLSN: start.lsn, replayExtent: start.extent, replayBlock: start.block,
            nodeFrames: frameLimit, nextExtent: log.nextExtent,
            nextVDI: catalog.nextNumber, nextSnapshot: catalog.versions.nextSequence,
            versionRows: catalog.versions.count)
        checkpoint.level = 0
        checkpoint.isWanted = false
        checkpoint.isNeeded = false
        checkpoint.lastStart = now
        checkpoint.phase = .nodes
        forest.extents.nextCheckpoint = checkpoint.next.sequence + 1
        changesSinceFreeze = 0
        bytesSinceCheckpoint = 0
    }

    /// The log that was found at the opening may have needed more frames than there are to be. What
    /// comes behind this checkpoint does not. And where there was too little space for more, there may be
    /// enough now.
    private mutating func settleFrameLimit() {
        let configured = configuration.nodeFrames
        if configured < frameLimit, framesNeeded <= configured / 4 * 3 { frameLimit = configured }
        guard frameLimit < configured else { return }
        let before = frameLimit
        frameLimit = min(2 * before, configured)
        // More is leased when the reserves are larger.
        let freeSlots = min(cleaner.pacing.freeSlots, Int(superblock.slotCount))
        let free = freeSlots * (superblock.extentBlocks - LogWriter.lostPerExtent)
        if usableBlocks + free < blocksToLeave(by: .data) { frameLimit = before }
    }

    /// A full store is short of the reserves that discards leave, as one is whose node cache has been made
    /// larger. It needs smaller ones if less of the cache may be dirty. Returns whether that is enough.
    mutating func lowerFrameLimitToSpace() -> Bool {
        let before = frameLimit
        while usableBlocks < blocksToLeave(by: .holes) {
            let lower = max(frameLimit / 2, EngineConfiguration.leastNodeFrames)
            guard lower < frameLimit, framesNeeded <= lower / 4 * 3 else {
                frameLimit = before
                return false
            }
            frameLimit = lower
        }
        return true
    }

    private var framesNeeded: Int {
        forest.cache.replayBound + (stagedOperations + 1) * RadixForest.framesPerChange
    }

    /// Writes frozen nodes, leaves first, so that each knows the places of its children. True when
    /// all are in chunks.
    private mutating func writeNodes() -> Bool {
        var budget = Self.nodesPerTurn
        while checkpoint.level < Limits.radixLevels {
            guard let frame = forest.cache.frozenLists.first(level: checkpoint.level) else {
                checkpoint.level += 1
                continue
            }
            guard budget > 0 else { return false }
            if checkpoint.level > 0 { forest.resolveChildren(frame) }
            if Memory.isZero(forest.cache.content(frame), count: blockBytes) {
                forest.cache.finishAsHole(frame)
                continue
            }
            guard
                prepareChunk(
                    recordBytes: ChunkRecord.nodeBytes, payloadBlocks: 1, reserve: .checkpoint)
                    == .go
            else { return false }
            stageNode(frame)
            budget -= 1
        }
        return true
    }

    private mutating func stageNode(_ frame: Int) {
        let building = log.building
        let chunk = log.chunks[building]
        let block = chunk.payloadBlocks
        Memory.copy(to: chunk.payload(block), from: forest.cache.content(frame), count: blockBytes)
        let checksum = Checksum.ofBlock(chunk.payload(block))
        let node = forest.cache.frames[frame]
        var writer = chunk.recordWriter()
        writer.put(ChunkRecord.Kind.node)
        writer.put(node.level)
        writer.put(UInt16(0))
        writer.put(checksum)
        writer.put(node.vdi)
        writer.put(node.firstBlock)
        log.chunks[building].recordBytes += ChunkRecord.nodeBytes
        log.chunks[building].payloadBlocks += 1
        chunk.nodeFrames[block] = Int32(frame)
        forest.extents.addCheckpointLive(chunk.address(ofPayload: block))
        checkpoint.tableContents.liveNodes += 1
        if !node.isSuperseded { forest.addLiveNode(at: chunk.address(ofPayload: block)) }
        forest.cache.beginWrite(
            frame, address: chunk.address(ofPayload: block), checksum: checksum)
        counters.checkpointNodes += 1
    }

    mutating func beginTables() {
        checkpoint.droppable.removeAll(keepingCapacity: true)
        for index in 0..<forest.extents.count {
            let extent = forest.extents[index]
            // Replay starts at the end of an extent if the next chunk went to another one.
            let isBehind = extent.number < checkpoint.next.replayExtent
            if isBehind || (extent.number.isCold && extent.live == 0),
                forest.extents.isDroppable(extent, replayLSN: checkpoint.next.replayLSN)
            {
                checkpoint.droppable.append(extent.number)
            } else {
                checkpoint.tableContents.extents.append(
                    CheckpointTables.Extent(
                        number: extent.number, slot: extent.slot, live: extent.checkpointLive,
                        lastLSN: extent.lastLSN))
            }
        }
        checkpoint.tableContents.index = catalog.pages.index
        checkpoint.tableContents.cold.next = cleaner.cold.next
        let livePages = forest.extents.livePages.references
        for page in livePages.indices where !livePages[page].isHole {
            checkpoint.tableContents.livePages.append((page, livePages[page]))
        }
        let bytes = checkpoint.tableContents.byteCount
        let blocks = (bytes + blockBytes - 1) / blockBytes
        let buffer = BlockBuffer(blocks: blocks)
        checkpoint.tableContents.encode(into: buffer)
        checkpoint.next.tableBytes = bytes
        checkpoint.next.tableLevels = 0
        checkpoint.next.nextExtent = log.nextExtent
        checkpoint.next.nextVDI = catalog.nextNumber
        checkpoint.next.nextSnapshot = catalog.versions.nextSequence
        checkpoint.tables = consume buffer
        checkpoint.tableBlockCount = blocks
        checkpoint.stagedTableBlocks = 0
        checkpoint.references.removeAll(keepingCapacity: true)
        checkpoint.phase = .tables
        writeTables()
    }

    private mutating func writeTables() {
        while true {
            while checkpoint.stagedTableBlocks < checkpoint.tableBlockCount {
                guard
                    prepareChunk(
                        recordBytes: ChunkRecord.tableFixedBytes + 4, payloadBlocks: 1,
                        reserve: .checkpoint) == .go
                else { return }
                stageTableBlock()
            }
            if checkpoint.references.count == 1 { break }
            beginIndexLevel()
        }
        checkpoint.next.table = checkpoint.references[0]
        checkpoint.tables = nil
        checkpoint.phase = .applying
    }

    private mutating func stageTableBlock() {
        let building = log.building
        let chunk = log.chunks[building]
        let block = chunk.payloadBlocks
        guard let slot = forest.extents.slot(of: chunk.extent) else {
            preconditionFailure("LogWriter: the log is in an extent that is not there")
        }
        Checkpoint.copyBlock(
            checkpoint.stagedTableBlocks, of: checkpoint.tables, to: chunk.payload(block))
        let checksum = recordTable(chunk.payload(block))
        checkpoint.references.append(
            BlockReference(
                address: BlockAddress(
                    extent: ExtentNumber(UInt64(slot.rawValue) + 1),
                    block: chunk.block + 1 + block), checksum: checksum, birth: 0))
        checkpoint.stagedTableBlocks += 1
    }

    private mutating func beginIndexLevel() {
        let count = (checkpoint.references.count + radixFanout - 1) / radixFanout
        let buffer = BlockBuffer(blocks: count)
        var writer = ByteWriter(buffer.base, capacity: buffer.count)
        for reference in checkpoint.references { writer.put(reference: reference) }
        checkpoint.tables = consume buffer
        checkpoint.tableBlockCount = count
        checkpoint.stagedTableBlocks = 0
        checkpoint.references.removeAll(keepingCapacity: true)
        checkpoint.next.tableLevels += 1
    }

    private mutating func writeCheckpointRoot() {
        checkpoint.next.encode(to: checkpoint.rootBlock.base)
        checkpoint.phase = .root
        checkpoint.rootWritesToSend = checkpoint.next.byteOffsets.count
        checkpoint.rootWritesDone = 0
    }

    private mutating func sendCheckpointRoot() {
        while checkpoint.rootWritesToSend > 0, commands.freeCapacity > 0 {
            checkpoint.rootWritesToSend -= 1
            let place = checkpoint.rootWritesToSend
            commands.append(
                StoreCommand(
                    operation: .write, tag: CommandTag(.checkpointRoot, place).rawValue,
                    offset: checkpoint.next.byteOffsets[place],
                    byteCount: blockBytes, buffers: UnsafePointer(checkpoint.rootBuffer),
                    bufferCount: 1))
        }
    }

    mutating func completeCheckpointRoot(result: Int) {
        guard failure == nil else { return }
        guard result == blockBytes else {
            fail(
                StoreError(
                    .device,
                    "Writing a checkpoint failed with errno \(-result); the disks of this shard "
                        + "are read-only until the cause is mended and the daemon restarted."))
            return
        }
        checkpoint.rootWritesDone += 1
        guard checkpoint.rootWritesDone == checkpoint.next.byteOffsets.count else { return }
        // A sync that is under way began too early to cover the root.
        checkpoint.rootSync = syncsStarted + 1
        checkpoint.phase = .rootDurable
    }

    /// The checkpoint is durable: what only the one before needed is free.
    private mutating func finishCheckpoint() {
        checkpoint.root = checkpoint.next
        checkpoint.phase = .idle
        for number in checkpoint.droppable {
            guard let slot = forest.extents.slot(of: number) else { continue }
            releasing.append(slot)
            forest.extents.remove(number)
        }
        checkpoint.droppable.removeAll(keepingCapacity: true)
        // Leases that it does without: nothing was ever in them.
        release(checkpoint.returning)
        checkpoint.returning.removeAll(keepingCapacity: true)
        moveLog.finishCheckpoint(sequence: checkpoint.root.sequence)
        cleaner.pacing.hopelessAt = nil
        catalog.versions.finishCheckpoint()
        forest.cache.dirtiedBeforeFreeze = 0
        resolveWrittenNodes()
        counters.checkpoints += 1
    }

    /// Nodes that the heads have not changed since are found by their addresses from now on, so
    /// that they can be evicted.
    private mutating func resolveWrittenNodes() {
        for level in 1..<Limits.radixLevels {
            var next = forest.cache.dirtyLists.first(level: level)
            while let frame = next {
                forest.resolveChildren(frame)
                let following = forest.cache.frames[frame].next
                next = following < 0 ? nil : Int(following)
            }
        }
        for handle in 0..<catalog.count where catalog.vdis[handle].isOpen {
            forest.resolve(&catalog.vdis[handle].root)
        }
        for frozen in checkpoint.frozenRoots {
            guard let row = frozen.owner.row else { continue }
            forest.resolve(&catalog.versions[row].root)
        }
        // Versions that were made meanwhile begin with what the heads had then.
        for page in catalog.pages.dirty {
            for owner in catalog.pages.pages[Int(page)].members {
                guard let row = owner.row else { continue }
                forest.resolve(&catalog.versions[row].root)
            }
        }
    }
}
