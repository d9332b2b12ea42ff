// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// The operations of a scenario.
extension SimulatedHost {
    func begin(_ profile: Profile) throws(SimulationFailure) {
        trace.note(
            .operation, 0, "world: \(profile.character), \(profile.shape), \(profile.faults)")
        do throws(StoreFailure) {
            try store.format(device)
        } catch {
            throw SimulationFailure("the store cannot be formatted: \(error.message)")
        }
        prefersReleased = profile.prefersReleased
        _ = try reopen()
        for _ in 0..<profile.diskCount { createDisk(profile) }
        try drain()
        device.faults = profile.faults
    }

    /// False if the scenario ends here: the device lied, and what is left proves nothing more.
    func perform(
        _ operation: Operation, index: Int, _ profile: Profile
    ) throws(SimulationFailure) -> Bool {
        statistics.operations += 1
        random = SeededRandom(seed: operation.seed)
        device.random = random.fork()
        device.faultRandom = SeededRandom(seed: SeededRandom.mix(operation.seed))
        trace.note(.operation, UInt64(index), "-- \(index): \(operation.kind)")
        if random.oneIn(profile.rotOneIn) { rot() }
        if device.faultRandom.oneIn(profile.spoilOneIn) { spoil() }
        switch operation.kind {
        case .burst: try burst(profile)
        case .run: try runFor(random.integer(in: 1...200))
        case .drain: try drain()
        case .verify: try verify()
        case .scribble:
            for _ in 0..<4 { scribble() }
        case .refused: submitSomethingWrong()
        case .create: createDisk(profile)
        case .resize: resizeDisk()
        case .rename: renameDisk()
        case .delete: try deleteDisk()
        case .checkpoint: for stream in streams { stream.engine?.requestCheckpoint() }
        case .clockJump: now += UInt64(random.integer(in: 1...40)) * 1_000_000_000
        case .crashProcess: return try crashAndReopen(.processLoss)
        case .crashPower: return try crashAndReopen(.powerLoss)
        case .restart: return try restart()
        case .clean: clean()
        case .relapse: return try relapse()
        case .rotLog: return try rotLog()
        case .stall: return try stall()
        case .ration: ration()
        case .scrub: scrub()
        default: try perform(version: operation.kind, profile)
        }
        return try recoverFromFailStop(profile)
    }

    /// An administrator asks for more free space than there may be.
    private func clean() {
        statistics.cleanings += 1
        let goal = freeSlots.count + random.integer(in: 1...8)
        for stream in streams { stream.engine?.requestCleaning(untilFreeSlots: goal) }
    }

    func runFor(_ steps: Int) throws(SimulationFailure) {
        for _ in 0..<steps { try step() }
    }

    private func burst(_ profile: Profile) throws(SimulationFailure) {
        let candidates = sortedDisks.filter {
            !$0.isDeletionPending && !$0.isRollingBack
                && (!$0.mayBeTemplate || random.oneIn(10))
        }
        guard !candidates.isEmpty else { return createDisk(profile) }
        let disk = candidates[random.index(below: candidates.count)]
        let most = profile.writesLittle ? 3 : random.chance(percent: profile.longBursts) ? 64 : 12
        for _ in 0..<random.integer(in: 1...most) {
            try submit(wish(for: disk, profile), to: disk)
            if random.chance(percent: 30) { try runFor(random.integer(in: 1...4)) }
        }
    }

    /// After a failed write or sync the engine stops writing; the administrator restarts it.
    private func recoverFromFailStop(_ profile: Profile) throws(SimulationFailure) -> Bool {
        guard streams.contains(where: { $0.engine?.failureMessage != nil }) else { return true }
        if random.chance(percent: 80) { return true }
        return try crashAndReopen(random.chance(percent: 50) ? .processLoss : .powerLoss)
    }

    private func crashAndReopen(_ mode: CrashMode) throws(SimulationFailure) -> Bool {
        crash(mode)
        let interruptions = random.chance(percent: 30) ? random.integer(in: 1...3) : 0
        guard try reopen(interruptions: interruptions) else { return false }
        if hasLostTrust { return false }
        guard random.chance(percent: 25) else { return true }
        // Recovering twice must find the same as recovering once: nothing was written in between.
        crash(random.chance(percent: 50) ? .powerLoss : .processLoss)
        return try reopen() && !hasLostTrust
    }

    private func restart() throws(SimulationFailure) -> Bool {
        let planned = device.faults
        device.faults = .none
        try settle()
        device.faults = planned
        return try crashAndReopen(.processLoss)
    }

    private func rot() {
        guard let offset = device.rotSomewhere(from: 0) else { return }
        mayBeCorrupt = true
        trace.note(.operation, offset, "rot at \(offset)")
    }

    private func spoil() {
        guard let offset = device.spoilSomewhere() else { return }
        mayBeCorrupt = true
        trace.note(.operation, offset, "unreadable sector at \(offset)")
    }

    // MARK: Wishes

