// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Reading the checkpoint that an opening begins with, and replaying the log behind it.
extension Engine {
    mutating func loadTables(_ root: CheckpointRoot, medium: some StoreMedium)
        throws(StoreError)
    {
        guard !root.table.isHole else {
            // A stream that has never been written to begins in the slot of its own number.
            forest.extents.insert(
                root.replayExtent, slot: ExtentSlot(UInt32(root.stream)), state: .open)
            return
        }
        let blocks = (root.tableBytes + blockBytes - 1) / blockBytes
        guard blocks > 0, blocks <= Int(superblock.slotCount) * superblock.extentBlocks else {
            throw Self.damaged("the tables of shard \(root.stream) have an impossible size")
        }
        var references = [root.table]
        for _ in 0..<root.tableLevels {
            let index = try readTableBlocks(references, root, medium: medium)
            var reader = ByteReader(index.base, count: index.count)
            var below: [BlockReference] = []
            while below.count < blocks, let reference = reader.takeReference(),
                !reference.isHole
            {
                below.append(reference)
            }
            references = below
        }
        guard references.count == blocks else {
            throw Self.damaged("the tables of shard \(root.stream) are incomplete")
        }
        let tables = try readTableBlocks(references, root, medium: medium)
        guard
            let decoded = CheckpointTables.decode(
                tables.base, count: root.tableBytes, superblock: superblock)
        else { throw Self.damaged("the tables of shard \(root.stream) make no sense") }
        try install(decoded, root)
        try loadSpace(decoded, root, medium: medium)
        try loadRecords(decoded, root, medium: medium)
    }

    private func readTableBlocks(
        _ references: [BlockReference], _ root: CheckpointRoot, medium: some StoreMedium
    ) throws(StoreError) -> BlockBuffer {
        let buffer = BlockBuffer(blocks: max(references.count, 1))
        for (index, reference) in references.enumerated() {
            let slot = reference.address.extent.rawValue &- 1
            guard slot < UInt64(superblock.slotCount),
                reference.address.block < superblock.extentBlocks
            else { throw Self.damaged("the tables of shard \(root.stream) lead nowhere") }
            let place = buffer.base + index * blockBytes
            do throws(MediumError) {
                try medium.read(
                    at: superblock.byteOffset(
                        slot: ExtentSlot(UInt32(slot)), block: reference.address.block),
                    into: UnsafeMutableRawBufferPointer(start: place, count: blockBytes))
            } catch {
                throw StoreError(error)
            }
            guard Checksum.ofBlock(place) == reference.checksum else {
                throw Self.damaged("the tables of shard \(root.stream) fail their checksum")
            }
        }
        return buffer
    }

    private mutating func install(_ tables: CheckpointTables, _ root: CheckpointRoot)
        throws(StoreError)
    {
        for extent in tables.extents {
            guard !forest.extents.contains(extent.number), forest.extents.isFree(extent.slot)
            else { throw Self.damaged("shard \(root.stream) lists an extent twice") }
            // The state follows from where the log turns out to end.
            forest.extents.insert(
                extent.number, slot: extent.slot, state: .sealed, live: extent.live,
                lastLSN: extent.lastLSN)
        }
        forest.liveNodes = tables.liveNodes
    }
}

extension Engine {
    mutating func replayLog(_ root: CheckpointRoot, medium: some StoreMedium)
        throws(StoreError)
    {
        guard let slot = forest.extents.slot(of: root.replayExtent) else {
            throw Self.damaged("shard \(root.stream) has lost the end of its log")
        }
        var reader = LogReader(superblock: superblock, root: root, slot: slot)
        reader.passesOverErrors = inspection != nil
        isReplaying = true
        var tail = UnprovenTail(superblock: superblock, root: root)
        var isSecondLook = false
        while true {
            if let header = try nextChunk(&reader, medium: medium) {
                tail.add(header, in: reader.slot)
                try replay(header, reader: &reader, medium: medium)
                isSecondLook = false
                continue
            }
            // A bit that got lost on its way in must not end the log.
            if !isSecondLook {
                isSecondLook = true
                reader.readAgain()
                continue
            }
            isSecondLook = false
            guard try goesOnBehindDamage(&reader, root, medium: medium) else { break }
        }
        finishReplay(reader)
        try settleColdExtents()
        forest.extents.collectEmptied()
        catalog.versions.collectFreeRows(ofAll: root.versionRows)
        isReplaying = false
        try clearLogEnd(medium: medium)
        if inspection == nil {
            // When a sync has failed, a host may go on showing what it will never write; and extents that
            // the root before needs are given up from now on.
            try tail.renew(on: medium)
            try tail.renewRoot(on: medium)
        } else {
            inspection?.tail = tail
            if reader.endsUnreadable { noteUnreadableEnd() }
        }
        // What was found is shown, so it must not be lost by the next failure of power.
        do throws(MediumError) { try medium.sync() } catch { throw StoreError(error) }
        durableLSN = appliedLSN
    }

