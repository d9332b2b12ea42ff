// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a checkpoint keeps of the space: the forwards and the live bits.
///
/// The order matters. Forward pages are blocks like others, whose bits the pages of live bits
/// have. Those come last, and their own bits are in none of them: the tables say where they are.
extension Engine {
    /// The forward pages on which anything has changed become part of the checkpoint. With hundreds of
    /// gigabytes moved they are gigabytes: what is changed before it is written is copied then.
    mutating func freezeForwards() {
        for reference in forest.forwards.takeAbandoned() { forgetTableBlock(reference) }
        checkpoint.frozenForwards.removeAll()
        checkpoint.stagedForwards = 0
        for page in forest.forwards.pages.indices where forest.forwards.pages[page].isDirty {
            checkpoint.frozenForwards.append(page)
            forgetTableBlock(forest.forwards.freeze(page))
        }
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
            var reference = BlockReference.hole
            if !Memory.isZero(forest.forwards.frozenContent(position), count: blockBytes) {
                guard
                    let staged = stageTable({ place, engine in
                        Memory.copy(
                            to: place, from: engine.forest.forwards.frozenContent(position),
                            count: blockBytes)
                    })
                else { return false }
                reference = staged
            }
            forest.forwards.finishFrozen(position, reference)
            let index = checkpoint.frozenForwards[position]
            checkpoint.tableContents.forwardPages[index].reference = reference
            checkpoint.stagedForwards += 1
        }
        forest.forwards.endFreeze()
        return true
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
