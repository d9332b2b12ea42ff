// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What became of a request that was taken from a ring.
enum BlkifAdmission: BitwiseCopyable {
    /// The engine has it.
    case submitted
    /// Answered at once.
    case finished(BlkifStatus)
    /// No room now; it stays in the ring.
    case stalled
}

/// The queue's slot for the request that is being admitted.
struct BlkifTaskSlot: BitwiseCopyable {
    var task: UnsafeMutablePointer<BlkifTask>
    /// Room for `XenLimits.directSegmentsMax`.
    var inline: SegmentStorage
    var tag: UInt32
}

extension BlkifState {
    /// Turns the request whose ring entry has been copied to `entry` into one of the engine, or
    /// answers it. Whatever is in the guest's memory is read once.
    mutating func admit(
        _ request: BlkifRequest, _ layout: BlkifLayout, _ slot: BlkifTaskSlot,
        _ requests: inout RequestQueue
    ) -> BlkifAdmission {
        switch request.operation {
        case .read: return admitDirect(request, layout, isWrite: false, slot, &requests)
        case .write: return admitDirect(request, layout, isWrite: true, slot, &requests)
        case .writeBarrier:
            count.barriers += 1
            return admitDirect(request, layout, isWrite: true, slot, &requests)
        case .flushDiskCache:
            // A flush that carries data (only old front ends) is a write after a flush. A durable
            // write is more: when it is answered, what was answered before it is durable as well.
            count.flushes += 1
            if request.segmentCount == 0 { return admitFlush(slot, &requests) }
            return admitDirect(request, layout, isWrite: true, slot, &requests)
        case .discard: return admitDiscard(request, slot, &requests)
        case .indirect: return admitIndirect(request, layout, slot, &requests)
        case nil: return .finished(.notSupported)
        }
    }

    private mutating func admitDirect(
        _ request: BlkifRequest, _ layout: BlkifLayout, isWrite: Bool, _ slot: BlkifTaskSlot,
        _ requests: inout RequestQueue
    ) -> BlkifAdmission {
        let isBarrier = request.operation == .writeBarrier
        // An empty barrier is a flush with an order.
        if isBarrier && request.segmentCount == 0 { return admitFlush(slot, &requests) }
        guard (1...XenLimits.directSegmentsMax).contains(request.segmentCount) else {
            return .finished(.error)
        }
        decodeSegments(
            UnsafeRawBufferPointer(start: entry, count: layout.entryBytes),
            at: layout.segmentsOffset, count: request.segmentCount, into: 0)
        return transfer(
            request, isWrite: isWrite, count: request.segmentCount, slot.inline, slot, &requests)
    }

    private func decodeSegments(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, count: Int, into start: Int
    ) {
        for index in 0..<count {
            wanted[start + index] = GrantSegment(
                decoding: bytes.bytes, at: offset + index * GrantSegment.byteCount)
        }
    }

    private mutating func admitIndirect(
        _ request: BlkifRequest, _ layout: BlkifLayout, _ slot: BlkifTaskSlot,
        _ requests: inout RequestQueue
    ) -> BlkifAdmission {
        let operation = BlkifOperation(rawValue: request.indirectOperationNumber)
        guard operation == .read || operation == .write,
            (1...XenLimits.indirectSegmentsMax).contains(request.indirectSegmentCount)
        else { return .finished(.error) }
        guard let list = lists.take() else { return .stalled }
        slot.task.pointee.pooledList = list
        guard readIndirectPages(request, layout) else { return .finished(.error) }
        count.indirectRequests += 1
        return transfer(
            request, isWrite: operation == .write, count: request.indirectSegmentCount,
            lists[list], slot, &requests)
    }

    /// Copies the segments out of the pages that the request names.
    private mutating func readIndirectPages(_ request: BlkifRequest, _ layout: BlkifLayout) -> Bool
    {
        let bytes = UnsafeRawBufferPointer(start: entry, count: layout.entryBytes)
        var done = 0
        var offset = layout.indirectReferencesOffset
        while done < request.indirectSegmentCount {
            let piece = min(
                request.indirectSegmentCount - done, XenLimits.indirectSegmentsPerPage)
            let byteCount = piece * GrantSegment.byteCount
            guard copyIndirectPage(bytes.bytes.load32(at: offset), byteCount) else { return false }
            decodeSegments(
                UnsafeRawBufferPointer(start: page, count: byteCount), at: 0, count: piece,
                into: done)
            done += piece
            offset += 4
        }
        return true
    }

    private mutating func copyIndirectPage(_ reference: UInt32, _ byteCount: Int) -> Bool {
        if isPersistent, let pin = cache.pin(reference, &grants) {
            defer { cache.unpin(pin) }
            guard let source = cache.page(of: pin) else { return false }
            SharedMemory.copyOnce(to: page, from: source, byteCount)
            return true
        }
        guard let source = grants.map(reference, isWritable: false) else { return false }
        SharedMemory.copyOnce(to: page, from: source, byteCount)
        grants.unmap(source, count: 1)
        return true
    }
}