    /// The chunk that follows, in this extent or at the beginning of the next.
    private func nextChunk(
        _ reader: inout LogReader, medium: some StoreMedium
    ) throws(StoreError) -> ChunkHeader? {
        if let header = try reader.next(medium: medium) { return header }
        let next = reader.extent.next
        guard let nextSlot = forest.extents.slot(of: next) else { return nil }
        let (extent, slot, block) = (reader.extent, reader.slot, reader.block)
        reader.enter(next, slot: nextSlot)
        if let header = try reader.next(medium: medium) { return header }
        reader.enter(extent, slot: slot)
        reader.block = block
        return nil
    }

    /// No whole chunk follows. If that is damage, and not the end of the log, the store is refused, or
    /// the damage passed over as far as an inspection can. False: nothing comes any more.
    private mutating func goesOnBehindDamage(
        _ reader: inout LogReader, _ root: CheckpointRoot, medium: some StoreMedium
    ) throws(StoreError) -> Bool {
        guard isBeforeTables(reader, root) || isContradicted(&reader, medium: medium) else {
            return false
        }
        // The missing one may be at the beginning of the next extent.
        let (extent, slot, block) = (reader.extent, reader.slot, reader.block)
        if let next = forest.extents.slot(of: extent.next) {
            reader.enter(extent.next, slot: next)
            if try reader.nextDespitePayload(medium: medium) != nil {
                return try replayDamaged(&reader, medium: medium)
            }
            reader.enter(extent, slot: slot)
            reader.block = block
        }
        return try replayDamaged(&reader, medium: medium)
    }

    mutating func replay(
        _ header: ChunkHeader, reader: inout LogReader, medium: some StoreMedium
    ) throws(StoreError) {
        try prefetch(header, reader.headerBlock, medium: medium)
        var payload = 0
        var records = ChunkRecordReader(
            header: reader.headerBlock, recordBytes: header.recordBytes)
        while let record = records.next() {
            do throws(StoreError) {
                try replay(
                    record, header: header, payload: payload, block: reader.headerBlock,
                    medium: medium)
            } catch {
                try passOver(record, header, error)
            }
            payload += record.payloadBlocks
        }
        forest.extents.noteChunk(header.extent, lsn: header.lsn)
        bytesSinceCheckpoint += (1 + header.payloadBlocks) * blockBytes
        counters.replayedChunks += 1
        reader.advance(header)
    }

    private mutating func replay(
        _ record: ChunkRecord, header: ChunkHeader, payload: Int, block: UnsafeRawPointer,
        medium: some StoreMedium
    ) throws(StoreError) {
        switch record {
        case .node, .table, .moved: return
        case .lease(let extent, let slot):
            try replayLease(extent, slot)
        case .moves(let to, let count, let offset):
            try replayMoves(
                to: to, count: count, header: block, fromOffset: offset, medium: medium)
        case .drop(let extent): try replayDrop(extent, reading: header.extent)
        case .vdi(let change):
            if let snapshot = change.newSnapshot, catalog.versions.isTaken(snapshot) {
                throw Self.damaged(
                    "a snapshot of shard \(configuration.stream) finds its place taken")
            }
            // What was refused then is refused now.
            _ = carryOut(change)
            changesSinceFreeze += 1
        case .data(let vdi, let firstBlock, let count, let offset):
            let handle = try handleForReplay(vdi, firstBlock, count, header)
            let address = BlockAddress(extent: header.extent, block: header.block + 1 + payload)
            while !applyData(
                handle, firstBlock: firstBlock, count: count, address: address,
                checksums: block + offset)
            { try loadWantedNodes(medium: medium) }
            changesSinceFreeze += 1
        case .hole(let vdi, let firstBlock, let count, let kind):
            let handle = try handleForReplay(vdi, firstBlock, count, header)
            while !applyHole(handle, firstBlock: firstBlock, count: count, kind: kind) {
                try loadWantedNodes(medium: medium)
            }
            changesSinceFreeze += 1
        }
    }

    private mutating func replayLease(_ extent: ExtentNumber, _ slot: ExtentSlot)
        throws(StoreError)
    {
        if !extent.isCold { log.nextExtent = max(log.nextExtent, extent.next) }
        if let known = forest.extents.slot(of: extent) {
            // The checkpoint's tables are younger than the lease.
            if known == slot { return }
            // Or the lease is younger: the one before was on its way back to the allocator.
            guard !extent.isCold, isUnused(extent) else {
                throw Self.damaged("two places for extent \(extent.rawValue)")
            }
            forest.extents.remove(extent)
        }
        guard slot.rawValue < superblock.slotCount, forest.extents.hasRoom, extent.rawValue > 0,
            forest.extents.isFree(slot)
        else { throw Self.damaged("extent \(extent.rawValue) is leased outside the store") }
        forest.extents.insert(extent, slot: slot, state: .leased)
        if extent.isCold { cleaner.cold.next = max(cleaner.cold.next, extent.next) }
    }

