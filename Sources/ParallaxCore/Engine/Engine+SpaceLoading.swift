// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Reading what a checkpoint keeps of the space. The pages are at the places that the tables say:
/// the cleaner does not move them.
extension Engine {
    mutating func loadSpace(
        _ tables: CheckpointTables, _ root: CheckpointRoot, medium: some StoreMedium
    ) throws(StoreError) {
        cleaner.cold = tables.cold
        try loadForwards(tables, root, medium: medium)
        try loadLiveBits(tables, root, medium: medium)
    }

    private mutating func loadForwards(
        _ tables: CheckpointTables, _ root: CheckpointRoot, medium: some StoreMedium
    ) throws(StoreError) {
        let count = tables.forwardPages.count
        for start in stride(from: 0, to: count, by: Self.blocksPerRead) {
            let part = tables.forwardPages[start..<min(start + Self.blocksPerRead, count)]
            let blocks = try readBlocks(
                part.map(\.reference), from: start, root, .forwards, medium: medium)
            for (index, page) in part.enumerated() {
                guard
                    forest.forwards.load(
                        blocks.base + index * blockBytes, depth: page.depth, prefix: page.prefix,
                        reference: page.reference)
                else { throw Self.damaged("the forwards of shard \(root.stream) make no sense") }
            }
        }
        guard forest.forwards.finishLoad(), forest.collectNames() else {
            throw Self.damaged("the forwards of shard \(root.stream) are incomplete")
        }
    }

    private mutating func loadLiveBits(
        _ tables: CheckpointTables, _ root: CheckpointRoot, medium: some StoreMedium
    ) throws(StoreError) {
        let blocks = try readBlocks(
            tables.livePages.map(\.reference), root, .liveBits, medium: medium)
        for (index, entry) in tables.livePages.enumerated() {
            guard entry.page < forest.extents.livePages.references.count else {
                throw Self.damaged("shard \(root.stream) has live bits outside the store")
            }
            forest.extents.livePages.setReference(entry.page, entry.reference)
            forest.extents.loadLivePage(entry.page, from: blocks.base + index * blockBytes)
        }
        for entry in tables.livePages {
            guard forest.extents.loadPlace(ofLivePage: entry.reference.address) else {
                throw Self.damaged("the live bits of shard \(root.stream) lead nowhere")
            }
        }
        if let extent = forest.extents.inconsistentExtent, inspection?.hasLostBits != true {
            inspection?.hasLostBits = true
            try object(
                "the live bits of extent \(extent.rawValue) are not as many as its live blocks",
                .liveBits, .repairable, consequence: "a repair counts them again")
        }
    }
}