extension BlkifState {
    /// Checks the first `count` of `wanted`, maps them and passes the request on.
    private mutating func transfer(
        _ request: BlkifRequest, isWrite: Bool, count segmentCount: Int, _ storage: SegmentStorage,
        _ slot: BlkifTaskSlot, _ requests: inout RequestQueue
    ) -> BlkifAdmission {
        var sectorCount: UInt64 = 0
        for index in 0..<segmentCount {
            guard let part = wanted[index].sectorCount else { return .finished(.error) }
            sectorCount += UInt64(part)
        }
        guard !(isWrite && isReadOnly), isInside(request.firstSector, sectorCount) else {
            return .finished(.error)
        }
        let pieces = map(segmentCount, isWrite: isWrite, storage, slot.task)
        guard pieces > 0 else {
            count.mapFailures += 1
            return .finished(.error)
        }
        var order = BlockRequest(
            operation: isWrite ? .write : .read, vdi: vdi, session: session, tag: slot.tag,
            firstSector: request.firstSector, sectorCount: sectorCount,
            segments: UnsafePointer(storage.segments), segmentCount: UInt32(pieces))
        order.forceUnitAccess =
            request.operation == .writeBarrier || request.operation == .flushDiskCache
        return submit(order, slot, &requests)
    }

    private func isInside(_ firstSector: UInt64, _ sectorCount: UInt64) -> Bool {
        firstSector <= sectors && sectorCount <= sectors - firstSector
    }

    /// Finds or maps each page; returns the number of data segments, 0 on failure.
    private mutating func map(
        _ segmentCount: Int, isWrite: Bool, _ storage: SegmentStorage,
        _ task: UnsafeMutablePointer<BlkifTask>
    ) -> Int {
        if isPersistent, pinAll(segmentCount, storage, task) {
            return gather(segmentCount, storage, mapped: nil)
        }
        for index in 0..<segmentCount { references[index] = wanted[index].reference }
        // The guest may have granted read access only, if the disk is to be written.
        guard let start = grants.map(references, count: segmentCount, isWritable: !isWrite) else {
            return 0
        }
        task.pointee.mapped = start
        task.pointee.mappedCount = UInt16(segmentCount)
        count.pagesMappedOnce += UInt64(segmentCount)
        return gather(segmentCount, storage, mapped: start)
    }

    private mutating func pinAll(
        _ segmentCount: Int, _ storage: SegmentStorage, _ task: UnsafeMutablePointer<BlkifTask>
    ) -> Bool {
        for index in 0..<segmentCount {
            guard let pin = cache.pin(wanted[index].reference, &grants) else {
                for done in 0..<index { cache.unpin(storage.pins[done]) }
                return false
            }
            storage.pins[index] = pin
        }
        task.pointee.pinCount = UInt16(segmentCount)
        return true
    }

    /// Neighbours in our address space become one data segment. The pages are the pinned ones, or
    /// those that were mapped together.
    private func gather(
        _ segmentCount: Int, _ storage: SegmentStorage, mapped: UnsafeMutableRawPointer?
    ) -> Int {
        var pieces = 0
        for index in 0..<segmentCount {
            let together = mapped.map { $0 + index * XenLimits.pageBytes }
            guard let page = together ?? cache.page(of: storage.pins[index]) else { return 0 }
            let first = Int(wanted[index].firstSector)
            let base = page + first * sectorBytes
            let byteCount = (Int(wanted[index].lastSector) - first + 1) * sectorBytes
            if pieces > 0 {
                let last = storage.segments[pieces - 1]
                if last.base + last.count == base {
                    storage.segments[pieces - 1].count += byteCount
                    continue
                }
            }
            storage.segments[pieces] = DataSegment(base: base, count: byteCount)
            pieces += 1
        }
        return pieces
    }
}

extension BlkifState {
    /// A read-only disk has nothing to make durable.
    private mutating func admitFlush(
        _ slot: BlkifTaskSlot, _ requests: inout RequestQueue
    ) -> BlkifAdmission {
        guard !isReadOnly else { return .finished(.okay) }
        return submit(
            BlockRequest(operation: .flush, vdi: vdi, session: session, tag: slot.tag), slot,
            &requests)
    }

    /// A secure discard promises that nothing can be read back, which a log cannot. Linux ignores
    /// the flag then; to say no is the honest answer, and we offer `discard-secure` 0.
    private mutating func admitDiscard(
        _ request: BlkifRequest, _ slot: BlkifTaskSlot, _ requests: inout RequestQueue
    ) -> BlkifAdmission {
        guard !request.isSecure else { return .finished(.notSupported) }
        guard !isReadOnly, isInside(request.firstSector, request.sectorCount) else {
            return .finished(.error)
        }
        guard request.sectorCount > 0 else { return .finished(.okay) }
        count.discards += 1
        return submit(
            BlockRequest(
                operation: .discard, vdi: vdi, session: session, tag: slot.tag,
                firstSector: request.firstSector, sectorCount: request.sectorCount), slot,
            &requests)
    }

    private mutating func submit(
        _ request: BlockRequest, _ slot: BlkifTaskSlot, _ requests: inout RequestQueue
    ) -> BlkifAdmission {
        slot.task.pointee.isInFlight = true
        inFlight += 1
        requests.append(request)
        return .submitted
    }
}
