// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Crashes, and what is found afterwards.
extension SimulatedHost {
    /// Stops everything at once. `reopen` must follow.
    package func crash(_ mode: CrashMode, survival: Survival? = nil) {
        statistics.crashes += 1
        device.random = random.fork()
        trace.note(.crash, mode == .powerLoss ? 1 : 0, "crash: \(mode)")
        device.crash(mode, survival: survival)
        for stream in streams {
            if let end = stream.engine?.logEnd { stream.claimed = end }
            // The device holds no buffer any more, so engine and memory may go.
            stream.engine = nil
            stream.oracle.crash()
            stream.requests = [:]
            for ticket in stream.changes.keys.sorted() {
                guard let entry = stream.changes[ticket], entry.refusal == nil else { continue }
                stream.interrupted.append(entry)
            }
            stream.changes = [:]
            stream.diffs = [:]
            stream.extentsOnTheWay = []
            stream.nilSupplies = 0
            stream.lastSupplyWasNil = false
        }
        for disk in disks.values { disk.requestsInFlight = 0 }
        for snapshot in snapshots.values {
            snapshot.requestsInFlight = 0
            snapshot.openings = 0
            snapshot.handle = nil
        }
        groups = [:]
        pendingMode = pendingMode == .powerLoss ? .powerLoss : mode
    }

    /// From now on, only what was never written is wrong.
    package func loseTrust() {
        for stream in streams { stream.oracle.hasLostTrust = true }
    }

    package var hasLostTrust: Bool { streams.contains { $0.oracle.hasLostTrust } }

    /// Opens the store again; `interruptions` times at most the machine stops during recovery,
    /// and recovery begins anew. Then judges everything that is found. False if the store cannot
    /// be opened, which is right only where the device lied.
    package func reopen(interruptions: Int = 0) throws(SimulationFailure) -> Bool {
        let plannedFaults = device.faults
        defer { device.faults = plannedFaults }
        try checkCrashedStore()
        var left = interruptions
        while true {
            device.faults = left > 0 ? plannedFaults : .none
            // Recovery reads what it does not believe twice, and no more.
            if device.faults.flippedReadOneIn > 0 { device.faults.flippedReadOneIn = 2000 }
            device.commandsUntilStop = left > 0 ? random.integer(in: 0...60) : nil
            device.random = random.fork()
            do throws(StoreFailure) {
                try open()
                break
            } catch {
                try checkDevice()
                guard left > 0 else {
                    if mayBeDamaged {
                        statistics.refusedOpens += 1
                        return false
                    }
                    throw SimulationFailure("the store does not open: \(error.message)")
                }
                crash(random.chance(percent: 50) ? .powerLoss : .processLoss)
            }
            left -= 1
        }
        device.commandsUntilStop = nil
        device.faults = .none
        try checkDevice()
        guard try claimSlots() else { return false }
        try checkLogEnds()
        let cutOff = streams.filter { !$0.interrupted.isEmpty }
        try checkCatalog()
        for stream in streams { try checkSnapshotsFound(stream) }
        try verifySnapshots(budget: 1024)
        let mode = pendingMode ?? .processLoss
        pendingMode = nil
        for stream in streams { try resolve(stream, mode) }
        try finishInterruptedGroups()
        for stream in cutOff { try makeDurable(stream) }
        guard !hasLostTrust else { return true }
        try drain()
        try checkGroups()
        try checkLists()
        try takeCensus()
        return true
    }

    /// What was found without ever having been answered may still be lost with the power, as far
    /// as the log knows; the administrator has seen it, so it must not.
    private func makeDurable(_ stream: SimulatedStream) throws(SimulationFailure) {
        guard let engine = stream.engine, !hasLostTrust else { return }
        let disk = sortedDisks.first { $0.stream == stream.index && !$0.isDeletionPending }
        if let disk {
            while try !submit(Wish(.flush), to: disk) { try step() }
        } else {
            stopScrubs()
            engine.requestCheckpoint()
            try run("the engine to be idle") { engine.isIdle }
        }
    }

