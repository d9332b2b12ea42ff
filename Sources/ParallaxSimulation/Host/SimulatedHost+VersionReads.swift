// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Reading snapshots, and judging what they hold.
extension SimulatedHost {
    /// Whether it can be expected to be there until it is closed.
    func isReadable(_ snapshot: GuestSnapshot) -> Bool {
        let disk = disks[snapshot.disk]
        return !snapshot.isDeletionPending && !(disk?.isDeletionPending ?? true)
            && streams[snapshot.stream].engine != nil
    }

    /// Each call is paired with one of `close`. False where the deletion came first.
    func open(_ snapshot: GuestSnapshot) throws(SimulationFailure) -> Bool {
        guard isReadable(snapshot), let engine = streams[snapshot.stream].engine else {
            return false
        }
        guard let handle = engine.openSnapshot(snapshot.identifier) else {
            throw SimulationFailure("snapshot \(hex(snapshot.identifier)) cannot be opened")
        }
        snapshot.handle = handle
        snapshot.openings += 1
        return true
    }

    /// Closes it once; the last time when nothing reads from it any more.
    func close(_ snapshot: GuestSnapshot) throws(SimulationFailure) {
        if snapshot.openings == 1, snapshot.requestsInFlight > 0 {
            try run("the reads of snapshot \(hex(snapshot.identifier))") {
                snapshot.requestsInFlight == 0
            }
        }
        guard snapshot.openings > 0, let handle = snapshot.handle else { return }
        snapshot.openings -= 1
        streams[snapshot.stream].engine?.closeSnapshot(handle)
        if snapshot.openings == 0 { snapshot.handle = nil }
    }

    /// Submits a read of an open snapshot. False if the engine takes none at the moment.
    func submit(
        _ operation: BlockRequest.Operation, _ sectors: Range<UInt64>, of snapshot: GuestSnapshot,
        layout: RequestMemory.Layout = .whole
    ) -> Bool {
        let stream = streams[snapshot.stream]
        guard let engine = stream.engine, engine.freeRequestSlots > 0,
            let handle = snapshot.handle, let model = model(of: snapshot)
        else { return false }
        let tag = nextTag
        nextTag += 1
        let isRead = operation == .read
        let byteCount =
            isRead
            ? sectors.count * sectorBytes
            : random.integer(in: 1...64) * MemoryLayout<AllocationExtent>.stride
        let memory = RequestMemory(byteCount: byteCount, layout: layout, random: &random)
        stream.requests[tag] = RequestInFlight(
            expectation: isRead ? .snapshotRead(model) : .snapshotAllocation(model),
            disk: snapshot.identifier, sectors: sectors, memory: memory,
            nilSuppliesBefore: stream.nilSupplies, errorsBefore: device.statistics.troubles,
            isVerification: false)
        snapshot.requestsInFlight += 1
        statistics.requests += 1
        trace.note(
            .submit, snapshot.identifier, sectors.lowerBound, UInt64(sectors.count),
            "submit \(tag): \(operation) \(sectors) of snapshot \(hex(snapshot.identifier))")
        engine.submit(
            BlockRequest(
                operation: operation, vdi: handle, session: UInt32(snapshot.stream), tag: tag,
                firstSector: sectors.lowerBound, sectorCount: UInt64(sectors.count),
                segments: UnsafePointer(memory.segments),
                segmentCount: UInt32(memory.segmentCount)))
        return true
    }

    func judgeSnapshot(
        _ reply: BlockReply, _ request: RequestInFlight, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        snapshots[request.disk]?.requestsInFlight -= 1
        let isAllocation = if case .snapshotAllocation = request.expectation { true } else { false }
        let isLegal: Bool
        switch reply.status {
        case .ok: isLegal = true
        case .ioError:
            statistics.ioErrors += 1
            isLegal =
                device.statistics.troubles > request.errorsBefore || mayBeDamaged
        case .corrupt:
            isLegal =
                mayBeDamaged
                || device.statistics.flips > 0
                    && device.statistics.troubles > request.errorsBefore
        case .invalid: isLegal = isAllocation
        case .noSpace, .outOfRange, .readOnly, .shuttingDown: isLegal = false
        }
        guard isLegal else {
            throw SimulationFailure(
                "request \(reply.tag) to snapshot \(hex(request.disk)) was answered \(reply.status)"
            )
        }
        guard reply.status == .ok, !hasLostTrust, let memory = request.memory else { return }
        switch request.expectation {
        case .snapshotRead(let model):
            let fault = memory.withBytes { bytes in
                stream.oracle.check(
                    bytes, snapshot: model, firstSector: request.sectors.lowerBound)
            }
            if let fault { throw SimulationFailure("read \(reply.tag): \(fault)") }
        case .snapshotAllocation(let model):
            try checkAllocation(request, tag: reply.tag) { sectors in
                stream.oracle.firstData(in: sectors, of: model)
            }
        default: return
        }
    }

    // MARK: Whole snapshots

    /// Reads what nobody has read of it yet, so that all of it is known.
    func decide(_ snapshot: GuestSnapshot) throws(SimulationFailure) {
        guard let model = model(of: snapshot), !model.isDecided, try open(snapshot) else { return }
        try read(model.undecided.keys.sorted(), of: snapshot)
        try close(snapshot)
    }

    /// Asks for whole blocks, in runs; the answers come later.
    func read(_ blocks: [UInt64], of snapshot: GuestSnapshot) throws(SimulationFailure) {
        let end = snapshot.sectorCount / UInt64(sectorsPerBlock)
        let size = UInt64(sectorsPerBlock)
        for run in Self.runs(of: blocks.filter { $0 < end }) {
            statistics.verifiedBlocks += run.count
            while !submit(
                .read, (run.lowerBound * size)..<(run.upperBound * size), of: snapshot)
            {
                try step()
            }
        }
    }

    /// Neighbouring blocks together, up to 64.
    static func runs(of blocks: [UInt64]) -> [Range<UInt64>] {
        var runs: [Range<UInt64>] = []
        for block in blocks {
            if let last = runs.last, last.upperBound == block, last.count < 64 {
                runs[runs.count - 1] = last.lowerBound..<(block + 1)
            } else {
                runs.append(block..<(block + 1))
            }
        }
        return runs
    }

    /// Reads snapshots: those that nobody has read, and of the others as many blocks as the
    /// budget allows, beginning with one that the seed chooses. nil: all.
    func verifySnapshots(budget: Int?) throws(SimulationFailure) {
        let all = sortedSnapshots.filter { isReadable($0) && !$0.isHidden }
        guard !all.isEmpty, !hasLostTrust else { return }
        let start = random.index(below: all.count)
        var left = budget ?? Int.max
        for index in 0..<all.count {
            let snapshot = all[(start + index) % all.count]
            guard let model = model(of: snapshot), left > 0 || !model.isDecided,
                try open(snapshot)
            else { continue }
            let blocks = left > 0 ? model.trackedBlocks : model.undecided.keys.sorted()
            left -= min(left, blocks.count)
            try read(blocks, of: snapshot)
            try close(snapshot)
        }
    }
}
