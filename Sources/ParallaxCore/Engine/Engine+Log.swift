// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    enum ChunkRoom { case go, wait, full }

    /// The device reads and writes these, among others; it may register them.
    package var logBuffers: [DataSegment] {
        (0..<log.chunkCount).map { index in
            DataSegment(
                base: log.chunks[index].base,
                count: (1 + Limits.chunkPayloadBlocks) * blockBytes)
        }
    }

    mutating func prepareChunk(forPart part: Int) -> ChunkRoom {
        if parts[part].kind == .hole {
            return prepareChunk(
                recordBytes: ChunkRecord.holeBytes, payloadBlocks: 0, reserve: .holes)
        }
        return prepareChunk(
            recordBytes: ChunkRecord.dataFixedBytes + 4, payloadBlocks: 1, reserve: .data)
    }

    /// Makes sure that the chunk being built has room for a record and some payload.
    mutating func prepareChunk(recordBytes: Int, payloadBlocks: Int, reserve: Reserve) -> ChunkRoom
    {
        if let verdict = throttle(reserve) { return verdict }
        while true {
            switch log.openChunk(extents: &forest.extents) {
            case .open: break
            case .noBuffer: return .wait
            case .noExtent: return isStoreFull && reserve != .checkpoint ? .full : .wait
            }
            let chunk = log.chunks[log.building]
            if chunk.recordRoom >= recordBytes && chunk.payloadRoom >= payloadBlocks {
                return .go
            }
            guard log.inFlightCount < configuration.maxChunksInFlight else { return .wait }
            sealChunk()
        }
    }

    /// Writes what the turn has gathered, unless enough chunks are on their way: then the next
    /// batch gathers by itself.
    mutating func sealIfWorthwhile() {
        guard failure == nil, log.building >= 0,
            log.chunks[log.building].recordBytes > 0,
            log.inFlightCount < configuration.maxChunksInFlight
        else { return }
        sealChunk()
    }

    mutating func sealChunk() {
        let index = log.seal(
            superblock: superblock, stream: configuration.stream,
            durableLSN: min(durableLSN, mostClaimed),
            extents: &forest.extents)
        counters.chunks += 1
        let bytes = log.chunks[index].writeBuffer.pointee.count
        counters.chunkBytes += UInt64(bytes)
        bytesSinceCheckpoint += bytes
        earnCredit(blocks: bytes / blockBytes)
        sendChunk(index)
    }

    private mutating func sendChunk(_ index: Int) {
        let chunk = log.chunks[index]
        guard let slot = forest.extents.slot(of: chunk.extent) else {
            preconditionFailure("LogWriter: the log is in an extent that is not there")
        }
        commands.append(
            StoreCommand(
                operation: .write, tag: CommandTag(.chunk, index).rawValue,
                offset: superblock.byteOffset(slot: slot, block: chunk.block),
                byteCount: chunk.writeBuffer.pointee.count,
                buffers: UnsafePointer(chunk.writeBuffer), bufferCount: 1,
                registeredBuffer: Int16(index)))
    }

    /// Times that a failed log write is tried again; a write, unlike a sync, may be.
    static let writeAttempts = 3

    mutating func completeChunk(_ index: Int, result: Int) {
        guard failure == nil else { return }
        if result == log.chunks[index].writeBuffer.pointee.count {
            log.chunks[index].state = .complete
            applyChunks()
            return
        }
        log.chunks[index].writeAttempts += 1
        if log.chunks[index].writeAttempts < Self.writeAttempts {
            sendChunk(index)
        } else {
            fail(
                StoreError(
                    .device,
                    "Writing the log failed with errno \(-result); the disks of this shard are "
                        + "read-only until the cause is mended and the daemon restarted."))
        }
    }

    /// After a failure: everything that waits for the log is answered with an error.
    mutating func failWaitingWrites() {
        for position in 0..<log.inFlight.count { failOperations(Int(log.inFlight[position])) }
        if log.building >= 0 { failOperations(log.building) }
        stagedOperations = 0
        // Reads wait for the application of the log to get its node; it wants none any more.
        applierWaits = false
        while let part = staging.popFirst(&parts) { failPart(part) }
        wakeLocked()
        while let index = flushing.popFirst() {
            requests[Int(index)].status = .ioError
            reply(Int(index))
        }
    }

    private mutating func failOperations(_ chunk: Int) {
        for position in log.chunks[chunk].appliedCount..<log.chunks[chunk].operationCount {
            let part = Int(log.chunks[chunk].operations[position].part)
            guard part >= 0 else { continue }
            parts[part].outstanding -= 1
            parts[part].status = .ioError
            if parts[part].outstanding == 0 && parts[part].phase == .staged { finishPart(part) }
        }
        log.chunks[chunk].appliedCount = log.chunks[chunk].operationCount
    }

    mutating func failPart(_ part: Int) {
        parts[part].status = .ioError
        parts[part].phase = .staged
        if parts[part].outstanding == 0 { finishPart(part) }
    }
}

