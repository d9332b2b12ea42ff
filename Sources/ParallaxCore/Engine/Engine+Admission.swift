// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Takes a request. At most `freeRequestSlots` may be submitted between two turns.
    package mutating func submit(_ request: BlockRequest) {
        let status = check(request)
        guard status == .ok, let index = requests.take() else {
            replies.append(
                BlockReply(
                    session: request.session, tag: request.tag,
                    status: status == .ok ? .ioError : status))
            return
        }
        var pending = PendingRequest(request: request)
        pending.nextSector = request.firstSector
        pending.endSector = request.firstSector + request.sectorCount
        pending.needsBounce = needsBounce(request)
        requests[index] = pending
        if request.session != Catalog.internalSession {
            catalog.vdis[Int(request.vdi)].requestsInFlight += 1
        }
        count(request)
        if request.operation == .flush {
            requests[index].flushLSN = answeredLSN
            enqueueFlush(index)
        } else if request.sectorCount == 0 {
            finishRequest(index)
        } else {
            issueParts(of: index)
            runReadyParts()
        }
    }

    /// The edge behind which a request is believed.
    private func check(_ request: BlockRequest) -> BlockStatus {
        guard catalog.isOpen(request.vdi) else { return .shuttingDown }
        let vdi = catalog.vdis[Int(request.vdi)]
        let isInternal = request.session == Catalog.internalSession
        guard isInternal || !vdi.isDeleting else { return .shuttingDown }
        if request.operation == .flush { return .ok }
        if vdi.isReadOnly && request.operation.changesBlocks && !isInternal { return .readOnly }
        let blocks = isInternal ? vdi.sizeBlocks : min(vdi.sizeBlocks, vdi.endWhileShrinking)
        let sectors = blocks * UInt64(sectorsPerBlock)
        let (end, overflow) = request.firstSector.addingReportingOverflow(request.sectorCount)
        guard !overflow, end <= sectors else { return .outOfRange }
        if request.operation == .allocation { return checkAllocation(request) }
        guard request.operation == .read || request.operation == .write else { return .ok }
        var bytes = 0
        for index in 0..<Int(request.segmentCount) {
            guard let segments = request.segments, segments[index].count >= 0 else {
                return .invalid
            }
            let (sum, overflow) = bytes.addingReportingOverflow(segments[index].count)
            guard !overflow else { return .invalid }
            bytes = sum
        }
        let (expected, tooLong) = request.sectorCount.multipliedReportingOverflow(
            by: UInt64(sectorBytes))
        return !tooLong && UInt64(bytes) == expected ? .ok : .invalid
    }

    /// The answer needs room for at least one extent, aligned as Swift lays it out.
    private func checkAllocation(_ request: BlockRequest) -> BlockStatus {
        guard request.segmentCount == 1, let memory = request.segments?.pointee,
            memory.count >= MemoryLayout<AllocationExtent>.stride,
            Int(bitPattern: memory.base) % MemoryLayout<AllocationExtent>.alignment == 0
        else { return .invalid }
        return .ok
    }

    /// Whether the device cannot read straight into the request's memory.
    private func needsBounce(_ request: BlockRequest) -> Bool {
        guard request.operation == .read, let segments = request.segments else { return false }
        if request.segmentCount > Limits.directSegments { return true }
        let mask = configuration.bufferAlignment - 1
        // From there on its blocks lie across what would be aligned.
        let start = Int(request.firstSector % UInt64(sectorsPerBlock)) * sectorBytes
        if start & mask != 0 { return true }
        for index in 0..<Int(request.segmentCount) {
            let bits = Int(bitPattern: segments[index].base) | segments[index].count
            if bits & mask != 0 { return true }
        }
        return false
    }

    private mutating func count(_ request: BlockRequest) {
        switch request.operation {
        case .read:
            counters.reads += 1
            counters.readBytes += request.sectorCount * UInt64(sectorBytes)
        case .write:
            counters.writes += 1
            counters.writtenBytes += request.sectorCount * UInt64(sectorBytes)
        case .flush: counters.flushes += 1
        case .discard, .writeZeroes: counters.discards += 1
        case .allocation: break
        }
    }

    /// Parts of one request that may be under way at a time, so that a huge discard leaves room
    /// for others.
    private static let partsPerRequest = 128

    /// Holes that one turn passes over for one request: a huge discard must not stop the shard.
    private static let skipsPerTurn = 4096

    /// Cuts a request into parts and starts them, as far as there are free ones.
    mutating func issueParts(of index: Int) {
        var skips = 0
        while !requests[index].isFullyIssued {
            guard requests[index].partsOutstanding < Self.partsPerRequest else { return }
            guard requests[index].status == .ok else {
                requests[index].nextSector = requests[index].endSector
                break
            }
            if skips < Self.skipsPerTurn, skipHole(index) {
                skips += 1
                continue
            }
            guard skips < Self.skipsPerTurn, let part = parts.take() else {
                queueForParts(index)
                return
            }
            parts[part] = nextPart(of: index)
            requests[index].partsOutstanding += 1
            ready.append(part, &parts)
        }
        if requests[index].partsOutstanding == 0 { finishRequest(index) }
    }

    /// The request gets more parts in a later turn.
    mutating func queueForParts(_ index: Int) {
        guard !requests[index].isQueued else { return }
        requests[index].isQueued = true
        unissued.append(UInt32(index))
    }

    /// Gives parts to the requests that wait for some.
    mutating func issueParts() {
        for _ in 0..<unissued.count where parts.freeCount > 0 {
            guard let index = unissued.popFirst() else { return }
            requests[Int(index)].isQueued = false
            issueParts(of: Int(index))
        }
    }

    /// Discarding nothing costs nothing: passes over what is not mapped, and over the edges of a
    /// discard that are less than a block.
    private mutating func skipHole(_ index: Int) -> Bool {
        let operation = requests[index].request.operation
        guard operation == .discard || operation == .writeZeroes else { return false }
        // After a failure what is a hole may have been written: the next start will tell.
        guard failure == nil else { return false }
        let next = requests[index].nextSector
        let end = requests[index].endSector
        let perBlock = UInt64(sectorsPerBlock)
        if operation == .discard, next % perBlock != 0 || end - next < perBlock {
            requests[index].nextSector = min((next / perBlock + 1) * perBlock, end)
            return true
        }
        guard next % perBlock == 0, end - next >= perBlock else { return false }
        // A write that is under way and may be about to map what is a hole now counts as later.
        guard
            case .hole(let endBlock) = forest.walk(
                catalog.vdis[Int(requests[index].request.vdi)], to: next / perBlock,
                mayLoad: false)
        else { return false }
        let (endSector, overflow) = endBlock.multipliedReportingOverflow(by: perBlock)
        let lastWhole = end / perBlock * perBlock
        requests[index].nextSector = overflow ? lastWhole : min(endSector, lastWhole)
        return true
    }

    /// The next part of a request: sectors of one block, or blocks of one leaf.
    private mutating func nextPart(of index: Int) -> RequestPart {
        let request = requests[index].request
        let next = requests[index].nextSector
        let end = requests[index].endSector
        let perBlock = UInt64(sectorsPerBlock)
        var part = RequestPart()
        part.request = Int32(index)
        part.vdi = request.vdi
        part.firstBlock = next / perBlock
        part.byteOffset = Int(next - request.firstSector) * sectorBytes
        if request.operation == .allocation {
            part.kind = .allocation
            part.cursor = next
            requests[index].nextSector = end
            return part
        }
        let offset = next % perBlock
        if offset != 0 || end - next < perBlock {
            let sectors = min(perBlock - offset, end - next)
            part.firstSector = UInt8(offset)
            part.sectorCount = UInt8(sectors)
            part.blockCount = 1
            part.kind = Self.sectorKind(request.operation)
            requests[index].nextSector = next + sectors
            return part
        }
        let leafEnd = (part.firstBlock / UInt64(radixFanout) + 1) * UInt64(radixFanout)
        var blocks = min(end / perBlock, leafEnd) - part.firstBlock
        if requests[index].needsBounce { blocks = min(blocks, UInt64(Self.bounceBlocks)) }
        part.blockCount = Int32(blocks)
        part.kind = Self.blockKind(request.operation)
        requests[index].nextSector = next + blocks * perBlock
        return part
    }

    private static func sectorKind(_ operation: BlockRequest.Operation) -> RequestPart.Kind {
        switch operation {
        case .read, .allocation: .readSectors
        case .write: .writeSectors
        case .discard, .writeZeroes, .flush: .zeroSectors
        }
    }

    private static func blockKind(_ operation: BlockRequest.Operation) -> RequestPart.Kind {
        switch operation {
        case .read, .allocation: .read
        case .write: .write
        case .discard, .writeZeroes, .flush: .hole
        }
    }
}