    /// Each log must reach at least as far as its engine knew before the crash. Where something was
    /// damaged it may not, for nobody can tell a last chunk that has rotted from one that was torn;
    /// but not when a chunk behind its end says that more had been durable.
    private func checkLogEnds() throws(SimulationFailure) {
        for stream in streams {
            guard let found = stream.engine?.logEnd.applied else { continue }
            let claimed =
                pendingMode == .powerLoss ? stream.claimed.durable : stream.claimed.applied
            guard found < claimed else { continue }
            let place = "the log of stream \(stream.index) ends at \(found)"
            guard mayBeDamaged else {
                throw SimulationFailure("\(place), although \(claimed) was answered")
            }
            statistics.cutLogs += 1
            loseTrust()
            let slots = stream.engine?.ownedSlots() ?? []
            if let witness = store.witness(
                against: found, stream: stream.index, slots: slots, device: device)
            {
                throw SimulationFailure(
                    "\(place), although the chunk at \(witness) says that more was durable")
            }
        }
    }

    /// The device has failed under the engine since that was opened, or a node may be unreadable.
    func mayFail(_ stream: SimulatedStream) -> Bool {
        device.statistics.troubles > stream.errorsAtOpen || mayBeDamaged
    }

    private func open() throws(StoreFailure) {
        statistics.reopens += 1
        let engines = try store.open(device)
        precondition(engines.count == streams.count, "SimulatedHost: an engine for each stream")
        for (stream, engine) in zip(streams, engines) {
            stream.engine = engine
            stream.errorsAtOpen = device.statistics.troubles
        }
    }

    /// False when two streams claim one slot, after which the daemon does not serve the store. That
    /// is right where a stream's newest root got lost.
    private func claimSlots() throws(SimulationFailure) -> Bool {
        slotOwners = Array(repeating: nil, count: store.slotCount)
        for stream in streams {
            for slot in stream.engine?.ownedSlots() ?? [] {
                guard Int(slot) < slotOwners.count else {
                    throw SimulationFailure("stream \(stream.index) claims slot \(slot)")
                }
                if let owner = slotOwners[Int(slot)] {
                    if mayBeDamaged {
                        statistics.refusedOpens += 1
                        return false
                    }
                    throw SimulationFailure(
                        "slot \(slot) is claimed by streams \(owner) and \(stream.index)")
                }
                slotOwners[Int(slot)] = stream.index
            }
        }
        freeSlots = slotOwners.indices.filter { slotOwners[$0] == nil }.map { UInt32($0) }
        giveSpares()
        return true
    }

    // MARK: Catalog

    private func checkCatalog() throws(SimulationFailure) {
        for stream in streams {
            let found = (stream.engine?.disks() ?? []).sorted {
                $0.identifier.rawValue < $1.identifier.rawValue
            }
            for summary in found { try checkFound(summary, stream) }
            let identifiers = Set(found.map(\.identifier.rawValue))
            for disk in sortedDisks
            where disk.stream == stream.index && !identifiers.contains(disk.identifier) {
                guard disk.isDeletionPending || hasLostTrust else {
                    throw SimulationFailure(
                        "VDI \(hex(disk.identifier)) is gone after recovery")
                }
                forget(disk.identifier, stream)
            }
        }
    }

    private func checkFound(
        _ summary: VDISummary, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        let identifier = summary.identifier.rawValue
        if let disk = disks[identifier] {
            if summary.isDeleting {
                guard disk.isDeletionPending || hasLostTrust else {
                    throw SimulationFailure("VDI \(hex(identifier)) is being deleted by nobody")
                }
                return forget(identifier, stream)
            }
            let isRight =
                disk.names.contains(summary.name) && disk.sizes.contains(summary.sizeBytes)
            guard isRight || hasLostTrust else {
                throw SimulationFailure(
                    "VDI \(hex(identifier)) came back as \(summary), not \(disk.names.sorted()) "
                        + "\(disk.sizes.sorted())")
            }
            guard disk.attributes.contains(summary.attributes) || hasLostTrust else {
                throw SimulationFailure("VDI \(hex(identifier)) came back with \(summary)")
            }
            disk.names = [summary.name]
            disk.sizes = [summary.sizeBytes]
            disk.attributes = [summary.attributes]
            disk.snapshotsInFlight = 0
            disk.isDeletionPending = false
            disk.changesInFlight = 0
            return
        }
        if summary.isDeleting || hasLostTrust { return }
        if deleted.contains(identifier) {
            throw SimulationFailure("deleted VDI \(hex(identifier)) is back")
        }
        let match = stream.interrupted.firstIndex {
            switch $0.change {
            case .create(summary.name, summary.sizeBytes, _),
                .clone(_, summary.name, summary.sizeBytes, _):
                true
            default: false
            }
        }
        guard let match else { throw SimulationFailure("unknown VDI after recovery: \(summary)") }
        let entry = stream.interrupted.remove(at: match)
        try addDisk(
            identifier, stream, name: summary.name, sizeBytes: summary.sizeBytes,
            from: entry.source)
    }