extension Engine {
    package mutating func noteExtentRequested() { extentsRequested += 1 }

    /// The allocator's answer to one request: a slot, or nil when there is none. `peersAreGaining`:
    /// another stream has been asked for space, and slots of it are on their way (`isGainingSpace`).
    package mutating func supplyExtent(_ slot: ExtentSlot?, peersAreGaining: Bool = false) {
        extentsRequested -= 1
        guard let slot else { return noteExtentRefused(peersAreGaining: peersAreGaining) }
        noteFreeSpace()
        // Without a spare extent a full store could not be cleaned: it comes first. More of them come
        // after what the log holds.
        if cleaner.spares.isEmpty
            || (cleaner.spares.count < wantedSpares && log.leases.count >= wantedLeases)
        {
            addSpare(slot)
            return
        }
        // What was asked for may not be wanted any more.
        guard log.leases.count < max(wantedLeases, 1) else { return released.append(slot) }
        cleaner.pacing.urgentRounds = 0
        cleaner.pacing.hopelessAt = nil
        log.addLease(slot: slot, extents: &forest.extents)
        log.announceLeases()
    }

    /// The first time in a while the other streams are given time to return what they can: as long as one
    /// is about to, and for a moment after.
    private mutating func noteExtentRefused(peersAreGaining: Bool) {
        if wasRefusedExtent && now < nextExtentRetry { return }
        let isRepeated = wasRefusedExtent && now < nextExtentRetry + refusalNanoseconds
        if !isRepeated { refusedSince = now }
        if !isRepeated || peersAreGaining && now < refusedSince + Self.patienceFactor * peerPatience
        {
            peersGainedAt = now
        }
        isStoreFull = isRepeated && now >= peersGainedAt + peerPatience
        nextExtentRetry = now + (isStoreFull ? Self.fullNanoseconds : Self.retryNanoseconds)
        wasRefusedExtent = true
    }

    /// Whether slots of this stream are on their way back to everybody, or may be: another stream that is
    /// refused one waits for it. How long that takes is a matter of the device and of how large extents are.
    package var isGainingSpace: Bool {
        guard failure == nil, !isWindingDown else { return false }
        return !cleaner.isQuiet || checkpoint.phase != .idle || !releasing.isEmpty || !grace.isEmpty
            || isDropUnderWay
    }

    /// Another stream has asked for space in the last while.
    package var isAskedForSpace: Bool { now < yieldUntil }

    /// Whether the cleaner has no empty extent to move to. A spare may be in no durable place before its lease
    /// is: so at an opening, before any stream asks for more, the host gives each a slot that lacks one.
    package var lacksSpare: Bool { cleaner.spares.isEmpty }

    private mutating func addSpare(_ slot: ExtentSlot) {
        let number = cleaner.addSpare()
        forest.extents.insert(number, slot: slot, state: .leased)
        moveLog.leases.append(number)
        cleaner.pacing.hopelessAt = nil
    }

    /// Nothing looks at these slots any more: they are everybody's, but for one that the cleaner needs.
    mutating func release(_ slots: [ExtentSlot]) {
        var slots = slots[...]
        if cleaner.spares.isEmpty, let slot = slots.popLast() { addSpare(slot) }
        released += slots
    }

    private var peerPatience: UInt64 {
        superblock.streamCount > 1 ? configuration.peerPatienceNanoseconds : 0
    }

    /// LIMIT: how often that long a stream waits for others that are at work and give nothing.
    private static let patienceFactor: UInt64 = 60
    /// How long the store counts as full, and how soon the allocator is asked again before it does.
    private static let fullNanoseconds: UInt64 = 50_000_000
    private static let retryNanoseconds: UInt64 = 5_000_000
    /// How long a refusal says something of the next one: one is asked for in each turn, and a turn of a
    /// full store may look at all extents.
    private var refusalNanoseconds: UInt64 { 200_000_000 + UInt64(forest.extents.count) * 100 }

    /// Somebody waits for the other streams to return slots: of those nobody tells.
    package var isWaitingForPeers: Bool {
        wasRefusedExtent && !isStoreFull && extentsRequested == 0
            && !(staging.isEmpty && catalog.waiting.isEmpty)
    }

    /// A slot that this stream no longer needs; nil when there is none.
    package mutating func takeReleasedSlot() -> ExtentSlot? {
        guard let slot = released.popLast() else { return nil }
        isStoreFull = false
        return slot
    }

    /// Slots that this stream owns.
    package func ownedSlots() -> [ExtentSlot] {
        (0..<forest.extents.count).map { forest.extents[$0].slot } + releasing + grace + released
            + checkpoint.returning + moveLog.droppedSlots
    }

    /// Gives dropped slots up once no read can still be looking at them.
    mutating func advanceReleases() {
        guard epochs.previousCount == 0 else { return }
        release(grace)
        grace.removeAll(keepingCapacity: true)
        guard !releasing.isEmpty else { return }
        epochs.advance()
        swap(&grace, &releasing)
    }
}