extension Engine {
    /// Takes up every part that is ready; what it does may make others ready.
    mutating func runReadyParts() {
        repeat {
            while let part = ready.popFirst(&parts) { run(part) }
            sendNodeLoads()
        } while !ready.isEmpty
    }

    private mutating func run(_ part: Int) {
        if parts[part].status != .ok {
            // Pieces of it may be in chunks already: the last of them ends it.
            parts[part].phase = .staged
            if parts[part].outstanding == 0 { finishPart(part) }
        } else if parts[part].phase == .rereading {
            reread(part)
        } else if parts[part].kind == .allocation {
            startAllocation(part)
        } else if parts[part].kind.isModify {
            startModify(part)
        } else if parts[part].kind.changesBlocks {
            startChange(part)
        } else {
            startRead(part)
        }
    }

    /// Parts that wait for frames, bounce buffers or commands try again.
    mutating func retryStarvedParts() {
        for _ in 0..<starved.count {
            guard let part = starved.popFirst(&parts) else { break }
            ready.append(part, &parts)
        }
    }

    /// Finds the leaf for the part at `block`. Anything but a leaf or a hole means that the part
    /// has been put into a list and waits.
    ///
    /// With few frames, parts that load their paths at the same time would take each other's
    /// nodes away for ever. So only as many may load as there are frames for their whole paths,
    /// and none while the application of the log waits for a node.
    mutating func walk(_ part: Int, to block: UInt64) -> RadixForest.Walk {
        let vdi = catalog.vdis[Int(parts[part].vdi)]
        var walk = forest.walk(vdi, to: block, mayLoad: false)
        if case .starved = walk, !applierWaits, takeLoadPermit(part) {
            walk = forest.walk(vdi, to: block)
        }
        switch walk {
        case .leaf, .hole: returnLoadPermit(part)
        case .loading(let frame): wait(part, forFrame: frame)
        case .starved: starved.append(part, &parts)
        }
        return walk
    }

