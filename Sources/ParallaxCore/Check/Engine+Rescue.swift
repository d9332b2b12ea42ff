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
            forEachMoved(in: extent, end: end, medium: medium) { rescued.append(($0, $1)) }
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

    private func forEachMoved(
        in extent: ExtentTable.Extent, end: Int, medium: some StoreMedium,
        _ body: (MovedBlock, BlockAddress) -> Void
    ) {
        let block = BlockBuffer()
        var position = 0
        while position < end {
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
