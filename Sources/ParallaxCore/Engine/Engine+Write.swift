// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// A write of whole blocks, or a hole: makes sure that the leaf can be had, then stages.
    ///
    /// The leaf is loaded before anything is logged, so that a damaged node is this request's
    /// error and not the log's.
    mutating func startChange(_ part: Int) {
        guard failure == nil else {
            parts[part].status = .ioError
            finishPart(part)
            return
        }
        switch walk(part, to: parts[part].firstBlock) {
        case .leaf: break
        case .hole:
            if parts[part].kind == .hole {
                finishPart(part)
                return
            }
        case .loading, .starved: return
        }
        // What is in chunks already is admitted: what the rest would be charged may have risen since.
        guard parts[part].stagedBlocks > 0 || admitCharge(part) else { return }
        parts[part].phase = .staging
        if staging.isEmpty {
            stage(part)
        } else {
            staging.append(part, &parts)
        }
    }

    /// A write of some sectors of a block: locks the block, reads it, changes the copy, stages it.
    ///
    /// While a block is locked no other change of it is staged, and it is read only when no change of it
    /// is staged and unapplied. So nothing is lost between read and write, and who waits for the log holds
    /// the lock already: changes that come later, however many, wait behind it.
    mutating func startModify(_ part: Int) {
        guard failure == nil else {
            parts[part].status = .ioError
            finishPart(part)
            return
        }
        guard takeLock(part), !isStaged(parts[part].vdi, parts[part].firstBlock) else {
            return waitForLock(part)
        }
        guard readRoom > 0 else {
            starved.append(part, &parts)
            return
        }
        guard takeBounce(part), lookUp(part), admitCharge(part) else { return }
        parts[part].phase = .reading
        sendReads(part, toBounce: true)
        if parts[part].outstanding == 0 { finishModifyRead(part) }
    }

    /// The old block is in the bounce buffer: lays the new sectors over it.
    mutating func finishModifyRead(_ part: Int) {
        // From here on the part may wait for space, which may wait for the reads of old slots.
        leaveEpoch(part)
        guard parts[part].status == .ok, verifyBounce(part) else {
            if parts[part].status == .ok { parts[part].status = .corrupt }
            finishPart(part)
            return
        }
        var target = bounce(part) + Int(parts[part].firstSector) * sectorBytes
        let count = Int(parts[part].sectorCount) * sectorBytes
        if parts[part].kind == .zeroSectors {
            Memory.zero(target, count: count)
        } else {
            forEachPiece(part, offset: 0, count: count) { piece in
                Memory.copy(to: target, from: piece.base, count: piece.count)
                target += piece.count
            }
        }
        parts[part].phase = .staging
        if staging.isEmpty {
            stage(part)
        } else {
            staging.append(part, &parts)
        }
    }

    /// Not before those who have waited longer.
    private mutating func takeLock(_ part: Int) -> Bool {
        if parts[part].holdsLock { return true }
        guard !isLocked(parts[part].vdi, parts[part].firstBlock, count: 1), !isAwaited(part)
        else { return false }
        parts[part].holdsLock = true
        lockCount += 1
        lockedParts.append(UInt32(part))
        return true
    }

    /// Whether a change of several blocks, this part's among them, has waited for a lock for longer. It keeps its
    /// turn until it is in the log: else writes of parts of blocks could overtake it for ever.
    private func isAwaited(_ part: Int) -> Bool {
        let block = parts[part].firstBlock
        let ticket = parts[part].lockTicket
        for index in 0..<partsBehindLocks.count {
            let other = parts[Int(partsBehindLocks[index])]
            if other.vdi == parts[part].vdi, other.firstBlock <= block,
                block - other.firstBlock < UInt64(other.blockCount),
                ticket == 0 || Int32(bitPattern: other.lockTicket &- ticket) < 0
            {
                return true
            }
        }
        return false
    }

    private mutating func waitForLock(_ part: Int) {
        if parts[part].lockTicket == 0 {
            parts[part].lockTicket = nextLockTicket
            nextLockTicket = max(1, nextLockTicket &+ 1)
        }
        locked.append(part, &parts)
    }

    /// It is in the log, or ends.
    private mutating func giveUpTurn(_ part: Int) {
        guard parts[part].isBehindLock else { return }
        parts[part].isBehindLock = false
        partsBehindLocks.removeAll { $0 == UInt32(part) }
        wakeLocked()
    }

    /// Whether another part has locked one of the blocks.
    private func isLocked(_ vdi: UInt32, _ first: UInt64, count: UInt64) -> Bool {
        guard lockCount > 0 else { return false }
        for index in 0..<lockedParts.count {
            let other = parts[Int(lockedParts[index])]
            if other.vdi == vdi && other.firstBlock >= first && other.firstBlock - first < count {
                return true
            }
        }
        return false
    }

    /// Whether a change of the block is in a chunk and not applied.
    private func isStaged(_ vdi: UInt32, _ block: UInt64) -> Bool {
        guard stagedOperations > 0 else { return false }
        if log.building >= 0 && log.chunks[log.building].touches(vdi, block) { return true }
        for index in 0..<log.inFlight.count
        where log.chunks[Int(log.inFlight[index])].touches(vdi, block) { return true }
        return false
    }

    mutating func unlock(_ part: Int) {
        guard parts[part].holdsLock else { return }
        parts[part].holdsLock = false
        lockCount -= 1
        lockedParts.removeAll { $0 == UInt32(part) }
        wakeLocked()
    }

    /// Those who wait for a lock, or for the log to be applied, try again.
    mutating func wakeLocked() {
        for _ in 0..<locked.count {
            guard let part = locked.popFirst(&parts) else { break }
            ready.append(part, &parts)
        }
    }
}

