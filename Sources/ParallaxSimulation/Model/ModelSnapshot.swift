// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What one snapshot holds.
///
/// The answer to a snapshot tells only that the cut came somewhere between its submission and its
/// answer. So it begins with several prefixes of the order of acknowledgements that it may be, and
/// with blocks that are different in them. Each block that is read is known for ever, and leaves
/// fewer prefixes:
///
///     content    blocks that are known; a block that is in neither reads as zeros
///     undecided  blocks that nobody has read, with all that they may hold
///     prefixes   those that explain every block that was read
package final class ModelSnapshot {
    package let identifier: UInt64
    package let vdi: UInt64
    package let ancestors: Set<UInt64>
    package let sectorCount: UInt64
    package var content: [UInt64: BlockValue] = [:]
    package var undecided: [UInt64: BlockHistory] = [:]
    package var prefixes: [Int]
    /// How many mutations had been acknowledged when the snapshot was answered.
    package let whole: Int

    package init(
        identifier: UInt64, disk: ModelDisk, sectorCount: UInt64, prefixes: ClosedRange<Int>
    ) {
        self.identifier = identifier
        vdi = disk.identifier
        ancestors = disk.ancestors
        self.sectorCount = sectorCount
        self.prefixes = Array(prefixes)
        whole = prefixes.upperBound
    }

    package var isDecided: Bool { undecided.isEmpty }

    /// Blocks that may hold anything but zeros.
    package var trackedBlocks: [UInt64] {
        (Array(content.keys) + Array(undecided.keys)).sorted()
    }

    func mayHold(writesTo writer: UInt64) -> Bool { writer == vdi || ancestors.contains(writer) }
}

/// When a snapshot was asked for.
package struct SnapshotWindow {
    /// Mutations that had been acknowledged: they are in it.
    package var covered: Int
    /// The moment; what is answered later stays on record.
    var submittedAt: Int
}

extension StreamOracle {
    package func beginSnapshot() -> SnapshotWindow {
        SnapshotWindow(covered: sequence, submittedAt: beginRead())
    }

    /// The snapshot was not made.
    package func abandonSnapshot(_ window: SnapshotWindow) {
        endRead(submittedAt: window.submittedAt)
    }

    /// The snapshot was answered, or found after a crash: the cut lies between `window` and now.
    package func endSnapshot(
        _ window: SnapshotWindow, identifier: UInt64, vdi: UInt64, sectorCount: UInt64
    ) {
        abandonSnapshot(window)
        guard let disk = disks[vdi] else { return }
        let copy = ModelDisk(identifier: vdi, sectorCount: sectorCount, ancestors: disk.ancestors)
        copy.blocks = disk.blocks
        copy.recentZeroings = disk.recentZeroings
        let open = mutationsInFlight.filter { table[$0].vdi == vdi }
        for stamp in open { addMaybe(stamp, to: copy) }
        let oldest = open.map { table[$0].submittedAt }.min() ?? Int.max
        let snapshot = ModelSnapshot(
            identifier: identifier, disk: copy, sectorCount: sectorCount,
            prefixes: min(window.covered, sequence)...sequence)
        let end = sectorCount / UInt64(sectorsPerBlock)
        for (block, history) in copy.blocks where block < end {
            admit(history, block, to: snapshot, covered: window.covered, oldest: oldest)
        }
        snapshots[identifier] = snapshot
    }

    private func admit(
        _ history: BlockHistory, _ block: UInt64, to snapshot: ModelSnapshot, covered: Int,
        oldest: Int
    ) {
        var history = history
        // They come to light in no version that was made since.
        history.ghosts = []
        let later = history.versions.map { table[$0.stamp] }.filter { $0.sequence > covered }
        history.fold(
            safeSequence: covered,
            oldestInFlight: min(oldest, later.map(\.submittedAt).min() ?? Int.max), in: table)
        guard history.versions.isEmpty, history.maybes.isEmpty, !history.isUncertain else {
            snapshot.undecided[block] = history
            return
        }
        if history.base != BlockValue(repeating: 0) { snapshot.content[block] = history.base }
    }

    package func removeSnapshot(_ identifier: UInt64) { snapshots[identifier] = nil }

    /// The head begins again as the snapshot is.
    package func rollBack(_ vdi: UInt64, to snapshot: ModelSnapshot) {
        guard let disk = disks[vdi] else { return }
        addDisk(
            ModelDisk(
                identifier: disk.identifier, sectorCount: snapshot.sectorCount, from: snapshot))
    }

    // MARK: Checks

