// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Brings a damaged store to the best state that can be had.
///
/// ```
///   store --(read only)--> overlay in memory: superblocks, then for each shard the engine, opened as
///                          a check opens it, its books made right, and a checkpoint
///                     `--> checked again, as a whole
///         <--(apply)------ only then, and only if it is wanted
/// ```
/// Nothing that can be read is thrown away. What cannot be read stays where it is, and what may be
/// beneath it too, so that reads report an error and never other data than were written.
package final class StoreRepair<Base: StoreMedium> {
    private let overlay: Overlay<Base>
    private let options: StoreCheck.Options
    private var newestCopy = 0
    private var tails: [UnprovenTail] = []
    /// The store as it is.
    package let before: CheckReport
    /// The store as it would be.
    package private(set) var after = CheckReport()

    /// Works the repair out and writes nothing. Throws when there is no way.
    package init(
        medium: Base, options: StoreCheck.Options,
        progress: @escaping (StoreCheck.Progress) -> Void = { _ in }
    ) throws(StoreError) {
        self.options = options
        overlay = Overlay(medium)
        before = StoreCheck.run(medium: medium, options: options, progress: progress)
        if before.severity == nil {
            after = before
            return
        }
        try mend()
        after = StoreCheck.run(medium: overlay, options: options, progress: progress)
        // What was lost with the log is as it was before: no later check can know.
        let remaining = Set(after.findings.map(\.structure)).subtracting([.data, .node])
        guard remaining.isEmpty else {
            let first = after.findings.first { remaining.contains($0.structure) }
            throw StoreError(
                .damaged,
                "The store cannot be repaired: \(first?.message ?? "") Restore it from a backup, or "
                    + "copy out what can be read.")
        }
    }

    /// Whether there is anything to do.
    package var isNeeded: Bool { !overlay.blocks.isEmpty }

    /// Bytes that `apply` writes.
    package var byteCount: Int { overlay.blocks.count * blockBytes }

    /// Writes the repair to the store.
    package func apply() throws(StoreError) {
        guard isNeeded else { return }
        // The repair stands on what the store shows, which must not be lost in the middle of it.
        try overlay.renewSuperblock(newestCopy)
        for tail in tails {
            try tail.renew(on: overlay.base, passesOverErrors: true)
            try tail.renewRoot(on: overlay.base)
        }
        try overlay.apply(lastCopy: newestCopy)
    }

    private func mend() throws(StoreError) {
        let opened = try Store.inspect(medium: overlay)
        newestCopy = opened.newestCopy
        let superblock = try Store.open(medium: overlay).superblock
        let check = StoreCheck(options: options) { _ in }
        var slots = SlotAllocator(slotCount: Int(superblock.slotCount))
        var engines: [StreamOpening] = []
        for stream in 0..<Int(superblock.streamCount) {
            let found = check.openStream(stream, superblock, medium: overlay)
            guard let opening = found.opening else {
                throw StoreError(
                    .damaged, found.findings.last?.message ?? "Shard \(stream) cannot be read.")
            }
            engines.append(opening)
            if let tail = opening.engine.inspection?.tail { tails.append(tail) }
        }
        try claimSlots(of: engines, &slots)
        for opening in engines { opening.engine.giveDisksToSnapshots() }
        rename(engines)
        for engine in engines { try engine.mend(on: overlay, &slots) }
    }

    private func claimSlots(
        of engines: [StreamOpening], _ slots: inout SlotAllocator
    ) throws(StoreError) {
        for mended in engines {
            for slot in mended.engine.ownedSlots() where !slots.markUsed(slot) {
                throw StoreError(
                    .damaged,
                    "Two shards claim slot \(slot.rawValue) of the store, and only one of them can be "
                        + "right; restore the store from a backup.")
            }
        }
    }

    /// Names of VDIs are unique among all shards, those of snapshots in their VDI.
    private func rename(_ engines: [StreamOpening]) {
        var names = UniqueNames()
        for mended in engines {
            for handle in 0..<mended.engine.catalog.count
            where mended.engine.catalog.vdis[handle].kind == .head
                && !mended.engine.catalog.vdis[handle].isDeleting
            {
                if options.namesAreUnique { mended.engine.renameVDI(handle, &names) }
                mended.engine.renameSnapshots(of: handle)
            }
        }
    }
}

extension StreamOpening {
    /// LIMIT: turns that the checkpoint of a repair may take.
    private static var turns: Int { 1_000_000 }

    /// Makes the books right, and writes them to two checkpoints.
    fileprivate func mend(
        on medium: some StoreMedium, _ slots: inout SlotAllocator
    ) throws(StoreError) {
        var walk = TreeWalk(verifiesData: false, lossesKept: 0) { _ in }
        engine.walkTrees(&walk, medium: medium)
        engine.notePages(&walk)
        if let clash = walk.clash {
            throw StoreError(
                .damaged,
                "The store cannot be repaired: \(clash) What may be freed is not known. Restore it from "
                    + "a backup, or copy out what can be read.")
        }
        engine.mend(walk)
        engine.windDown()
        var clock: UInt64 = 1
        // Two, so that both roots are those of the repaired stream.
        for _ in 0..<2 {
            let done = engine.counters.checkpoints + 1
            engine.changesSinceFreeze += 1
            engine.checkpoint.isNeeded = true
            var turns = 0
            while engine.counters.checkpoints < done, engine.failure == nil {
                // Until the new roots are in the store, the old ones still lead to what was there.
                engine.step(on: medium, slots: &slots, clock: &clock, reusesSlots: false)
                turns += 1
                guard turns < Self.turns else { break }
            }
            if let failure = engine.failure { throw failure }
            guard engine.counters.checkpoints >= done else {
                throw StoreError(
                    .damaged,
                    "The store has no space left for the repair of shard "
                        + "\(engine.configuration.stream); make it larger, or restore it from a backup."
                )
            }
        }
    }
}