extension Engine {
    /// Parts that wait for a place in a chunk get it, as far as there is any.
    mutating func stageWaitingParts() {
        while !staging.isEmpty {
            guard let part = staging.popFirst(&parts) else { return }
            if !stage(part) { return }
        }
    }

    /// Puts the part into chunks. False when it has to wait: it is in a queue, and those behind it
    /// would have to wait as well.
    @discardableResult
    mutating func stage(_ part: Int) -> Bool {
        guard failure == nil, !hasLostMemory(part) else {
            failPart(part)
            return true
        }
        if !parts[part].holdsLock,
            isLocked(
                parts[part].vdi, parts[part].firstBlock, count: UInt64(parts[part].blockCount))
        {
            if !parts[part].isBehindLock {
                parts[part].isBehindLock = true
                partsBehindLocks.append(UInt32(part))
            }
            waitForLock(part)
            return true
        }
        while parts[part].stagedBlocks < parts[part].blockCount {
            switch prepareChunk(forPart: part) {
            case .go: break
            case .wait:
                staging.prepend(part, &parts)
                return false
            case .full:
                parts[part].status = .noSpace
                parts[part].phase = .staged
                if parts[part].outstanding == 0 { finishPart(part) }
                return true
            }
            if parts[part].kind == .hole {
                stageHole(part)
            } else if !stageData(part) {
                failPart(part)
                return true
            }
        }
        parts[part].phase = .staged
        giveUpTurn(part)
        return true
    }

    /// Whether memory has gone from which the part's request came: what is read there now is zeroes, its
    /// data, what was laid over a block, and the range that the front end has read (E4).
    private func hasLostMemory(_ part: Int) -> Bool {
        requests[Int(parts[part].request)].request.memoryLoss?.hasHappened ?? false
    }

    private mutating func stageHole(_ part: Int) {
        let building = log.building
        let isZeroing =
            requests[Int(parts[part].request)].request.operation == .writeZeroes
        let kind = isZeroing ? HoleKind.zeroed : .discarded
        var writer = log.chunks[building].recordWriter()
        writer.put(ChunkRecord.Kind.hole)
        writer.put(kind.rawValue)
        writer.put(UInt16(0))
        writer.put(UInt32(parts[part].blockCount))
        writer.put(catalog.vdis[Int(parts[part].vdi)].identifier.rawValue)
        writer.put(parts[part].firstBlock)
        log.chunks[building].recordBytes += ChunkRecord.holeBytes
        log.chunks[building].add(
            ChunkOperation(
                kind: .hole, vdi: parts[part].vdi, part: Int32(part),
                firstBlock: parts[part].firstBlock, count: parts[part].blockCount, payload: 0,
                checksumsOffset: 0, holeKind: kind))
        parts[part].stagedBlocks = parts[part].blockCount
        parts[part].outstanding += 1
        stagedOperations += 1
    }

