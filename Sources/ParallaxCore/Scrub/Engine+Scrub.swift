// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    package var scrubStatus: ScrubStatus { scrubber.status }

    /// Begins a pass, or goes on with one: `from` is what `scrubStatus` said when it was interrupted.
    /// While one is running, only the rate changes. An engine that has failed begins none.
    package mutating func startScrub(bytesPerSecond: UInt64, from earlier: ScrubStatus? = nil) {
        guard failure == nil else { return }
        scrubber.bytesPerSecond = max(bytesPerSecond, UInt64(blockBytes))
        guard !scrubber.status.isRunning else { return }
        let passes = scrubber.status.passes
        if let earlier {
            scrubber.status = earlier
        } else {
            scrubber.status = ScrubStatus()
            scrubber.status.lastLog = log.nextExtent.rawValue - 1
            scrubber.status.lastCold = cleaner.cold.next.rawValue - 1
            scrubber.status.totalBlocks = UInt64(forest.extents.liveTotal)
        }
        scrubber.status.passes = passes
        scrubber.status.isRunning = true
        scrubber.status.isFinished = false
        scrubber.credit = 0
        scrubber.reckonedAt = now
        beginScrubbing(ExtentNumber(scrubber.status.position))
        scrubber.ahead.begin(forest.extents)
    }

    /// Interrupts the pass; `scrubStatus` says where.
    package mutating func stopScrub() {
        scrubber.status.isRunning = false
        scrubber.ahead = ScrubExtents()
    }

    /// What a scrub has found, in words; nil: nothing more.
    package mutating func nextScrubFinding() -> String? {
        scrubber.findings.isEmpty ? nil : scrubber.findings.removeFirst()
    }

    /// One step of the scrub, if its rate allows it.
    mutating func advanceScrub() {
        guard scrubber.status.isRunning, failure == nil, !isWindingDown, !scrubber.isBusy else {
            return
        }
        scrubber.reckon(now: now)
        if scrubber.inquiry != nil {
            inquire()
            return
        }
        if scrubber.ahead.isCollecting {
            collectExtents()
            return
        }
        guard scrubber.credit > 0, readRoom > 0 else { return }
        readPiece()
    }

    private mutating func beginScrubbing(_ extent: ExtentNumber) {
        scrubber.status.position = extent.rawValue
        scrubber.block = 0
        scrubber.singlyUntil = 0
        scrubber.isPieceStale = scrubber.isBusy
        scrubber.chunk.leave()
    }

    /// The extents of this pass from the position on; then the first of them.
    private mutating func collectExtents() {
        let status = scrubber.status
        scrubber.ahead.collect(from: forest.extents) { number in
            number.rawValue >= status.position
                && number.rawValue <= (number.isCold ? status.lastCold : status.lastLog)
        }
        if !scrubber.ahead.isCollecting { goToNextExtent() }
    }

    /// The next extent of this pass that is still there, or the end of the pass.
    private mutating func goToNextExtent() {
        for _ in 0..<ScrubExtents.perTurn {
            guard let next = scrubber.ahead.popLeast() else { return finishPass() }
            if forest.extents.contains(next) { return beginScrubbing(next) }
        }
    }

    private mutating func finishPass() {
        stopScrub()
        scrubber.status.isFinished = true
        scrubber.status.passes += 1
        scrubber.status.position = 0
    }

    private mutating func readPiece() {
        let number = ExtentNumber(scrubber.status.position)
        guard let extent = forest.extents.find(number) else { return goToNextExtent() }
        let end = writtenEnd(of: number)
        guard let start = nextPiece(of: extent, end: end) else {
            return goToNextExtent()
        }
        let count =
            start < scrubber.singlyUntil
            ? 1 : min(Scrubber.pieceBlocks - start % Scrubber.pieceBlocks, end - start)
        scrubber.block = start
        scrubber.pieceCount = count
        scrubber.livedBefore = extent.bits.words[start >> 6] >> UInt64(start & 63)
        scrubber.credit -= Int64(count * blockBytes)
        scrubber.buffer.initialize(
            to: DataSegment(base: scrubber.piece.base, count: count * blockBytes))
        scrubber.isBusy = true
        scrubber.isPieceStale = false
        scrubber.readEpoch = epochs.enter()
        counters.scrubbedBytes += UInt64(count * blockBytes)
        commands.append(
            StoreCommand(
                operation: .read, tag: CommandTag(.scrub, 0).rawValue,
                offset: superblock.byteOffset(slot: extent.slot, block: start),
                byteCount: count * blockBytes, buffers: UnsafePointer(scrubber.buffer),
                bufferCount: 1))
    }

    /// Up to where the extent is on the device. Nodes and pages live from the moment on in which they
    /// are put into a chunk: those of chunks that are not applied yet may still be on their way.
    private func writtenEnd(of extent: ExtentNumber) -> Int {
        if extent.isCold { return cleaner.writtenEnd(of: extent) ?? superblock.extentBlocks }
        let (_, first, block) = log.replayStart()
        if extent == first { return block }
        return extent < first ? superblock.extentBlocks : 0
    }

    /// Where to read next: what is known to be the payload of a chunk, and does not live, is passed
    /// over. nil: nothing lives any more in the rest of the extent.
    private mutating func nextPiece(of extent: ExtentTable.Extent, end: Int) -> Int? {
        guard let last = extent.bits.last(below: end), scrubber.block <= last else { return nil }
        while scrubber.chunk.payloadLeft > 0, scrubber.block <= last, !extent.bits[scrubber.block] {
            _ = scrubber.chunk.recordOfNextBlock()
            scrubber.chunk.advance()
            scrubber.block += 1
        }
        return scrubber.block <= last ? scrubber.block : nil
    }

    mutating func completeScrub(result: Int) {
        scrubber.isBusy = false
        if scrubber.readEpoch != 2 {
            epochs.leave(scrubber.readEpoch)
            scrubber.readEpoch = 2
        }
        // The pass that asked for it was stopped, and another one has begun.
        guard !scrubber.isPieceStale else { return }
        let count = scrubber.pieceCount
        let start = scrubber.block
        if result != count * blockBytes, count > 1 {
            // Which of them it is will be seen one by one.
            scrubber.singlyUntil = start + count
            return
        }
        lookThrough(start, count, isRead: result == count * blockBytes)
    }

    private mutating func lookThrough(_ start: Int, _ count: Int, isRead: Bool) {
        let extent = ExtentNumber(scrubber.status.position)
        for index in 0..<count {
            let place = BlockAddress(extent: extent, block: start + index)
            let content = scrubber.piece.base + index * blockBytes
            // What has died meanwhile is nobody's any more.
            let lives =
                scrubber.livedBefore >> UInt64(index) & 1 != 0 && forest.extents.isLive(place)
            scrubber.block = start + index + 1
            if scrubber.chunk.payloadLeft > 0 {
                let record = scrubber.chunk.recordOfNextBlock()
                if lives { verify(place, content, record, isRead: isRead) }
                scrubber.chunk.advance()
                // Whose it is comes first; the rest is read again.
                if scrubber.inquiry != nil { return }
                continue
            }
            if lives {
                noteScrubDamage(
                    "the chunk header in front of block \(place.block) of extent \(extent.rawValue) "
                        + "is damaged: the cleaner leaves that extent alone")
            }
            let isHeader =
                isRead
                && scrubber.chunk.enter(
                    content, at: place, header: scrubber.header.base, superblock: superblock,
                    stream: configuration.stream)
            if !isHeader { scrubber.chunk.leave() }
        }
    }

    private mutating func verify(
        _ place: BlockAddress, _ content: UnsafeRawPointer, _ record: ChunkRecord?, isRead: Bool
    ) {
        guard let record else { return }
        scrubber.status.verifiedBlocks += 1
        let header = UnsafeRawPointer(scrubber.header.base)
        let index = scrubber.chunk.indexInRecord
        if isRead, Checksum.ofBlock(content) == record.checksum(index, in: header) { return }
        counters.checksumFailures += isRead ? 1 : 0
        switch record {
        case .data(_, let first, _, _): begin(place, place, first + UInt64(index))
        case .node(let vdi, let level, let first, _): noteNode(place, vdi, level, first)
        case .moved(let vdi, _, let offset):
            let moved = MovedBlock.read(header, offset: offset + index * MovedBlock.bytes)
            let name = forest.name(of: place)
            if moved.level < 0 {
                begin(name, place, moved.firstBlock)
            } else {
                noteNode(place, vdi, moved.level, moved.firstBlock)
            }
        case .table:
            noteScrubDamage(
                "block \(place.block) of extent \(place.extent.rawValue), a page of the checkpoint, is "
                    + "damaged; the next checkpoint writes it anew")
            cleaner.tablePlaces.insert(place.rawValue)
            renewTables()
            requestCheckpoint()
        case .hole, .lease, .vdi, .moves, .drop: return
        }
    }

    private mutating func begin(_ name: BlockAddress, _ place: BlockAddress, _ block: UInt64) {
        scrubber.status.damagedBlocks += 1
        counters.scrubDamagedBlocks += 1
        scrubber.inquiry = ScrubInquiry(name: name, place: place, block: block)
    }

    private mutating func noteNode(
        _ place: BlockAddress, _ vdi: VDIIdentifier, _ level: Int, _ first: UInt64
    ) {
        noteScrubDamage(
            "the radix node of blocks \(first) to \(first + VDI.span(levels: level + 1) - 1) of VDI "
                + "\(name(of: vdi)), or of snapshots and clones that share it, is damaged (block "
                + "\(place.block) of extent \(place.extent.rawValue)): reads there report an error")
    }

    private mutating func noteScrubDamage(_ what: String) {
        scrubber.status.damagedBlocks += 1
        counters.scrubDamagedBlocks += 1
        note(what)
    }

    private mutating func note(_ what: String) {
        if scrubber.findings.count < Scrubber.findingsKept { scrubber.findings.append(what) }
    }
}

