// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    func references(_ part: Int) -> UnsafeMutablePointer<BlockReference> {
        partReferences + part * Self.partReferenceCount
    }

    func bounce(_ part: Int) -> UnsafeMutableRawPointer {
        precondition(parts[part].bounce >= 0, "Engine: the part has no bounce buffer")
        return bounceMemory + Int(parts[part].bounce) * Self.bounceBlocks * blockBytes
    }

    /// Reads that may be sent now: the log's writes and syncs always find room behind them.
    var readRoom: Int { commands.freeCapacity - Self.commandHeadroom }

    /// Gives the part a bounce buffer if it needs one; false when it has to wait.
    mutating func takeBounce(_ part: Int) -> Bool {
        if parts[part].bounce >= 0 { return true }
        guard let index = bounces.take() else {
            // Those who have the buffers may wait for space, and that for reads of old slots.
            if parts[part].outstanding == 0 { leaveEpoch(part) }
            starved.append(part, &parts)
            return false
        }
        parts[part].bounce = Int32(index)
        return true
    }

    /// Looks the part's blocks up. Returns false when it has to wait; it has been put in a queue.
    mutating func lookUp(_ part: Int) -> Bool {
        let references = references(part)
        let count = Int(parts[part].blockCount)
        let first = parts[part].firstBlock
        switch walk(part, to: first) {
        case .leaf(let frame):
            let entries = forest.cache.entries(frame) + Int(first % UInt64(radixFanout))
            references.update(from: entries, count: count)
        case .hole:
            references.update(repeating: .hole, count: count)
        case .loading, .starved: return false
        }
        return true
    }

    /// Looks up, zero-fills holes, and sends a device read for each run of neighbours.
    mutating func startRead(_ part: Int) {
        let isBounced =
            parts[part].kind == .readSectors
            || requests[Int(parts[part].request)].needsBounce
        let count = Int(parts[part].blockCount)
        guard readRoom >= count else {
            starved.append(part, &parts)
            return
        }
        if isBounced && !takeBounce(part) { return }
        guard lookUp(part) else { return }
        parts[part].phase = .reading
        sendReads(part, toBounce: isBounced)
        if parts[part].outstanding == 0 { finishRead(part) }
    }

    /// Sends one command for each run of physically contiguous blocks.
    mutating func sendReads(_ part: Int, toBounce: Bool) {
        let references = references(part)
        let count = Int(parts[part].blockCount)
        var usedBuffers = 0
        var index = 0
        while index < count {
            if references[index].isHole {
                zeroFill(part, block: index, toBounce: toBounce)
                index += 1
                continue
            }
            let place = forest.place(of: references[index].address)
            var run = 1
            while index + run < count,
                forest.place(of: references[index + run].address) == place.advanced(by: run)
            {
                run += 1
            }
            send(
                part, block: index, count: run, at: place, toBounce: toBounce,
                usedBuffers: &usedBuffers)
            index += run
        }
    }

    private mutating func send(
        _ part: Int, block: Int, count: Int, at address: BlockAddress, toBounce: Bool,
        usedBuffers: inout Int
    ) {
        guard let slot = forest.extents.slot(of: address, count: count) else {
            parts[part].status = .corrupt
            return
        }
        let buffers = partBuffers + part * Self.partBufferCount + usedBuffers
        let bufferCount: Int
        if toBounce {
            buffers.initialize(
                to: DataSegment(
                    base: bounce(part) + block * blockBytes, count: count * blockBytes))
            bufferCount = 1
        } else {
            bufferCount = requestMemory(
                part, offset: block * blockBytes, count: count * blockBytes, into: buffers,
                capacity: Self.partBufferCount - usedBuffers)
        }
        usedBuffers += bufferCount
        if parts[part].readEpoch == 2 { parts[part].readEpoch = epochs.enter() }
        parts[part].outstanding += 1
        commands.append(
            StoreCommand(
                operation: .read, tag: CommandTag(.part, part).rawValue,
                offset: superblock.byteOffset(slot: slot, block: address.block),
                byteCount: count * blockBytes, buffers: UnsafePointer(buffers),
                bufferCount: UInt32(bufferCount)))
    }

    /// The pieces of the request's memory that hold `count` bytes from `offset` of the part.
    private func requestMemory(
        _ part: Int, offset: Int, count: Int, into buffers: UnsafeMutablePointer<DataSegment>,
        capacity: Int
    ) -> Int {
        var used = 0
        forEachPiece(part, offset: offset, count: count) { piece in
            precondition(used < capacity, "Engine: too many pieces for one part")
            (buffers + used).initialize(to: piece)
            used += 1
        }
        return used
    }

    /// Calls `body` for each piece of the request's memory that holds `count` bytes from `offset`
    /// of the part. Admission has checked that the request's memory is long enough.
    @inline(__always)
    func forEachPiece(
        _ part: Int, offset: Int, count: Int, _ body: (DataSegment) -> Void
    ) {
        let request = requests[Int(parts[part].request)].request
        guard let segments = request.segments else {
            preconditionFailure("Engine: a transfer without memory")
        }
        var skip = parts[part].byteOffset + offset
        var left = count
        var index = 0
        while left > 0 {
            precondition(index < Int(request.segmentCount), "Engine: request memory too short")
            let segment = segments[index]
            index += 1
            if skip >= segment.count {
                skip -= segment.count
                continue
            }
            let length = min(segment.count - skip, left)
            body(DataSegment(base: segment.base + skip, count: length))
            left -= length
            skip = 0
        }
    }

    private func zeroFill(_ part: Int, block: Int, toBounce: Bool) {
        if toBounce {
            Memory.zero(bounce(part) + block * blockBytes, count: blockBytes)
        } else {
            forEachPiece(part, offset: block * blockBytes, count: blockBytes) { piece in
                Memory.zero(piece.base, count: piece.count)
            }
        }
    }

    /// One of the part's device reads is done.
    mutating func completePartRead(_ part: Int, result: Int) {
        parts[part].outstanding -= 1
        if result < 0 { parts[part].status = .ioError }
        guard parts[part].outstanding == 0 else { return }
        if parts[part].status != .ok {
            finishPart(part)
        } else if parts[part].phase == .rereading {
            finishReread(part)
        } else if parts[part].kind.isModify {
            finishModifyRead(part)
        } else {
            finishRead(part)
        }
    }

    /// All blocks are in memory: believe none before its checksum has been looked at (E3).
    private mutating func finishRead(_ part: Int) {
        guard parts[part].status == .ok else {
            finishPart(part)
            return
        }
        if parts[part].bounce >= 0 {
            guard verifyBounce(part) else {
                parts[part].status = .corrupt
                finishPart(part)
                return
            }
            copyOut(part)
            finishPart(part)
            return
        }
        verifyInPlace(part, from: 0)
    }

    /// Whether every block in the bounce buffer is right.
    mutating func verifyBounce(_ part: Int) -> Bool {
        let references = references(part)
        for index in 0..<Int(parts[part].blockCount) where !references[index].isHole {
            let block = bounce(part) + index * blockBytes
            if Checksum.ofBlock(block) != references[index].checksum {
                counters.checksumFailures += 1
                return false
            }
        }
        return true
    }

    /// Copies from the bounce buffer to the request's memory.
    private func copyOut(_ part: Int) {
        var source = bounce(part)
        let count: Int
        if parts[part].kind == .readSectors {
            source += Int(parts[part].firstSector) * sectorBytes
            count = Int(parts[part].sectorCount) * sectorBytes
        } else {
            count = Int(parts[part].blockCount) * blockBytes
        }
        forEachPiece(part, offset: 0, count: count) { piece in
            Memory.copy(to: piece.base, from: source, count: piece.count)
            source += piece.count
        }
    }

    /// Verifies blocks that the device put straight into the guest's memory. One that is wrong
    /// there may have been scribbled on by the guest itself: it is read again, privately.
    private mutating func verifyInPlace(_ part: Int, from first: Int) {
        let references = references(part)
        for index in first..<Int(parts[part].blockCount) where !references[index].isHole {
            var checksum: UInt32 = 0
            forEachPiece(part, offset: index * blockBytes, count: blockBytes) { piece in
                checksum = Checksum.crc32c(
                    UnsafeRawBufferPointer(start: piece.base, count: piece.count),
                    continuing: checksum)
            }
            if checksum != references[index].checksum {
                parts[part].phase = .rereading
                parts[part].rereadIndex = Int32(index)
                reread(part)
                return
            }
        }
        finishPart(part)
    }

    /// Reads one block into a bounce buffer.
    mutating func reread(_ part: Int) {
        guard readRoom > 0 else {
            starved.append(part, &parts)
            return
        }
        guard takeBounce(part) else { return }
        let address = forest.place(of: references(part)[Int(parts[part].rereadIndex)].address)
        guard let slot = forest.extents.slot(of: address) else {
            startOver(part)
            return
        }
        let buffers = partBuffers + part * Self.partBufferCount
        buffers.initialize(to: DataSegment(base: bounce(part), count: blockBytes))
        parts[part].outstanding = 1
        if parts[part].readEpoch == 2 { parts[part].readEpoch = epochs.enter() }
        commands.append(
            StoreCommand(
                operation: .read, tag: CommandTag(.part, part).rawValue,
                offset: superblock.byteOffset(slot: slot, block: address.block),
                byteCount: blockBytes, buffers: UnsafePointer(buffers), bufferCount: 1))
    }

    /// While the part read, its block was written anew or got another name, and the extent is gone:
    /// what it read is of no use.
    private mutating func startOver(_ part: Int) {
        bounces.giveBack(Int(parts[part].bounce))
        parts[part].bounce = -1
        leaveEpoch(part)
        parts[part].phase = .starting
        ready.append(part, &parts)
    }

    private mutating func finishReread(_ part: Int) {
        let index = Int(parts[part].rereadIndex)
        guard Checksum.ofBlock(bounce(part)) == references(part)[index].checksum else {
            counters.checksumFailures += 1
            parts[part].status = .corrupt
            finishPart(part)
            return
        }
        var source = UnsafeRawPointer(bounce(part))
        forEachPiece(part, offset: index * blockBytes, count: blockBytes) { piece in
            Memory.copy(to: piece.base, from: source, count: piece.count)
            source += piece.count
        }
        parts[part].phase = .reading
        bounces.giveBack(Int(parts[part].bounce))
        parts[part].bounce = -1
        verifyInPlace(part, from: index + 1)
    }
}