    /// Copies as many blocks as fit and takes their checksums of the copies: the guest may change
    /// its memory under our hands. False: the memory has gone meanwhile. The chunk is as it was then:
    /// what lies behind its records and its payload is in nobody's way.
    private mutating func stageData(_ part: Int) -> Bool {
        let building = log.building
        let chunk = log.chunks[building]
        let staged = Int(parts[part].stagedBlocks)
        let fitting = (chunk.recordRoom - ChunkRecord.dataFixedBytes) / 4
        let count = min(Int(parts[part].blockCount) - staged, chunk.payloadRoom, fitting)
        let firstBlock = parts[part].firstBlock + UInt64(staged)
        var writer = chunk.recordWriter()
        writer.put(ChunkRecord.Kind.data)
        writer.put(UInt8(0))
        writer.put(UInt16(count))
        writer.put(UInt32(0))
        writer.put(catalog.vdis[Int(parts[part].vdi)].identifier.rawValue)
        writer.put(firstBlock)
        let checksumsOffset = writer.count
        var target = chunk.payload(chunk.payloadBlocks)
        for index in 0..<count {
            if parts[part].bounce >= 0 {
                Memory.copy(to: target, from: bounce(part), count: blockBytes)
            } else {
                var place = target
                forEachPiece(part, offset: (staged + index) * blockBytes, count: blockBytes) {
                    Memory.copy(to: place, from: $0.base, count: $0.count)
                    place += $0.count
                }
            }
            writer.put(Checksum.ofBlock(target))
            target += blockBytes
        }
        guard !hasLostMemory(part) else { return false }
        log.chunks[building].add(
            ChunkOperation(
                kind: .data, vdi: parts[part].vdi, part: Int32(part), firstBlock: firstBlock,
                count: Int32(count), payload: Int32(chunk.payloadBlocks),
                checksumsOffset: Int32(checksumsOffset)))
        log.chunks[building].recordBytes += ChunkRecord.dataFixedBytes + 4 * count
        log.chunks[building].payloadBlocks += count
        parts[part].stagedBlocks += Int32(count)
        parts[part].outstanding += 1
        stagedOperations += 1
        return true
    }
}

extension Engine {
    /// The part is over, well or badly.
    mutating func finishPart(_ part: Int) {
        let finished = parts[part]
        precondition(finished.outstanding == 0, "Engine: a part ends that chunks or reads name")
        if finished.bounce >= 0 { bounces.giveBack(Int(finished.bounce)) }
        leaveEpoch(part)
        unlock(part)
        giveUpTurn(part)
        returnLoadPermit(part)
        if finished.charge > 0 {
            catalog.vdis[Int(finished.vdi)].pendingCharge -= UInt64(finished.charge)
        }
        parts.giveBack(part)
        let index = Int(finished.request)
        if finished.status != .ok && requests[index].status == .ok {
            requests[index].status = finished.status
        }
        requests[index].partsOutstanding -= 1
        if !requests[index].isFullyIssued {
            queueForParts(index)
        } else if requests[index].partsOutstanding == 0 {
            finishRequest(index)
        }
    }

    /// None of the part's device reads is under way any more.
    mutating func leaveEpoch(_ part: Int) {
        guard parts[part].readEpoch != 2 else { return }
        epochs.leave(parts[part].readEpoch)
        parts[part].readEpoch = 2
    }

    /// All parts are over: answers, or waits for the sync that the request asked for.
    mutating func finishRequest(_ index: Int) {
        let pending = requests[index]
        if pending.status == .ok && pending.request.forceUnitAccess
            && pending.request.operation != .read
        {
            requests[index].flushLSN = answeredLSN
            enqueueFlush(index)
        } else {
            reply(index)
        }
    }

    mutating func reply(_ index: Int) {
        let pending = requests[index]
        requests[index].isInUse = false
        requests.giveBack(index)
        if pending.request.session == Catalog.internalSession {
            finishInternalRequest(status: pending.status)
            return
        }
        catalog.vdis[Int(pending.request.vdi)].requestsInFlight -= 1
        let reply = BlockReply(
            session: pending.request.session, tag: pending.request.tag, status: pending.status)
        if heldGroups.isEmpty { replies.append(reply) } else { heldReplies.append(reply) }
    }
}