    // MARK: Content

    /// Reads every block that was ever written, and asks the oracle.
    private func resolve(
        _ stream: SimulatedStream, _ mode: CrashMode
    ) throws(SimulationFailure) {
        var observations: [Observation] = []
        for disk in sortedDisks where disk.stream == stream.index {
            observations += try observe(disk, stream)
        }
        statistics.verifiedBlocks += observations.count
        if let fault = stream.oracle.resolve(observations, after: mode) {
            throw SimulationFailure("stream \(stream.index): \(fault)")
        }
    }

    private func observe(
        _ disk: GuestDisk, _ stream: SimulatedStream
    ) throws(SimulationFailure) -> [Observation] {
        try observe(stream.oracle.disks[disk.identifier]?.trackedBlocks ?? [], disk, stream)
    }

    func observe(
        _ tracked: [UInt64], _ disk: GuestDisk, _ stream: SimulatedStream
    ) throws(SimulationFailure) -> [Observation] {
        let end = disk.sectorCount / UInt64(sectorsPerBlock)
        // What lies behind the end reads as zeros when the VDI grows again.
        var observations = tracked.filter { $0 >= end }.map {
            Observation(vdi: disk.identifier, block: $0, value: BlockValue(repeating: 0))
        }
        let runs = Self.runs(of: tracked.filter { $0 < end })
        var failed: [Range<UInt64>] = []
        for (run, values) in try observe(runs, disk, stream) {
            if let values { observations += values } else { failed.append(run) }
        }
        let singles = failed.flatMap { run in run.map { $0..<($0 + 1) } }
        for (run, values) in try observe(singles, disk, stream) {
            if let values {
                observations += values
                continue
            }
            guard mayBeDamaged else {
                throw SimulationFailure(
                    "block \(run.lowerBound) of VDI \(hex(disk.identifier)) cannot be read")
            }
            observations.append(
                Observation(vdi: disk.identifier, block: run.lowerBound, value: nil))
        }
        return observations.sorted { $0.block < $1.block }
    }

    /// Nil for a run that was not answered `ok`.
    private func observe(
        _ runs: [Range<UInt64>], _ disk: GuestDisk, _ stream: SimulatedStream
    ) throws(SimulationFailure) -> [(Range<UInt64>, [Observation]?)] {
        var results: [(Range<UInt64>, [Observation]?)] = []
        let size = UInt64(sectorsPerBlock)
        for run in runs {
            var wish = Wish(.read, (run.lowerBound * size)..<(run.upperBound * size))
            wish.layout = .whole
            guard try submit(wish, to: disk, isVerification: true) else {
                throw SimulationFailure("the engine takes no request after recovery")
            }
            let tag = nextTag - 1
            guard let memory = stream.requests[tag]?.memory else { continue }
            let status = try waitForReply(to: tag, on: stream)
            var values: [Observation]?
            if status == .ok { values = try decode(memory, run, disk, stream) }
            trace.note(.observation, run.lowerBound, UInt64(status.rawValue), "observed \(run)")
            results.append((run, values))
        }
        return results
    }

    private func decode(
        _ memory: RequestMemory, _ run: Range<UInt64>, _ disk: GuestDisk,
        _ stream: SimulatedStream
    ) throws(SimulationFailure) -> [Observation] {
        var observations: [Observation] = []
        for (index, block) in run.enumerated() {
            var value = BlockValue(repeating: 0)
            for place in 0..<sectorsPerBlock {
                let sector = block * UInt64(sectorsPerBlock) + UInt64(place)
                let bytes = UnsafeRawBufferPointer(
                    start: memory.segments[0].base + index * blockBytes + place * sectorBytes,
                    count: sectorBytes)
                guard
                    let stamp = stream.oracle.decode(bytes, vdi: disk.identifier, sector: sector)
                else {
                    throw SimulationFailure(
                        "after recovery sector \(sector) of VDI \(hex(disk.identifier)) holds "
                            + "bytes that nobody wrote")
                }
                value[place] = stamp
            }
            observations.append(Observation(vdi: disk.identifier, block: block, value: value))
        }
        return observations
    }
}
