// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Finding moved blocks again whose forward page is lost: the chunks of the cold extents say which
/// names their blocks have.
extension Engine {
    /// Puts back what the lost pages had, as far as the cold extents tell. Entries of blocks that have
    /// died since come back as well: the comparison with a walk finds them.
    mutating func rescueForwards(medium: some StoreMedium) {
        guard let lost = inspection?.lostForwardPages, !lost.isEmpty else { return }
        var cold: [ExtentTable.Extent] = []
        for index in 0..<forest.extents.count
        where forest.extents[index].number.isCold
            && forest.extents[index].number <= cleaner.cold.newest
        {
            cold.append(forest.extents[index])
        }
        var rescued: [(moved: MovedBlock, place: BlockAddress)] = []
        for extent in cold.sorted(by: { $0.number < $1.number }) {
            let isNewest = extent.number == cleaner.cold.newest
            let end = isNewest ? cleaner.cold.filled : superblock.extentBlocks
            forEachMoved(in: extent, 0..<end, medium: medium) { rescued.append(($0, $1)) }
        }
        let pages = Set(lost)
        // Chosen before any is put back, since a page that overflows is split. The newest place of a
        // name comes last, and counts.
        let wanted = rescued.filter { forest.forwards.isOn(pages, $0.moved.name) }
        var sound: [(moved: MovedBlock, place: BlockAddress)] = []
        for (moved, place) in wanted {
            switch looksMoved(moved, to: place, medium: medium) {
            case true?: sound.append((moved, place))
            case false?: break
            // What cannot be read now may be readable later; a place that can be is better.
            case nil: forest.restoreForward(moved.name, to: place)
            }
        }
        for (moved, place) in sound { forest.restoreForward(moved.name, to: place) }
    }

    /// Whether the block is at this place: a chunk may be there that a crash has left, and from which nothing
    /// was moved. nil: nobody knows.
    private func looksMoved(
        _ moved: MovedBlock, to place: BlockAddress, medium: some StoreMedium
    ) -> Bool? {
        guard inspection?.hasLostBits == true else { return forest.extents.isLive(place) }
        guard let slot = forest.extents.slot(of: place.extent) else { return false }
        let block = BlockBuffer()
        let offset = superblock.byteOffset(slot: slot, block: place.block)
        guard (try? medium.read(at: offset, into: block.bytes)) != nil else { return nil }
        return Checksum.ofBlock(block.base) == moved.checksum
    }

    /// What the cold chunk whose payload begins at `first` says of the names of its blocks. nil: no
    /// forward is lost, and nobody need ask.
    func rescuedNames(
        of first: BlockAddress, medium: some StoreMedium
    ) -> [BlockAddress: BlockAddress]? {
        guard inspection?.lostForwardPages.isEmpty == false else { return nil }
        var names: [BlockAddress: BlockAddress] = [:]
        if first.block > 0, let extent = forest.extents.find(first.extent) {
            forEachMoved(in: extent, first.block - 1..<first.block, medium: medium) {
                names[$1] = $0.name
            }
        }
        return names
    }

    /// A replayed move has given `place` the name that the books knew, and they are not whole: the trees may
    /// know the block by the name in the cold chunk, or, where a leaf had taken that up since, by the place
    /// `from` which it had before. It gets them all, and counts as known by the first; a walk finds out
    /// which of them nothing uses.
    mutating func keepOtherNames(
        _ from: BlockAddress, _ name: BlockAddress?, of place: BlockAddress
    ) {
        if let name, forest.forwards.find(name) == nil { forest.restoreForward(name, to: place) }
        if forest.forwards.find(from) == nil { forest.addName(from, of: place) }
    }

    /// Calls `body` with each block, and its place, of the cold chunks that begin at these blocks.
    private func forEachMoved(
        in extent: ExtentTable.Extent, _ blocks: Range<Int>, medium: some StoreMedium,
        _ body: (MovedBlock, BlockAddress) -> Void
    ) {
        let block = BlockBuffer()
        var position = blocks.lowerBound
        while position < blocks.upperBound {
            let start = position
            position += 1
            guard
                (try? medium.read(
                    at: superblock.byteOffset(slot: extent.slot, block: start), into: block.bytes))
                    != nil,
                let header = ChunkHeader.decode(
                    from: block.base, uuid: superblock.uuid, stream: configuration.stream),
                header.extent == extent.number, header.block == start
            else { continue }
            position = start + 1 + header.payloadBlocks
            var payload = start + 1
            var records = ChunkRecordReader(header: block.base, recordBytes: header.recordBytes)
            while let record = records.next() {
                if case .moved(_, let count, let offset) = record {
                    for index in 0..<count {
                        let moved = MovedBlock.read(
                            block.base, offset: offset + index * MovedBlock.bytes)
                        body(
                            moved,
                            BlockAddress(extent: extent.number, block: payload + index))
                    }
                }
                payload += record.payloadBlocks
            }
        }
    }
}