    /// Checks whole sectors that a read of a snapshot returned; nil if they are right.
    package func check(
        _ bytes: UnsafeRawBufferPointer, snapshot: ModelSnapshot, firstSector: UInt64
    ) -> String? {
        let size = UInt64(sectorsPerBlock)
        let end = firstSector + UInt64(bytes.count / sectorBytes)
        var sector = firstSector
        while sector < end {
            let block = sector / size
            let stop = min(end, (block + 1) * size)
            var value = BlockValue(repeating: 0)
            for place in sector..<stop {
                let start = Int(place - firstSector) * sectorBytes
                let part = UnsafeRawBufferPointer(rebasing: bytes[start..<(start + sectorBytes)])
                guard let stamp = decode(part, vdi: snapshot.vdi, sector: place) else {
                    return "sector \(place) of \(name(snapshot)) holds bytes that nobody wrote"
                }
                value[Int(place % size)] = stamp
            }
            let mask = SectorMask(truncatingIfNeeded: (1 << (stop - sector)) - 1) << (sector % size)
            if let fault = judge(value, mask, block, snapshot) { return fault }
            sector = stop
        }
        return nil
    }

    private func judge(
        _ value: BlockValue, _ mask: SectorMask, _ block: UInt64, _ snapshot: ModelSnapshot
    ) -> String? {
        guard let history = snapshot.undecided[block] else {
            let expected = snapshot.content[block] ?? BlockValue(repeating: 0)
            let wrong = expected.difference(from: value) & mask
            guard wrong != 0 else { return nil }
            let place = wrong.trailingZeroBitCount
            return """
                block \(block) of \(name(snapshot)) holds \(describe(value[place])) in sector \
                \(place) of it instead of \(describe(expected[place]))
                """
        }
        return mask == .max ? decide(block, history, is: value, snapshot) : nil
    }

    /// A block of the snapshot was read for the first time.
    private func decide(
        _ block: UInt64, _ history: BlockHistory, is value: BlockValue, _ snapshot: ModelSnapshot
    ) -> String? {
        if history.isUncertain {
            let isForeign = (0..<sectorsPerBlock).contains { place in
                value[place] != 0 && !snapshot.mayHold(writesTo: table[value[place]].vdi)
            }
            if isForeign { return "block \(block) of \(name(snapshot)) holds another VDI's data" }
        } else {
            let left = snapshot.prefixes.filter { prefix in
                let cut = Cut(prefix: prefix, whole: snapshot.whole, isSnapshot: true)
                return explain(value, history, cut) != nil
            }
            guard !left.isEmpty else {
                return """
                    block \(block) of \(name(snapshot)) = \(value) fits none of the cuts after \
                    \(snapshot.prefixes.first ?? 0)...\(snapshot.prefixes.last ?? 0) (answered \
                    after \(snapshot.whole)); at first it was \(history.base), then \
                    \(history.versions.map { describe($0.stamp) }), perhaps \
                    \(history.maybes.map { describe($0.stamp) })
                    """
            }
            snapshot.prefixes = left
        }
        snapshot.undecided[block] = nil
        if value != BlockValue(repeating: 0) { snapshot.content[block] = value }
        // The snapshot is in the log, and so is everything in front of it.
        if snapshot.isDecided, let least = snapshot.prefixes.first { markSafe(through: least) }
        return nil
    }

    private func name(_ snapshot: ModelSnapshot) -> String {
        "snapshot \(hex(snapshot.identifier)) of VDI \(hex(snapshot.vdi))"
    }

    /// The first sector of the range that is known to hold data.
    package func firstData(in sectors: Range<UInt64>, of snapshot: ModelSnapshot) -> UInt64? {
        let size = UInt64(sectorsPerBlock)
        var first: UInt64?
        for (block, value) in snapshot.content {
            for place in 0..<sectorsPerBlock where value[place] != 0 {
                let sector = block * size + UInt64(place)
                if sectors.contains(sector) { first = min(first ?? sector, sector) }
            }
        }
        return first
    }

    // MARK: Groups

    /// The moments between which the cut was made, as far as its content tells: after the
    /// submission of all that is in it, before the answer to something that is not.
    package func moments(of snapshot: ModelSnapshot) -> (after: Int, before: Int) {
        var after = 0
        for value in snapshot.content.values {
            for place in 0..<sectorsPerBlock where value[place] != 0 {
                after = max(after, table[value[place]].submittedAt)
            }
        }
        let last = snapshot.prefixes.last ?? snapshot.whole
        return (after, last < snapshot.whole ? answerTime(of: last + 1) : Int.max)
    }
}
