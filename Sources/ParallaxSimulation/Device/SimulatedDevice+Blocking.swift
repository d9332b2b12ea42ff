// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
package import ParallaxCore

/// The blocking side, for format, open and recovery. A completed blocking write is as volatile
/// as any other until a sync.
extension SimulatedDevice {
    package func read(
        at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(MediumError) {
        try begin(.read, at: offset, count: buffer.count, oneIn: faults.readErrorOneIn)
        statistics.reads += 1
        visible.read(at: offset, into: buffer)
        if let flipped = flippedByte(of: buffer.count) { buffer[flipped] ^= 1 }
    }

    package func readAll(_ commands: UnsafeBufferPointer<StoreCommand>) throws(MediumError) {
        for command in commands {
            check(command)
            try begin(
                .read, at: command.offset, count: command.byteCount, oneIn: faults.readErrorOneIn)
            statistics.reads += 1
            fill(command)
        }
    }

    package func write(
        at offset: UInt64, from buffer: UnsafeRawBufferPointer
    ) throws(MediumError) {
        try begin(.write, at: offset, count: buffer.count, oneIn: faults.writeErrorOneIn)
        statistics.writes += 1
        applyWrite(at: offset, content: [UInt8](buffer))
    }

    package func sync() throws(MediumError) {
        try begin(.sync, at: 0, count: 0, oneIn: 0)
        guard executeSync() >= 0 else {
            statistics.errors += 1
            throw MediumError(errno: EIO, operation: .sync, offset: 0)
        }
    }

    private func begin(
        _ operation: StoreCommand.Operation, at offset: UInt64, count: Int, oneIn: Int
    ) throws(MediumError) {
        if operation != .sync {
            let (end, overflow) = offset.addingReportingOverflow(UInt64(count))
            if overflow || end > byteCount {
                violations.append("a blocking access ends at \(end), past \(byteCount) bytes")
                throw MediumError(errno: EINVAL, operation: operation, offset: offset)
            }
            if offset % UInt64(sectorBytes) != 0 || count % sectorBytes != 0 {
                violations.append("a blocking access at \(offset) is not whole sectors")
            }
        }
        let isBad = operation == .read && isUnreadable(at: offset, count: count)
        if hasStopped || random.oneIn(oneIn) || isBad {
            statistics.errors += 1
            throw MediumError(errno: EIO, operation: operation, offset: offset)
        }
        countTowardsStop()
    }
}
