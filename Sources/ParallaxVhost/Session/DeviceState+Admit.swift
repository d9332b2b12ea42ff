// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// What became of a request that was taken from a queue.
enum Admission: BitwiseCopyable {
    /// The engine has it.
    case submitted
    /// Answered at once; `dataByteCount` bytes were written at the start of the guest's buffer.
    case finished(VirtioBlockStatus, dataByteCount: UInt64)
    /// No room now; it stays in the queue.
    case stalled
}

/// The slot of the queue that takes the request.
struct TaskSlot: BitwiseCopyable {
    var task: UnsafeMutablePointer<RequestTask>
    /// Room for `VhostLimits.inlineDataSegments`.
    var inlineSegments: UnsafeMutablePointer<DataSegment>
    var tag: UInt32
}

extension DeviceState {
    /// Turns the chain that was gathered into requests for the engine, or answers it. Everything
    /// read from guest memory here is read once.
    mutating func admit(
        _ slot: TaskSlot, _ requests: inout RequestQueue
    ) throws(RingFault) -> Admission {
        let status = try chain.takeStatus()
        slot.task.pointee.statusByte = status
        guard !chain.hasUnmapped else { return .finished(.ioError, dataByteCount: 0) }
        guard let words = chain.take16() else { throw .headerTooShort }
        let header = BlockRequestHeader(decoding: words.0, words.1)
        switch header.kind {
        case .read: return admitTransfer(header, isWrite: false, slot, &requests)
        case .write: return admitTransfer(header, isWrite: true, slot, &requests)
        case .flush: return admitFlush(slot, &requests)
        case .getID: return .finished(.ok, dataByteCount: writeSerial())
        case .discard: return admitRanges(isDiscard: true, slot, &requests)
        case .writeZeroes: return admitRanges(isDiscard: false, slot, &requests)
        case nil: return .finished(.unsupported, dataByteCount: 0)
        }
    }

    private mutating func admitTransfer(
        _ header: BlockRequestHeader, isWrite: Bool, _ slot: TaskSlot,
        _ requests: inout RequestQueue
    ) -> Admission {
        let byteCount = isWrite ? chain.readableBytes : chain.writableBytes
        let data = isWrite ? chain.readable : chain.writable
        guard !(isWrite && isReadOnly), isInside(header.firstSector, byteCount),
            data.count <= VhostLimits.dataSegmentsMax
        else { return .finished(.ioError, dataByteCount: 0) }
        guard byteCount > 0 else { return .finished(.ok, dataByteCount: 0) }
        var segments = slot.inlineSegments
        if data.count > VhostLimits.inlineDataSegments {
            guard let list = lists.take() else { return .stalled }
            slot.task.pointee.pooledList = list
            segments = lists[list]
        }
        for index in 0..<data.count { segments[index] = data[index] }
        slot.task.pointee.usedByteCount = isWrite ? 1 : UInt32(byteCount) + 1
        var request = BlockRequest(
            operation: isWrite ? .write : .read, vdi: vdi, session: session, tag: slot.tag,
            firstSector: header.firstSector, sectorCount: byteCount / UInt64(sectorBytes),
            segments: UnsafePointer(segments), segmentCount: UInt32(data.count),
            memoryLoss: memory.loss)
        request.forceUnitAccess = isWrite && writesAreDurable
        return submit(&request, count: 1, slot, &requests)
    }

    private func isInside(_ firstSector: UInt64, _ byteCount: UInt64) -> Bool {
        byteCount % UInt64(sectorBytes) == 0 && byteCount <= VhostLimits.requestBytesMax
            && firstSector <= sectors
            && byteCount / UInt64(sectorBytes) <= sectors - firstSector
    }

    /// A read-only disk has nothing to make durable.
    private mutating func admitFlush(
        _ slot: TaskSlot, _ requests: inout RequestQueue
    ) -> Admission {
        guard !isReadOnly else { return .finished(.ok, dataByteCount: 0) }
        slot.task.pointee.usedByteCount = chain.writableBytes == 0 ? 1 : 0
        var request = BlockRequest(operation: .flush, vdi: vdi, session: session, tag: slot.tag)
        return submit(&request, count: 1, slot, &requests)
    }

    private mutating func submit(
        _ request: inout BlockRequest, count: Int, _ slot: TaskSlot,
        _ requests: inout RequestQueue
    ) -> Admission {
        slot.task.pointee.remaining = UInt16(count)
        slot.task.pointee.status = .ok
        slot.task.pointee.isInFlight = true
        inFlight += 1
        engineRequests += count
        requests.append(request)
        return .submitted
    }
}

extension DeviceState {
    /// Each range becomes one request of the engine; the guest's request ends with the last.
    private mutating func admitRanges(
        isDiscard: Bool, _ slot: TaskSlot, _ requests: inout RequestQueue
    ) -> Admission {
        let rangeBytes = UInt64(BlockRange.byteCount)
        let count = Int(chain.readableBytes / rangeBytes)
        guard !isReadOnly, chain.readableBytes % rangeBytes == 0,
            (1...VhostLimits.rangesMax).contains(count)
        else { return .finished(.ioError, dataByteCount: 0) }
        let (kept, status) = readRanges(count, isDiscard: isDiscard)
        guard status == .ok, kept > 0 else { return .finished(status, dataByteCount: 0) }
        slot.task.pointee.usedByteCount = chain.writableBytes == 0 ? 1 : 0
        var request = BlockRequest(
            operation: isDiscard ? .discard : .writeZeroes, vdi: vdi, session: session,
            tag: slot.tag, forceUnitAccess: writesAreDurable, memoryLoss: memory.loss)
        for index in 1..<kept {
            request.firstSector = ranges[index].firstSector
            request.sectorCount = UInt64(ranges[index].sectorCount)
            leftRanges.append(request)
        }
        request.firstSector = ranges[0].firstSector
        request.sectorCount = UInt64(ranges[0].sectorCount)
        let admission = submit(&request, count: kept, slot, &requests)
        submitLeftRanges(&requests)
        return admission
    }

    /// Copies the ranges out of guest memory, without the empty ones. "Unsupported" wins over
    /// other errors, as an unknown flag concerns the whole request.
    private mutating func readRanges(
        _ count: Int, isDiscard: Bool
    ) -> (kept: Int, status: VirtioBlockStatus) {
        var kept = 0
        var status = VirtioBlockStatus.ok
        for _ in 0..<count {
            guard let words = chain.take16() else { return (0, .ioError) }
            let range = BlockRange(decoding: words.0, words.1)
            let verdict = range.check(isDiscard: isDiscard, capacitySectors: sectors)
            if verdict.rawValue > status.rawValue { status = verdict }
            if range.sectorCount > 0 {
                ranges[kept] = range
                kept += 1
            }
        }
        return (kept, status)
    }

    /// Returns how many bytes were written: at most 20, less where the buffer is shorter.
    private func writeSerial() -> UInt64 {
        var done = 0
        let bytes = serial.bytes
        for piece in chain.writable {
            let count = min(piece.count, DiskSerial.byteCountMax - done)
            for index in 0..<count {
                piece.base.storeBytes(of: bytes[done + index], toByteOffset: index, as: UInt8.self)
            }
            done += count
        }
        return UInt64(done)
    }
}