    private func isUnused(_ extent: ExtentNumber) -> Bool {
        guard let known = forest.extents.find(extent) else { return false }
        return known.live == 0 && known.lastLSN.rawValue == 0
    }

    private func handleForReplay(
        _ vdi: VDIIdentifier, _ firstBlock: UInt64, _ count: Int, _ header: ChunkHeader
    ) throws(StoreError) -> Int {
        let inLeaf = Int(truncatingIfNeeded: firstBlock % UInt64(radixFanout))
        guard let handle = catalog.handle(of: vdi),
            firstBlock < Limits.vdiBytes.upperBound / UInt64(blockBytes),
            inLeaf + count <= radixFanout
        else {
            throw Self.damaged(
                "chunk \(header.lsn.rawValue) writes to a VDI or block that is not there")
        }
        return Int(handle)
    }

    /// Starts the loads of all nodes that a chunk needs at once: a replay of random writes would
    /// else wait for them one by one.
    private mutating func prefetch(
        _ header: ChunkHeader, _ block: UnsafeRawPointer, medium: some StoreMedium
    ) throws(StoreError) {
        for _ in 0..<Limits.radixLevels {
            var records = ChunkRecordReader(header: block, recordBytes: header.recordBytes)
            while let record = records.next() {
                switch record {
                case .data(let vdi, let first, _, _), .hole(let vdi, let first, _, _):
                    if let handle = catalog.handle(of: vdi) {
                        _ = forest.walk(catalog.vdis[Int(handle)], to: first)
                    }
                case .node, .table, .lease, .vdi, .moved, .moves, .drop: break
                }
            }
            if forest.wantedLoads.isEmpty { return }
            // A node that cannot be read is found out when it is needed.
            do throws(StoreError) {
                try loadWantedNodes(medium: medium)
            } catch {
                if error.kind == .tooFewFrames { throw error }
                return
            }
        }
    }

    /// Carries out the node loads that are wanted, and waits for them. Where so little can be evicted that
    /// room for a change would take the path to it away again, that would never end: there are too few
    /// frames.
    private mutating func loadWantedNodes(medium: some StoreMedium) throws(StoreError) {
        let isAnyWanted = !forest.wantedLoads.isEmpty
        sendNodeLoads()
        var loads: [StoreCommand] = []
        while let command = commands.popFirst() { loads.append(command) }
        // In a damaged store what is wanted may lead nowhere: that is its answer.
        if isAnyWanted, loads.isEmpty, forest.wantedLoads.isEmpty, failure == nil { return }
        let available = forest.cache.freeCount + forest.cache.idleCount + loads.count
        let isEnough = available >= RadixForest.framesPerChange + Limits.radixLevels
        guard !loads.isEmpty && isEnough || failure != nil else {
            throw StoreError(
                .tooFewFrames, Self.damaged("its log cannot be replayed in any memory").message)
        }
        let failed = loads.withUnsafeBufferPointer { buffer in
            do throws(MediumError) {
                try medium.readAll(buffer)
                return false
            } catch {
                return true
            }
        }
        for load in loads {
            let result = failed ? readOne(load, medium: medium) : load.byteCount
            complete(StoreCompletion(tag: load.tag, result: result))
        }
        if let failure { throw failure }
    }

    private func readOne(_ load: StoreCommand, medium: some StoreMedium) -> Int {
        guard let buffer = load.buffers?.pointee else { return -5 }
        do throws(MediumError) {
            try medium.read(
                at: load.offset,
                into: UnsafeMutableRawBufferPointer(start: buffer.base, count: buffer.count))
            return load.byteCount
        } catch {
            return -Int(error.errno)
        }
    }

    /// The log ends where the reader stands: the next chunk goes there.
    private mutating func finishReplay(_ reader: borrowing LogReader) {
        log.nextLSN = reader.lsn
        log.extent = reader.extent
        log.head = reader.block
        appliedLSN = LogSequenceNumber(reader.lsn.rawValue - 1)
        var leased: [LogWriter.Lease] = []
        for index in 0..<forest.extents.count {
            let extent = forest.extents[index]
            if extent.number.isCold { continue }
            if extent.number > reader.extent {
                forest.extents.setState(extent.number, .leased)
                leased.append(
                    LogWriter.Lease(extent: extent.number, slot: extent.slot, isAnnounced: true))
            } else {
                forest.extents.setState(
                    extent.number, extent.number == reader.extent ? .open : .sealed)
            }
        }
        leased.sort { $0.extent < $1.extent }
        for lease in leased { log.append(lease: lease) }
        if let last = leased.last { log.nextExtent = max(log.nextExtent, last.extent.next) }
        log.nextExtent = max(log.nextExtent, reader.extent.next)
    }
}
