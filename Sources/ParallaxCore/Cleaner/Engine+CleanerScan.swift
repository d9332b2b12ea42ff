// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Finding what lives.
extension Engine {
    /// Takes the live blocks of the piece, until the batch is full.
    mutating func lookThrough(_ piece: Cleaner.Piece, _ memory: UnsafeRawPointer) {
        let end = piece.start + piece.count
        if piece.state == .unreadable { return pass(upTo: end) }
        while cleaner.scan.block < end, !cleaner.isBatchFull {
            let block = cleaner.scan.block
            let content = memory + (block - piece.start) * blockBytes
            let place = BlockAddress(extent: cleaner.scan.victim, block: block)
            if cleaner.scan.chunk.payloadLeft > 0,
                let record = cleaner.scan.chunk.recordOfNextBlock()
            {
                if forest.extents.isLive(place) { take(place, content, record) }
                cleaner.scan.chunk.advance()
            } else {
                if forest.extents.isLive(place) { cleaner.scan.damaged += 1 }
                // A chunk begins here, or else nothing that is known: then the next block is looked at
                // as if one began there. No harm comes of a block that only looks like a header: what
                // lives, and under which name, is not taken from it.
                _ = cleaner.scan.chunk.enter(
                    content, at: place, header: cleaner.chunkHeader.base, superblock: superblock,
                    stream: configuration.stream)
            }
            cleaner.scan.block += 1
        }
    }

    /// What cannot be read stays where it is.
    private mutating func pass(upTo end: Int) {
        for block in cleaner.scan.block..<end
        where forest.extents.isLive(BlockAddress(extent: cleaner.scan.victim, block: block)) {
            cleaner.scan.damaged += 1
        }
        cleaner.scan.chunk.leave()
        cleaner.scan.block = end
    }

    private mutating func take(
        _ place: BlockAddress, _ content: UnsafeRawPointer, _ record: ChunkRecord
    ) {
        let index = cleaner.scan.chunk.indexInRecord
        let header = UnsafeRawPointer(cleaner.chunkHeader.base)
        var survivor = Cleaner.Survivor(
            place: place, vdi: 0, firstBlock: 0,
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
        case .table:
            cleaner.tablePlaces.insert(place.rawValue)
            return
        case .hole, .lease, .vdi, .moves, .drop: return
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
    /// False: none were found, or there is no room for all of them in that checkpoint.
    @discardableResult
    mutating func renewTables() -> Bool {
        guard !cleaner.tablePlaces.isEmpty else { return false }
        let places = cleaner.tablePlaces
        cleaner.tablePlaces.removeAll(keepingCapacity: true)
        func isMeant(_ reference: BlockReference) -> Bool {
            !reference.isHole && places.contains(reference.address.rawValue)
        }
        for page in catalog.pages.pages.indices
        where isMeant(catalog.pages.pages[page].reference) {
            guard hasRoomForDeletions else { return false }
            catalog.pages.touch(UInt32(page))
            changesSinceFreeze += 1
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
        return true
    }
}
