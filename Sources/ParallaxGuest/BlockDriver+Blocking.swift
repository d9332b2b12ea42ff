// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

// One request at a time, for tests and set-up; queue 0 unless told. Nothing else may be in flight
// in that queue.
extension BlockDriver {
    package mutating func readBlocking(
        sector: UInt64, byteCount: Int, queue: Int = 0
    ) throws(GuestError) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(byteCount)
        while bytes.count < byteCount {
            let piece = min(options.bufferBytes, byteCount - bytes.count)
            let first = sector + UInt64(bytes.count / 512)
            let slot = try perform(.read, firstSector: first, byteCount: piece, queue: queue)
            bytes.append(contentsOf: buffer(queue: queue, slot: slot).prefix(piece))
        }
        return bytes
    }

    package mutating func writeBlocking(
        sector: UInt64, _ bytes: [UInt8], queue: Int = 0
    ) throws(GuestError) {
        var offset = 0
        while offset < bytes.count {
            let piece = bytes[offset..<min(bytes.count, offset + options.bufferBytes)]
            try perform(
                .write, firstSector: sector + UInt64(offset / 512), byteCount: piece.count,
                queue: queue
            ) { $0.copyBytes(from: piece) }
            offset += piece.count
        }
    }

    package mutating func flush(queue: Int = 0) throws(GuestError) {
        try perform(.flush, firstSector: 0, byteCount: 0, queue: queue)
    }

    package mutating func discard(
        sector: UInt64, sectorCount: UInt32, queue: Int = 0
    ) throws(GuestError) {
        try performOnRange(
            .discard, BlockRange(firstSector: sector, sectorCount: sectorCount), queue: queue)
    }

    package mutating func writeZeroes(
        sector: UInt64, sectorCount: UInt32, mayUnmap: Bool = false, queue: Int = 0
    ) throws(GuestError) {
        let flags = mayUnmap ? BlockRange.mayUnmapFlag : 0
        try performOnRange(
            .writeZeroes,
            BlockRange(firstSector: sector, sectorCount: sectorCount, flags: flags), queue: queue)
    }

    /// The device's serial: up to 20 bytes, cut at the first zero.
    package mutating func identifier(queue: Int = 0) throws(GuestError) -> String {
        let slot = try perform(.identify, firstSector: 0, byteCount: 20, queue: queue) {
            $0.initializeMemory(as: UInt8.self, repeating: 0)
        }
        let bytes = buffer(queue: queue, slot: slot).prefix(20).prefix { $0 != 0 }
        return String(decoding: bytes, as: UTF8.self)
    }

    package mutating func performOnRange(
        _ operation: BlockOperation, _ range: BlockRange, queue: Int = 0
    ) throws(GuestError) {
        let byteCount = MemoryLayout<BlockRange>.size
        try perform(operation, firstSector: 0, byteCount: byteCount, queue: queue) {
            $0.storeBytes(of: range, as: BlockRange.self)
        }
    }

    /// Submits any request and waits for it; throws unless its status is `ok`. Returns the slot,
    /// whose buffer keeps the data until the next request.
    @discardableResult
    package mutating func perform(
        _ operation: BlockOperation, firstSector: UInt64, byteCount: Int, queue: Int = 0,
        fill: (UnsafeMutableRawBufferPointer) -> Void = { _ in }
    ) throws(GuestError) -> Int {
        let status = try performForStatus(
            operation, firstSector: firstSector, byteCount: byteCount, queue: queue, fill: fill)
        guard status.status == BlockStatusByte.ok else {
            throw GuestError(
                .requestFailed(status.status),
                "request type \(operation.rawValue) at sector \(firstSector), \(byteCount) bytes, "
                    + "ended with \(BlockStatusByte.name(status.status))")
        }
        return status.slot
    }

    /// The same, but any status is an answer.
    package mutating func performForStatus(
        _ operation: BlockOperation, firstSector: UInt64, byteCount: Int, queue: Int = 0,
        fill: (UnsafeMutableRawBufferPointer) -> Void = { _ in }
    ) throws(GuestError) -> DriverQueue.Completion {
        guard queues.pointer(queue).pointee.inFlightCount == 0 else {
            throw GuestError(.usage, "a blocking request while others are in flight")
        }
        guard let slot = reserve(queue: queue) else {
            throw GuestError(.usage, "queue \(queue) has no free slot")
        }
        guard byteCount <= layout.bufferBytes else {
            cancel(queue: queue, slot: slot)
            throw GuestError(
                .usage, "\(byteCount) bytes do not fit a buffer of \(layout.bufferBytes)")
        }
        fill(buffer(queue: queue, slot: slot))
        submit(
            queue: queue, slot: slot, operation, firstSector: firstSector, byteCount: byteCount,
            tag: 0)
        publish(queue: queue)
        return try awaitCompletion(queue: queue)
    }

    /// The next completion of the queue, however long it takes up to the time limit.
    package mutating func awaitCompletion(
        queue: Int = 0
    ) throws(GuestError) -> DriverQueue.Completion {
        let limit = UInt64(options.timeoutMilliseconds) * 1_000_000
        let start = parallax_monotonic_nanoseconds()
        while true {
            if let completion = try reap(queue: queue) { return completion }
            guard parallax_monotonic_nanoseconds() - start < limit else {
                throw GuestError(
                    .timeout,
                    "the device at \(connection.path) did not finish a request within "
                        + "\(options.timeoutMilliseconds) ms")
            }
            _ = try wait(timeoutMilliseconds: 100)
        }
    }

    /// Stops all rings in order (GET_VRING_BASE); the driver is of no use afterwards.
    package mutating func stop() throws(GuestError) {
        for index in 0..<queueCount {
            if features.contains(.protocolFeatures) {
                try connection.setVring(.setVringEnable, queue: index, value: 0)
            }
            _ = try connection.stopVring(queue: index)
        }
    }
}
