// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// Requests of the guests, and the answers to them.
extension SimulatedHost {
    /// What a guest asks for; the memory and its content are made up on the way.
    package struct Wish {
        package var operation: BlockRequest.Operation
        package var sectors: Range<UInt64>
        package var forceUnitAccess = false
        package var layout = RequestMemory.Layout.whole
        /// A write of nothing but zeros.
        package var writesZeros = false

        package init(_ operation: BlockRequest.Operation, _ sectors: Range<UInt64> = 0..<0) {
            self.operation = operation
            self.sectors = sectors
        }
    }

    /// Submits a request. False if the engine takes none at the moment.
    @discardableResult
    package func submit(
        _ wish: Wish, to disk: GuestDisk, isVerification: Bool = false
    ) throws(SimulationFailure) -> Bool {
        let stream = streams[disk.stream]
        guard let engine = stream.engine, engine.freeRequestSlots > 0 else { return false }
        guard let handle = engine.handle(of: disk.identifier) else {
            if disk.isDeletionPending { return false }
            throw SimulationFailure("VDI \(hex(disk.identifier)) has no handle")
        }
        let tag = nextTag
        nextTag += 1
        let memory = makeMemory(wish)
        let expectation = expect(wish, disk, stream, memory)
        stream.requests[tag] = RequestInFlight(
            expectation: expectation, disk: disk.identifier, sectors: wish.sectors, memory: memory,
            nilSuppliesBefore: stream.nilSupplies, wasFullBefore: stream.lastSupplyWasNil,
            errorsBefore: device.statistics.troubles, isVerification: isVerification,
            wasTemplate: disk.mustBeTemplate)
        disk.requestsInFlight += 1
        statistics.requests += 1
        trace.note(
            .submit, disk.identifier, wish.sectors.lowerBound, UInt64(wish.sectors.count),
            """
            submit \(tag): \(wish.operation) \(wish.sectors) of \(hex(disk.identifier))\
            \(wish.forceUnitAccess ? " FUA" : "") \(wish.layout) \(expectation)
            """)
        engine.submit(
            BlockRequest(
                operation: wish.operation, vdi: handle, session: UInt32(disk.stream), tag: tag,
                firstSector: wish.sectors.lowerBound, sectorCount: UInt64(wish.sectors.count),
                forceUnitAccess: wish.forceUnitAccess,
                segments: memory.map { UnsafePointer($0.segments) },
                segmentCount: UInt32(memory?.segmentCount ?? 0)))
        return true
    }

    private func makeMemory(_ wish: Wish) -> RequestMemory? {
        let byteCount: Int
        switch wish.operation {
        case .read, .write: byteCount = wish.sectors.count * sectorBytes
        case .allocation:
            byteCount = random.integer(in: 1...64) * MemoryLayout<AllocationExtent>.stride
        case .flush, .discard, .writeZeroes: return nil
        }
        return RequestMemory(
            byteCount: byteCount, layout: wish.operation == .allocation ? .whole : wish.layout,
            random: &random)
    }

    private func expect(
        _ wish: Wish, _ disk: GuestDisk, _ stream: SimulatedStream, _ memory: RequestMemory?
    ) -> RequestInFlight.Expectation {
        switch wish.operation {
        case .read:
            return .read(submittedAt: stream.oracle.beginRead(), isScribbled: false)
        case .allocation:
            return .allocation(submittedAt: stream.oracle.beginRead())
        case .flush:
            return .flush(covers: stream.oracle.beginFlush())
        case .write, .discard, .writeZeroes:
            let isZeroing = wish.operation != .write || wish.writesZeros
            let stamp = stream.oracle.beginMutation(
                vdi: disk.identifier, sectors: effect(of: wish), isZeroing: isZeroing,
                waitsForSync: wish.forceUnitAccess)
            if let memory {
                withPattern(stamp: isZeroing ? 0 : stamp, wish.sectors, disk.identifier) {
                    memory.fill(from: $0)
                }
            }
            return .mutation(
                stamp, covered: wish.forceUnitAccess ? stream.oracle.beginFlush() : nil)
        }
    }

    /// A discard is a hint: it leaves the edges that are less than a block alone.
    private func effect(of wish: Wish) -> Range<UInt64> {
        guard wish.operation == .discard else { return wish.sectors }
        let size = UInt64(sectorsPerBlock)
        let start = (wish.sectors.lowerBound + size - 1) / size * size
        return start..<max(start, wish.sectors.upperBound / size * size)
    }

    func withPattern(
        stamp: Stamp, _ sectors: Range<UInt64>, _ vdi: UInt64,
        variant: SectorPattern.Variant = .first, _ body: (UnsafeRawBufferPointer) -> Void
    ) {
        let bytes = UnsafeMutableRawBufferPointer.allocate(
            byteCount: sectors.count * sectorBytes, alignment: 64)
        defer { bytes.deallocate() }
        guard let base = bytes.baseAddress else { return }
        for (index, sector) in sectors.enumerated() {
            SectorPattern.fill(
                base + index * sectorBytes, stamp: stamp, vdi: vdi, sector: sector,
                variant: variant)
        }
        body(UnsafeRawBufferPointer(bytes))
    }

    /// A guest changes the buffer of a write, or of a read, that is in flight.
    package func scribble() {
        let candidates = streams.flatMap { stream in
            stream.requests.keys.sorted().map { (stream, $0) }
        }
        guard !candidates.isEmpty else { return }
        let (stream, tag) = candidates[random.index(below: candidates.count)]
        guard var request = stream.requests[tag], let memory = request.memory,
            !request.isVerification, memory.byteCount > 0
        else { return }
        switch request.expectation {
        case .mutation(let stamp, _) where !stream.oracle.table[stamp].isZeroing:
            stream.oracle.noteScribble(stamp)
            withPattern(stamp: stamp, request.sectors, request.disk, variant: .second) {
                memory.scribble(from: $0, random: &random)
            }
        case .read(let submittedAt, _):
            request.expectation = .read(submittedAt: submittedAt, isScribbled: true)
            stream.requests[tag] = request
            withPattern(stamp: 0, request.sectors, request.disk) {
                memory.scribble(from: $0, random: &random)
            }
        default: return
        }
        trace.note(.operation, UInt64(tag), "scribble on \(tag)")
    }

    /// Submits a request that is wrong in itself, and expects it to be refused as such.
    package func submitRefused(
        _ request: BlockRequest, to stream: SimulatedStream, expecting status: BlockStatus
    ) {
        guard let engine = stream.engine, engine.freeRequestSlots > 0 else { return }
        var request = request
        request.tag = nextTag
        nextTag += 1
        request.session = UInt32(stream.index)
        let memory = RequestMemory(byteCount: 4096, layout: .whole, random: &random)
        if request.segmentCount > 0 {
            request.segments = UnsafePointer(memory.segments)
            request.segmentCount = UInt32(memory.segmentCount)
        }
        stream.requests[request.tag] = RequestInFlight(
            expectation: .refusal(status), disk: .max, sectors: 0..<0, memory: memory,
            nilSuppliesBefore: 0, errorsBefore: 0, isVerification: false)
        trace.note(.submit, UInt64(request.tag), "submit \(request.tag): wrong, \(status)")
        engine.submit(request)
    }
}
