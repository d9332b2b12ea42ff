// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Judging what the engines answer.
extension SimulatedHost {
    func drainReplies(_ stream: SimulatedStream) throws(SimulationFailure) {
        while let reply = stream.engine?.nextReply() {
            trace.note(
                .reply, UInt64(stream.index), UInt64(reply.tag), UInt64(reply.status.rawValue),
                "reply \(reply.tag): \(reply.status)")
            guard let request = stream.requests.removeValue(forKey: reply.tag),
                reply.session == UInt32(stream.index)
            else {
                throw SimulationFailure("reply to request \(reply.tag), which was not waiting")
            }
            disks[request.disk]?.requestsInFlight -= 1
            if reply.tag == awaited { lastStatus[reply.tag] = reply.status }
            if let memory = request.memory, !memory.isUnharmed {
                throw SimulationFailure("request \(reply.tag): bytes outside its memory changed")
            }
            try judge(reply, request, stream)
        }
    }

    private func judge(
        _ reply: BlockReply, _ request: RequestInFlight, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        if case .refusal(let expected) = request.expectation {
            statistics.refusals += 1
            guard reply.status == expected else {
                throw SimulationFailure(
                    "wrong request \(reply.tag) was answered \(reply.status), not \(expected)")
            }
            return
        }
        switch request.expectation {
        case .snapshotRead, .snapshotAllocation: return try judgeSnapshot(reply, request, stream)
        case .read, .mutation, .flush, .refusal, .allocation: break
        }
        if request.isVerification {
            if case .read(let submittedAt, _) = request.expectation {
                stream.oracle.endRead(submittedAt: submittedAt)
            }
            return
        }
        try judgeStatus(reply, request, stream)
        switch request.expectation {
        case .read(let submittedAt, let isScribbled):
            defer { stream.oracle.endRead(submittedAt: submittedAt) }
            if reply.status == .ok, !isScribbled {
                try check(request, stream, submittedAt: submittedAt, tag: reply.tag)
            }
            if reply.status == .corrupt { statistics.corruptReads += 1 }
        case .mutation(let stamp, let covered):
            if reply.status == .ok, let disk = disks[request.disk], disk.mustBeTemplate,
                request.wasTemplate
            {
                throw SimulationFailure("write \(reply.tag) to a template was carried out")
            }
            let outcome: StreamOracle.Outcome =
                switch reply.status {
                case .ok: .done
                case .outOfRange, .invalid, .readOnly: .refused
                case .ioError, .corrupt, .noSpace, .shuttingDown: .failed
                }
            stream.oracle.endMutation(stamp, outcome: outcome, covered: covered)
        case .flush(let covered):
            if reply.status == .ok { stream.oracle.markSafe(through: covered) }
        case .allocation(let submittedAt):
            defer { stream.oracle.endRead(submittedAt: submittedAt) }
            if reply.status == .ok {
                try checkAllocation(request, tag: reply.tag) { sectors in
                    stream.oracle.firstData(
                        in: sectors, vdi: request.disk, submittedAt: submittedAt)
                }
            }
        case .refusal, .snapshotRead, .snapshotAllocation: break
        }
    }

    /// The list must begin at the request's first sector, stay inside it, and call no sector a
    /// hole that holds data.
    func checkAllocation(
        _ request: RequestInFlight, tag: UInt32, firstData: (Range<UInt64>) -> UInt64?
    ) throws(SimulationFailure) {
        guard let memory = request.memory, memory.segmentCount == 1 else { return }
        var sector = request.sectors.lowerBound
        let stride = MemoryLayout<AllocationExtent>.stride
        for index in 0..<(memory.byteCount / stride) {
            guard sector < request.sectors.upperBound else { return }
            let extent = memory.segments[0].base.loadUnaligned(
                fromByteOffset: index * stride, as: AllocationExtent.self)
            if extent.sectorCount == 0 && index > 0 { return }
            guard extent.sectorCount > 0,
                extent.sectorCount <= request.sectors.upperBound - sector
            else {
                throw SimulationFailure(
                    "allocation \(tag): an extent of \(extent.sectorCount) sectors at \(sector)")
            }
            let end = sector + extent.sectorCount
            if extent.isHole, let data = firstData(sector..<end) {
                throw SimulationFailure("allocation \(tag): sector \(data) is called a hole")
            }
            sector = end
        }
    }

    private func check(
        _ request: RequestInFlight, _ stream: SimulatedStream, submittedAt: Int, tag: UInt32
    ) throws(SimulationFailure) {
        guard let memory = request.memory, memory.byteCount > 0 else { return }
        let fault = memory.withBytes { bytes in
            stream.oracle.check(
                bytes, vdi: request.disk, firstSector: request.sectors.lowerBound,
                submittedAt: submittedAt)
        }
        if let fault { throw SimulationFailure("read \(tag): \(fault)") }
    }

    /// Whether this status is one that the engine had a reason for.
    private func judgeStatus(
        _ reply: BlockReply, _ request: RequestInFlight, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        let isLegal: Bool
        let disk = disks[request.disk]
        switch reply.status {
        case .ok: isLegal = true
        case .ioError:
            statistics.ioErrors += 1
            isLegal =
                device.statistics.troubles > request.errorsBefore
                || stream.engine?.failureMessage != nil || mayBeDamaged
        case .corrupt:
            isLegal =
                mayBeDamaged
                || device.statistics.flips > 0
                    && device.statistics.troubles > request.errorsBefore
        case .noSpace:
            statistics.noSpace += 1
            if case .mutation = request.expectation {
                isLegal =
                    rationed.contains(request.disk) || stream.lastSupplyWasNil
                    || request.wasFullBefore
                    || stream.nilSupplies > request.nilSuppliesBefore
            } else {
                isLegal = false
            }
        case .shuttingDown: isLegal = disk == nil || disk?.isDeletionPending == true
        case .outOfRange: isLegal = (disk?.sizes.count ?? 2) > 1
        case .readOnly:
            if case .mutation = request.expectation {
                isLegal = disk?.mayBeTemplate ?? false
            } else {
                isLegal = false
            }
        case .invalid:
            if case .allocation = request.expectation { isLegal = true } else { isLegal = false }
        }
        guard isLegal else {
            throw SimulationFailure(
                "request \(reply.tag) was answered \(reply.status) without a reason")
        }
    }
}
