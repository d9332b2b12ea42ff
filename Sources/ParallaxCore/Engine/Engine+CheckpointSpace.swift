// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a checkpoint keeps of the space: the forwards and the live bits.
///
/// The order matters. Forward pages are blocks like others, whose bits the pages of live bits
/// have. Those come last, and their own bits are in none of them: the tables say where they are.
extension Engine {
    /// Copies the forward pages on which anything has changed.
    mutating func freezeForwards() {
        for reference in forest.forwards.takeAbandoned() { forgetTableBlock(reference) }
        var dirty: [Int] = []
        for page in forest.forwards.pages.indices where forest.forwards.pages[page].isDirty {
            dirty.append(page)
        }
        let buffer = BlockBuffer(blocks: max(dirty.count, 1))
        for (position, page) in dirty.enumerated() {
            Memory.copy(
                to: buffer.base + position * blockBytes, from: forest.forwards.pages[page].entries,
                count: blockBytes)
            forgetTableBlock(forest.forwards.freeze(page))
        }
        checkpoint.forwardContents = consume buffer
        checkpoint.frozenForwards = dirty
        checkpoint.stagedForwards = 0
    }

    /// All forward pages as of the freeze.
    var forwardPages: [CheckpointTables.ForwardPage] {
        forest.forwards.pages.map { page in
            CheckpointTables.ForwardPage(
                depth: page.depth, prefix: page.prefix, reference: page.reference)
        }
    }

    /// True when all are in chunks.
    mutating func writeForwardPages() -> Bool {
        while checkpoint.stagedForwards < checkpoint.frozenForwards.count {
            let position = checkpoint.stagedForwards
            if !isEmptyForwardPage(position) {
                guard
                    let reference = stageTable({ place, engine in
                        Checkpoint.copyBlock(
                            position, of: engine.checkpoint.forwardContents, to: place)
                    })
                else { return false }
                forest.forwards.setFrozenReference(position, reference)
                let index = checkpoint.frozenForwards[position]
                checkpoint.tableContents.forwardPages[index].reference = reference
            }
            checkpoint.stagedForwards += 1
        }
        if checkpoint.forwardContents != nil {
            checkpoint.forwardContents = nil
            forest.forwards.endFreeze()
        }
        return true
    }

    private func isEmptyForwardPage(_ position: Int) -> Bool {
        switch checkpoint.forwardContents {
        case .some(let contents):
            Memory.isZero(contents.base + position * blockBytes, count: blockBytes)
        case .none: true
        }
    }

    /// The pages of live bits that this checkpoint writes leave their old places; which may make
    /// it write the pages with the bits of these, too.
    mutating func forgetLivePages() {
        while checkpoint.forgottenLivePages < forest.extents.livePages.writing.count {
            let page = Int(forest.extents.livePages.writing[checkpoint.forgottenLivePages])
            checkpoint.forgottenLivePages += 1
            let old = forest.extents.livePages.references[page]
            guard !old.isHole else { continue }
            forest.extents.livePages.setReference(page, .hole)
            forest.extents.removeLivePage(old.address)
        }
    }

    /// True when all are in chunks.
    mutating func writeLivePages() -> Bool {
        if checkpoint.stagedLivePages == 0 { forgetLivePages() }
        while checkpoint.stagedLivePages < forest.extents.livePages.writing.count {
            let page = Int(forest.extents.livePages.writing[checkpoint.stagedLivePages])
            if forest.extents.hasExtent(onLivePage: page) {
                guard
                    let reference = stageTable(
                        isLivePage: true,
                        { place, engine in
                            engine.forest.extents.fillLivePage(page, at: place)
                        })
                else { return false }
                forest.extents.livePages.setReference(page, reference)
            }
            checkpoint.stagedLivePages += 1
        }
        forest.extents.endFreeze()
        return true
    }
}