    private func wish(for disk: GuestDisk, _ profile: Profile) -> Wish {
        let kinds: [BlockRequest.Operation] = [
            .read, .write, .flush, .discard, .writeZeroes, .allocation,
        ]
        let isBusy = profile.writesMuch || profile.writesSparsely
        let weights = isBusy ? [12, 75, 5, 1, 1, 1] : [30, 45, 8, 6, 6, 3]
        var wish = Wish(kinds[random.weightedIndex(weights)])
        guard wish.operation != .flush else { return wish }
        let limit = disk.sectorCount
        var length = UInt64(randomLength())
        if profile.writesMuch && random.oneIn(2) { length *= UInt64(random.integer(in: 2...12)) }
        if wish.operation == .discard || wish.operation == .writeZeroes
            || wish.operation == .allocation,
            random.oneIn(8)
        {
            // A whole disk trimmed at once, whatever its size.
            length = UInt64(random.integer(in: 1...Int(limit)))
        }
        length = min(length, limit)
        var first = UInt64(random.integer(in: 0...Int(limit - length)))
        if random.chance(percent: 50) {
            let spot = disk.hotSpot
            first = spot.lowerBound + UInt64(random.index(below: max(spot.count, 1)))
        }
        if random.chance(percent: 60) { first -= first % UInt64(sectorsPerBlock) }
        first = min(first, limit - length)
        if profile.writesLittle && wish.operation != .read {
            wish.operation = .write
            length = UInt64(sectorsPerBlock)
            first = min(first, limit - length) / length * length
        }
        wish.sectors = first..<(first + length)
        if profile.writesSparsely && wish.operation == .write { makeSparse(&wish, limit) }
        wish.forceUnitAccess = wish.operation != .read && random.oneIn(10)
        wish.writesZeros = random.oneIn(12)
        wish.layout = RequestMemory.Layout.allCases[random.weightedIndex([50, 30, 15, 5])]
        return wish
    }

    private func makeSparse(_ wish: inout Wish, _ limit: UInt64) {
        let size = UInt64(sectorsPerBlock)
        let first = UInt64(random.index(below: Int(limit / size))) * size
        wish.sectors = first..<(first + size)
    }

    /// In sectors: mostly small, now and then up to 2 MiB.
    private func randomLength() -> Int {
        switch random.weightedIndex([20, 35, 25, 15, 5]) {
        case 0: random.integer(in: 1...15)
        case 1: sectorsPerBlock
        case 2: sectorsPerBlock * random.integer(in: 1...16)
        case 3: random.integer(in: 1...512)
        default: sectorsPerBlock * random.integer(in: 128...512)
        }
    }

    private func submitSomethingWrong() {
        let stream = streams[random.index(below: streams.count)]
        let mine = sortedDisks.filter {
            $0.stream == stream.index && !$0.isDeletionPending && $0.sizes.count == 1
                && !$0.mayBeTemplate && !$0.isRollingBack
        }
        guard let disk = mine.first, let handle = stream.engine?.handle(of: disk.identifier) else {
            return
        }
        let operations: [BlockRequest.Operation] = [.read, .write, .discard, .writeZeroes]
        let operation = operations[random.index(below: operations.count)]
        var request = BlockRequest(operation: operation, vdi: handle, session: 0, tag: 0)
        request.segmentCount = 1
        request.sectorCount = UInt64(sectorsPerBlock)
        var expected = BlockStatus.outOfRange
        switch random.index(below: 5) {
        case 0: request.firstSector = disk.sectorCount - UInt64(random.index(below: 8))
        case 1: request.firstSector = .max - UInt64(random.index(below: 16))
        case 2:
            request.firstSector = 1
            request.sectorCount = .max - UInt64(random.index(below: 16))
        case 3:
            guard operation == .read || operation == .write else { return }
            request.sectorCount = UInt64(random.integer(in: 0...7))
            expected = .invalid
        default:
            request.vdi = UInt32(random.integer(in: 1_000_000...Int(UInt32.max)))
            expected = .shuttingDown
        }
        submitRefused(request, to: stream, expecting: expected)
    }

    // MARK: Catalog

    private func createDisk(_ profile: Profile) {
        let stream = streams[random.index(below: streams.count)]
        nextName += 1
        var name = "disk-\(nextName)"
        var size = profile.diskBytes[random.index(below: profile.diskBytes.count)]
        if random.chance(percent: 5) {
            name = ["", "a@b", "a/b", "new\nline"][random.index(below: 4)]
        }
        if random.chance(percent: 5) {
            size = [0, 4096, (1 << 20) + 512, (64 << 40) + 4096][random.index(below: 4)]
        }
        if random.chance(percent: 5),
            let other = sortedDisks.first(where: { $0.stream == stream.index })
        {
            name = other.names.sorted()[0]
        }
        guard stream.changes.count < 8, disks.count < profile.maxDisks else { return }
        change(.create(name: name, sizeBytes: size, createdAtNanoseconds: now), on: stream)
    }

    func randomDisk() -> GuestDisk? {
        let all = sortedDisks.filter {
            !$0.isDeletionPending && $0.changesInFlight == 0 && !isInGroup($0)
        }
        return all.isEmpty ? nil : all[random.index(below: all.count)]
    }

    private func resizeDisk() {
        guard let disk = randomDisk(), let size = disk.sizes.first else { return }
        var newSize = size + UInt64(random.integer(in: 0...1024)) * UInt64(blockBytes)
        if random.chance(percent: 40) {
            let blocks = Int(size / UInt64(blockBytes))
            newSize = UInt64(random.integer(in: min(256, blocks)...blocks)) * UInt64(blockBytes)
        }
        change(
            .resize(VDIIdentifier(disk.identifier), sizeBytes: newSize), on: streams[disk.stream])
    }

    private func renameDisk() {
        guard let disk = randomDisk() else { return }
        nextName += 1
        change(
            .rename(VDIIdentifier(disk.identifier), name: "renamed-\(nextName)"),
            on: streams[disk.stream])
    }

    /// Mostly the guest is detached first; sometimes it is not.
    private func deleteDisk() throws(SimulationFailure) {
        guard let disk = randomDisk() else { return }
        if random.chance(percent: 70) { try drain() }
        guard disks[disk.identifier] != nil, !isInGroup(disk), disk.changesInFlight == 0 else {
            return
        }
        change(.delete(VDIIdentifier(disk.identifier)), on: streams[disk.stream])
    }
}
