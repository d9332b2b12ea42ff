// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Says what every read of the VDIs of one stream may return, now and after a crash.
///
/// Owned by one thread. It knows requests and replies only; nothing of chunks, trees or devices.
/// The rules:
/// R1 a read returns, for each sector, a value that was current at some moment between its
///    submission and its reply; of writes acknowledged, the last one acknowledged is current.
/// R2 after the loss of the process, everything acknowledged is there.
/// R3 after power loss there is a prefix of the order of acknowledgements, at least as long as
///    what the last acknowledged flush covers, that explains every block of every VDI.
/// R4 what was not acknowledged is there or not, each block in whole; a request of a single
///    block only if everything acknowledged is.
package final class StreamOracle {
    package private(set) var table = MutationTable()
    package private(set) var disks: [UInt64: ModelDisk] = [:]
    /// The number of mutations acknowledged, and of those that must survive power loss.
    package private(set) var sequence = 0
    package private(set) var safeSequence = 0
    /// `true` once the device may have lied: after the next crash anything once written is right.
    package var hasLostTrust = false
    /// Snapshots by identifier.
    package internal(set) var snapshots: [UInt64: ModelSnapshot] = [:]
    private let time: ModelClock
    private(set) var mutationsInFlight: [Stamp] = []
    private var readsInFlight: [Int] = []
    /// The answer times of the acknowledged mutations, by sequence number.
    private var answerTimes: [Int] = []
    /// What a scribbled sector turned out to hold, by stamp and sector.
    private var scribbles: [UInt64: UInt64] = [:]

    /// Streams that are compared with each other share `time`.
    package init(time: ModelClock = ModelClock()) { self.time = time }

    private var clock: Int {
        get { time.now }
        set { time.now = newValue }
    }

    // MARK: VDIs

    package func addDisk(_ identifier: UInt64, sectorCount: UInt64) {
        addDisk(ModelDisk(identifier: identifier, sectorCount: sectorCount))
    }

    package func addDisk(_ disk: ModelDisk) { disks[disk.identifier] = disk }

    package func removeDisk(_ identifier: UInt64) { disks[identifier] = nil }

    /// Everything acknowledged up to now is safe (a catalog change is durable with its reply).
    package func markSafe(through limit: Int) {
        safeSequence = max(safeSequence, min(limit, sequence))
    }

    // MARK: Requests

    package func beginMutation(
        vdi: UInt64, sectors: Range<UInt64>, isZeroing: Bool, waitsForSync: Bool
    ) -> Stamp {
        clock += 1
        let stamp = table.append { stamp in
            Mutation(
                stamp: stamp, vdi: vdi, sectors: sectors, isZeroing: isZeroing,
                submittedAt: clock, isLoose: false)
        }
        table[stamp].isLoose = waitsForSync || table[stamp].blocks.count > 1
        mutationsInFlight.append(stamp)
        return stamp
    }

    package func noteScribble(_ stamp: Stamp) { table[stamp].isScribbled = true }

    /// `covered`: force unit access was asked for, when that much had been acknowledged.
    package func endMutation(_ stamp: Stamp, outcome: Outcome, covered: Int? = nil) {
        clock += 1
        mutationsInFlight.removeAll { $0 == stamp }
        table[stamp].answeredAt = clock
        switch outcome {
        case .refused: return
        case .failed:
            table[stamp].state = .failed
            addMaybe(stamp)
        case .done:
            sequence += 1
            answerTimes.append(clock)
            table[stamp].state = .acknowledged
            table[stamp].sequence = sequence
            if let covered {
                table[stamp].isDurable = true
                markSafe(through: covered)
            }
            acknowledge(stamp)
        }
    }

    /// How a mutation ended.
    package enum Outcome {
        case done
        case failed
        /// Not even looked at.
        case refused
    }

    private func acknowledge(_ stamp: Stamp) {
        let mutation = table[stamp]
        guard let disk = disks[mutation.vdi] else { return }
        let oldest = min(oldestInFlight, mutation.submittedAt)
        disk.recentZeroings.removeAll { table[$0].answeredAt < oldest }
        let zeroings = recentZeroings(of: mutation, on: disk)
        disk.forEachBlock(of: mutation) { block, history, mask in
            catchUp(&history, zeroings, block)
            history.acknowledge(stamp, mask: mask, in: table)
            history.fold(safeSequence: safeSequence, oldestInFlight: oldest, in: table)
        }
        if mutation.isZeroing { disk.recentZeroings.append(stamp) }
    }

    private func addMaybe(_ stamp: Stamp) {
        if let disk = disks[table[stamp].vdi] { addMaybe(stamp, to: disk) }
    }

    func addMaybe(_ stamp: Stamp, to disk: ModelDisk) {
        let mutation = table[stamp]
        let zeroings = recentZeroings(of: mutation, on: disk)
        disk.forEachBlock(of: mutation) { block, history, mask in
            catchUp(&history, zeroings, block)
            history.maybes.append(BlockHistory.Version(stamp: stamp, mask: mask))
        }
        if mutation.isZeroing { disk.recentZeroings.append(stamp) }
    }

    /// Not only those that were in flight together with the mutation: what is still in flight may
    /// be older than they, and come to this block later.
    private func recentZeroings(of mutation: Mutation, on disk: ModelDisk) -> [Stamp] {
        disk.recentZeroings.filter { table[$0].blocks.overlaps(mutation.blocks) }
    }

    /// Gives a block that is written for the first time the zeroings that may have come later.
    private func catchUp(_ history: inout BlockHistory, _ zeroings: [Stamp], _ block: UInt64) {
        guard history.isUntouched else { return }
        for zeroing in zeroings {
            let mask = table[zeroing].mask(in: block)
            if mask == 0 { continue }
            if table[zeroing].state == .acknowledged {
                history.acknowledge(zeroing, mask: mask, in: table)
            } else {
                history.maybes.append(BlockHistory.Version(stamp: zeroing, mask: mask))
            }
        }
    }

    /// When the oldest request in flight was submitted.
    private var oldestInFlight: Int {
        let mutations = mutationsInFlight.map { table[$0].submittedAt }
        return min(readsInFlight.min() ?? clock + 1, mutations.min() ?? clock + 1)
    }

    /// Returns what `endFlush` and `endRead` want to know.
    package func beginFlush() -> Int { sequence }

    package func beginRead() -> Int {
        clock += 1
        readsInFlight.append(clock)
        return clock
    }

    package func endRead(submittedAt: Int) {
        if let index = readsInFlight.firstIndex(of: submittedAt) {
            readsInFlight.remove(at: index)
        }
    }

    // MARK: Checks

    /// Checks whole sectors that a read returned; nil if they are right, else what is wrong.
    package func check(
        _ bytes: UnsafeRawBufferPointer, vdi: UInt64, firstSector: UInt64, submittedAt: Int
    ) -> String? {
        guard let disk = disks[vdi] else { return nil }
        for index in 0..<(bytes.count / sectorBytes) {
            let sector = firstSector + UInt64(index)
            let part = UnsafeRawBufferPointer(
                rebasing: bytes[(index * sectorBytes)..<((index + 1) * sectorBytes)])
            guard let observed = decode(part, vdi: vdi, sector: sector) else {
                return "sector \(sector) of VDI \(hex(vdi)) holds bytes that nobody wrote"
            }
            let block = sector / UInt64(sectorsPerBlock)
            let place = Int(sector % UInt64(sectorsPerBlock))
            let history = disk.blocks[block] ?? BlockHistory()
            if history.current[place] == observed { continue }
            if history.allows(observed, sector: place, submittedAt: submittedAt, in: table) {
                continue
            }
            if isInFlight(observed, vdi: vdi, sector: sector) { continue }
            if history.mayBeUnknown(sector: place, submittedAt: submittedAt, in: table),
                wasEverWritten(observed, vdi: vdi, sector: sector)
            {
                continue
            }
            return """
                sector \(sector) of VDI \(hex(vdi)) returned \(describe(observed)) instead of \
                \(describe(history.current[place]))
                """
        }
        return nil
    }

    /// The first sector of the range that cannot read as zeros.
    package func firstData(
        in sectors: Range<UInt64>, vdi: UInt64, submittedAt: Int
    ) -> UInt64? {
        guard let disk = disks[vdi] else { return nil }
        let size = UInt64(sectorsPerBlock)
        let blocks = (sectors.lowerBound / size)..<((sectors.upperBound + size - 1) / size)
        let tracked =
            blocks.count < disk.blocks.count
            ? blocks.filter { disk.blocks[$0] != nil }
            : disk.blocks.keys.filter { blocks.contains($0) }.sorted()
        for block in tracked {
            guard let history = disk.blocks[block] else { continue }
            for place in 0..<sectorsPerBlock {
                let sector = block * size + UInt64(place)
                let isZero =
                    history.mayBeUnknown(sector: place, submittedAt: submittedAt, in: table)
                    || history.allows(0, sector: place, submittedAt: submittedAt, in: table)
                    || isInFlight(0, vdi: vdi, sector: sector)
                if sectors.contains(sector), !isZero { return sector }
            }
        }
        return nil
    }

    /// The stamp in one sector, or nil if it holds something that nobody wrote there, or that
    /// changed since it was last seen.
    package func decode(
        _ bytes: UnsafeRawBufferPointer, vdi: UInt64, sector: UInt64
    ) -> Stamp? {
        guard let base = bytes.baseAddress, bytes.count >= sectorBytes else { return nil }
        // Clones hold what was written to others.
        let stamp = base.loadUnaligned(as: Stamp.self)
        let writer = table.contains(stamp) ? table[stamp].vdi : vdi
        switch SectorPattern.read(base, vdi: writer, sector: sector) {
        case .garbage: return nil
        case .stamp(0): return 0
        case .stamp(let stamp):
            guard table.contains(stamp) else { return nil }
            return table[stamp].isScribbled ? pin(stamp, sector: sector, hash: 0) : stamp
        case .scribbled(let stamp, let hash):
            guard table.contains(stamp), table[stamp].isScribbled else { return nil }
            return pin(stamp, sector: sector, hash: hash)
        }
    }

    private func pin(_ stamp: Stamp, sector: UInt64, hash: UInt64) -> Stamp? {
        let key = UInt64(stamp) << 32 | UInt64(UInt32(truncatingIfNeeded: sector))
        if let known = scribbles[key] { return known == hash ? stamp : nil }
        scribbles[key] = hash
        return stamp
    }

    private func isInFlight(_ observed: Stamp, vdi: UInt64, sector: UInt64) -> Bool {
        mutationsInFlight.contains {
            let mutation = table[$0]
            return mutation.vdi == vdi && mutation.value == observed && mutation.covers(sector)
        }
    }

    package func wasEverWritten(_ observed: Stamp, vdi: UInt64, sector: UInt64) -> Bool {
        guard observed != 0 else { return true }
        return table.contains(observed) && table[observed].covers(sector)
            && disks[vdi]?.mayHold(writesTo: table[observed].vdi) ?? false
    }

    // MARK: Crash

    /// Nothing in flight will be answered any more.
    package func crash() {
        clock += 1
        readsInFlight = []
        for stamp in mutationsInFlight {
            table[stamp].state = .interrupted
            table[stamp].answeredAt = clock
            addMaybe(stamp)
        }
        mutationsInFlight = []
    }

    func answerTime(of sequence: Int) -> Int {
        sequence <= answerTimes.count && sequence > 0 ? answerTimes[sequence - 1] : Int.max
    }

    /// Makes what survived a crash without being acknowledged count as acknowledged now, as one.
    func acknowledgeSurvivors(_ stamps: Set<Stamp>) {
        guard !stamps.isEmpty else { return }
        clock += 1
        sequence += 1
        answerTimes.append(clock)
        for stamp in stamps {
            table[stamp].state = .acknowledged
            table[stamp].sequence = sequence
            table[stamp].answeredAt = clock
            table[stamp].isLoose = true
        }
    }

    func markAllSafe() { safeSequence = sequence }

    package func describe(_ stamp: Stamp) -> String {
        guard stamp != 0 else { return "zeros" }
        guard table.contains(stamp) else { return "unknown write \(stamp)" }
        let mutation = table[stamp]
        let order = mutation.sequence == Int.max ? "-" : "\(mutation.sequence)"
        return """
            write \(stamp) [\(mutation.sectors), \(mutation.state), sequence \(order), \
            submitted \(mutation.submittedAt)]
            """
    }
}

/// Counts submissions and answers, so that any two can be put in order.
package final class ModelClock {
    package var now = 0

    package init() {}
}

/// A VDI identifier as it is shown to people.
package func hex(_ identifier: UInt64) -> String { "0x" + String(identifier, radix: 16) }