    /// Turns that the work on deletions, or on comparisons, does without a frame before parts have to wait
    /// for it.
    private static let patienceAside = 64

    private mutating func takeLoadPermit(_ part: Int) -> Bool {
        if parts[part].mayLoad { return true }
        guard loadPermits > 0, !isTurnOfOthers else { return false }
        loadPermits -= 1
        parts[part].mayLoad = true
        return true
    }

    /// Who gives space back, or compares versions, must get on, too, when there are few frames.
    private var isTurnOfOthers: Bool {
        failure == nil && !isWindingDown
            && max(catalog.reclaim.starvedTurns, diffs.starvedTurns) >= Self.patienceAside
    }

    mutating func returnLoadPermit(_ part: Int) {
        guard parts[part].mayLoad else { return }
        parts[part].mayLoad = false
        loadPermits += 1
    }

    /// The part waits until the node in `frame` is loaded.
    private mutating func wait(_ part: Int, forFrame frame: Int) {
        parts[part].next = forest.cache.frames[frame].waiters
        forest.cache.frames[frame].waiters = Int32(part)
    }

    /// Sends the reads of the nodes that walks have found missing.
    mutating func sendNodeLoads() {
        while !forest.wantedLoads.isEmpty, readRoom > 0 {
            guard let frame = forest.wantedLoads.popFirst().map(Int.init) else { return }
            let address = forest.place(of: forest.cache.frames[frame].address)
            guard let slot = forest.extents.slot(of: address) else {
                completeNodeLoad(frame, result: -5)
                continue
            }
            forest.cache.frames[frame].readEpoch = epochs.enter()
            let buffer = nodeBuffers + frame
            buffer.initialize(
                to: DataSegment(base: forest.cache.content(frame), count: blockBytes))
            commands.append(
                StoreCommand(
                    operation: .read, tag: CommandTag(.node, frame).rawValue,
                    offset: superblock.byteOffset(slot: slot, block: address.block),
                    byteCount: blockBytes, buffers: UnsafePointer(buffer), bufferCount: 1))
        }
    }

    /// A node has come, or has not: those who waited for it go on.
    mutating func completeNodeLoad(_ frame: Int, result: Int) {
        var waiter = forest.cache.frames[frame].waiters
        forest.cache.frames[frame].waiters = -1
        let address = forest.cache.frames[frame].address
        if forest.cache.frames[frame].readEpoch != 2 {
            epochs.leave(forest.cache.frames[frame].readEpoch)
            forest.cache.frames[frame].readEpoch = 2
        }
        let good = forest.finishLoad(frame, succeeded: result == blockBytes)
        if !good { counters.checksumFailures += result == blockBytes ? 1 : 0 }
        while waiter >= 0 {
            let part = Int(waiter)
            waiter = parts[part].next
            if !good { parts[part].status = result == blockBytes ? .corrupt : .ioError }
            ready.append(part, &parts)
        }
        if !good { noteBrokenNode(address) }
        guard frame == applierFrame else { return }
        applierFrame = -1
        if !good {
            fail(
                StoreError(
                    .damaged,
                    "A radix node that a logged write needs cannot be read; "
                        + "run `parallax-ctl store check`."))
        }
    }
}
