// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The record pages of a checkpoint.
extension Engine {
    /// Copies the records of the pages on which anything has changed. Roots whose nodes have no
    /// place yet are kept, and put there when they have.
    mutating func freezePages() {
        checkpoint.pages = catalog.pages.takeDirty()
        checkpoint.frozenRoots.removeAll(keepingCapacity: true)
        checkpoint.stagedPages = 0
        checkpoint.stagedIndexBlocks = 0
        checkpoint.indexBlocks.removeAll(keepingCapacity: true)
        let buffer = BlockBuffer(blocks: max(checkpoint.pages.count, 1))
        for (position, page) in checkpoint.pages.enumerated() {
            freeze(page, into: buffer, at: position * blockBytes)
            let index = Int(page) / radixFanout
            if checkpoint.indexBlocks.last != index { checkpoint.indexBlocks.append(index) }
        }
        checkpoint.pageContents = consume buffer
        while catalog.pages.index.count < catalog.pages.indexCount {
            catalog.pages.index.append(.hole)
        }
        for index in checkpoint.indexBlocks {
            forgetTableBlock(catalog.pages.index[index])
            catalog.pages.index[index] = .hole
        }
    }

    /// What is written anew leaves its old place.
    mutating func forgetTableBlock(_ reference: BlockReference) {
        if !reference.isHole { forest.extents.removeLive(reference.address) }
    }

    private mutating func freeze(
        _ page: UInt32, into buffer: borrowing BlockBuffer, at offset: Int
    ) {
        forgetTableBlock(catalog.pages.pages[Int(page)].reference)
        catalog.pages.setReference(page, .hole)
        let members = catalog.pages.pages[Int(page)].members
        var writer = ByteWriter(buffer.base, capacity: offset + blockBytes, at: offset)
        writer.put(UInt32(members.count))
        writer.put(UInt32(0))
        for owner in members {
            let root: BlockReference
            let place: Int
            if let handle = owner.handle {
                catalog.vdis[handle].isRecordDirty = false
                forest.resolve(&catalog.vdis[handle].root)
                var record = catalog.record(handle)
                root = record.root
                record.root = root.address.isResident ? .hole : root
                place = writer.count + VDIRecord.rootOffset
                record.encode(to: &writer)
            } else {
                let row = owner.row ?? 0
                catalog.versions[row].isRecordDirty = false
                forest.resolve(&catalog.versions[row].root)
                var record = catalog.record(row: row)
                root = record.version.root
                record.version.root = root.address.isResident ? .hole : root
                place = writer.count + VersionRecord.rootOffset
                record.encode(to: &writer)
            }
            guard root.address.isResident else { continue }
            forest.share(root)
            checkpoint.frozenRoots.append(
                Checkpoint.FrozenRoot(offset: place, root: root, owner: owner))
        }
    }

    /// All nodes have their places: so have the roots.
    mutating func beginPages() {
        for index in 0..<checkpoint.frozenRoots.count {
            var root = checkpoint.frozenRoots[index].root
            forest.resolve(&root)
            checkpoint.frozenRoots[index].root = root
            put(checkpoint.frozenRoots[index])
        }
        checkpoint.phase = .pages
        if writePages() { beginTables() }
    }

    private func put(_ frozen: Checkpoint.FrozenRoot) {
        precondition(!frozen.root.address.isResident, "Checkpoint: a root without a place")
        switch checkpoint.pageContents {
        case .some(let contents):
            var writer = ByteWriter(
                contents.base, capacity: contents.count, at: frozen.offset)
            writer.put(reference: frozen.root)
        case .none: preconditionFailure("Checkpoint: no record pages to write")
        }
    }

    /// Puts record pages, then index blocks, into chunks. True when all are.
    mutating func writePages() -> Bool {
        while checkpoint.stagedPages < checkpoint.pages.count {
            let position = checkpoint.stagedPages
            let page = checkpoint.pages[position]
            if isEmptyPage(position) {
                checkpoint.stagedPages += 1
                continue
            }
            guard
                let reference = stageTable({ place, engine in
                    Checkpoint.copyBlock(position, of: engine.checkpoint.pageContents, to: place)
                })
            else { return false }
            catalog.pages.setReference(page, reference)
            checkpoint.stagedPages += 1
        }
        while checkpoint.stagedIndexBlocks < checkpoint.indexBlocks.count {
            let index = checkpoint.indexBlocks[checkpoint.stagedIndexBlocks]
            guard
                let reference = stageTable({ place, engine in
                    engine.fillIndexBlock(index, at: place)
                })
            else { return false }
            catalog.pages.index[index] = reference
            checkpoint.stagedIndexBlocks += 1
        }
        checkpoint.pageContents = nil
        return writeForwardPages() && writeLivePages()
    }

    private func isEmptyPage(_ position: Int) -> Bool {
        switch checkpoint.pageContents {
        case .some(let contents):
            contents.base.loadUnaligned(
                fromByteOffset: position * blockBytes, as: UInt32.self) == 0
        case .none: true
        }
    }

    private func fillIndexBlock(_ index: Int, at place: UnsafeMutableRawPointer) {
        Memory.zero(place, count: blockBytes)
        var writer = ByteWriter(place, capacity: blockBytes)
        let first = index * radixFanout
        let end = min(first + radixFanout, checkpoint.tableContents.pageCount)
        for page in first..<end {
            writer.put(reference: catalog.pages.pages[page].reference)
        }
    }

    /// Puts one block, counted as live, into a chunk. nil: there is no room yet.
    mutating func stageTable(
        isLivePage: Bool = false, _ fill: (UnsafeMutableRawPointer, borrowing Engine) -> Void
    ) -> BlockReference? {
        guard
            prepareChunk(
                recordBytes: ChunkRecord.tableFixedBytes + 4, payloadBlocks: 1,
                reserve: .checkpoint) == .go
        else { return nil }
        let building = log.building
        let chunk = log.chunks[building]
        let block = chunk.payloadBlocks
        fill(chunk.payload(block), self)
        let checksum = recordTable(chunk.payload(block))
        let place = chunk.address(ofPayload: block)
        if isLivePage {
            forest.extents.addLivePage(place)
        } else {
            forest.extents.addCheckpointLive(place)
            forest.extents.addLive(place)
        }
        return BlockReference(address: place, checksum: checksum, birth: 0)
    }

    /// Adds the record of a table block whose payload is in place. Returns its checksum.
    mutating func recordTable(_ payload: UnsafeRawPointer) -> UInt32 {
        let building = log.building
        let checksum = Checksum.ofBlock(payload)
        var writer = log.chunks[building].recordWriter()
        writer.put(ChunkRecord.Kind.table)
        writer.put(UInt8(0))
        writer.put(UInt16(1))
        writer.put(UInt32(0))
        writer.put(checksum)
        log.chunks[building].recordBytes += ChunkRecord.tableFixedBytes + 4
        log.chunks[building].payloadBlocks += 1
        checkpoint.lastLSN = log.chunks[building].lsn
        return checksum
    }

    /// What the tables say about the deletion under way.
    var deletionUnderWay: CheckpointTables.Deletion? {
        guard let job = catalog.reclaim.job, job.purpose == .free else { return nil }
        let target =
            job.target.row.map { catalog.versions[$0].identifier.rawValue }
            ?? job.target.handle.map { catalog.vdis[$0].identifier.rawValue } ?? 0
        return CheckpointTables.Deletion(target: target, level: job.level, cursor: job.cursor)
    }
}