/// Whose a damaged block is: every head and every snapshot is asked for the block at that place.
extension Engine {
    /// LIMIT: trees that one turn asks, and turns that one tree may take.
    private static let treesPerTurn = 32
    private static let turnsPerTree = 200

    private mutating func inquire() {
        for _ in 0..<Self.treesPerTurn {
            guard var inquiry = scrubber.inquiry else { return }
            var probe = VDI()
            let label: String?
            if inquiry.handle < catalog.count {
                let vdi = catalog.vdis[inquiry.handle]
                probe.root = vdi.root
                probe.levels = vdi.levels
                label = vdi.kind == .head && !vdi.isDeleting ? catalog.names[inquiry.handle] : nil
            } else if inquiry.row < catalog.versions.count {
                let version = catalog.versions[inquiry.row]
                probe.root = version.root
                probe.levels = Int(version.levels)
                label =
                    catalog.isVisible(inquiry.row)
                    ? "\(name(of: version.vdi))@\(catalog.versions.decodedDetails(inquiry.row).name)"
                    : nil
            } else {
                return finish(inquiry)
            }
            if let label {
                switch holds(probe, inquiry) {
                case .some(true): inquiry.add(label)
                case .some(false): break
                case .none where inquiry.attempts < Self.turnsPerTree:
                    scrubber.inquiry?.attempts += 1
                    return
                case .none: break
                }
            }
            if inquiry.handle < catalog.count { inquiry.handle += 1 } else { inquiry.row += 1 }
            inquiry.attempts = 0
            scrubber.inquiry = inquiry
        }
    }

    /// nil: a node is being loaded.
    private mutating func holds(_ probe: VDI, _ inquiry: ScrubInquiry) -> Bool? {
        switch forest.walk(probe, to: inquiry.block, mayLoad: mayLoadAside) {
        case .leaf(let frame):
            let slot = Int(truncatingIfNeeded: inquiry.block) & (radixFanout - 1)
            return forest.cache.entries(frame)[slot].address == inquiry.name
        case .hole: return false
        case .loading:
            sendNodeLoads()
            return nil
        case .starved: return nil
        }
    }

    private mutating func finish(_ inquiry: ScrubInquiry) {
        scrubber.inquiry = nil
        note(
            "block \(inquiry.block) (at byte \(inquiry.block * UInt64(blockBytes))) of \(inquiry.whose) is "
                + "damaged (block \(inquiry.place.block) of extent \(inquiry.place.extent.rawValue)): "
                + "reads of it report an error")
    }
}
