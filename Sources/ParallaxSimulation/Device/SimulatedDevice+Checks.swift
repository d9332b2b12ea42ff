// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// What a real device would refuse, and what no careful engine does.
extension SimulatedDevice {
    func check(_ command: StoreCommand) {
        guard command.operation != .sync else { return }
        var sum = 0
        for index in 0..<Int(command.bufferCount) {
            guard let buffers = command.buffers else { break }
            let buffer = buffers[index]
            sum += buffer.count
            if buffer.count <= 0 || buffer.count % sectorBytes != 0 {
                violations.append("a buffer of \(buffer.count) bytes is not whole sectors")
            }
            if UInt(bitPattern: buffer.base) % UInt(sectorBytes) != 0 {
                violations.append("a buffer is not aligned to \(sectorBytes) bytes")
            }
        }
        if sum != command.byteCount || sum == 0 {
            violations.append("buffers of \(sum) bytes for a command of \(command.byteCount)")
        }
        if command.offset % UInt64(sectorBytes) != 0 {
            violations.append("offset \(command.offset) is not a whole sector")
        }
        let (end, overflow) = command.offset.addingReportingOverflow(UInt64(command.byteCount))
        if overflow || end > byteCount {
            violations.append("a command ends at \(end), past the device's \(byteCount) bytes")
        }
        if command.operation == .write { checkOverlap(command) }
    }

    /// Two writes in flight to one place: nobody can say which one wins.
    private func checkOverlap(_ command: StoreCommand) {
        let range = command.offset..<(command.offset + UInt64(command.byteCount))
        for entry in inFlight where entry.command.operation == .write {
            let start = entry.command.offset
            if range.overlaps(start..<(start + UInt64(entry.command.byteCount))) {
                let place = max(start, range.lowerBound)
                violations.append("two writes in flight overlap at offset \(place)")
            }
        }
    }

    func forEachBuffer(
        _ command: StoreCommand, _ body: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        guard let buffers = command.buffers else { return }
        for index in 0..<Int(command.bufferCount) {
            let buffer = buffers[index]
            body(UnsafeMutableRawBufferPointer(start: buffer.base, count: buffer.count))
        }
    }

    /// Whether a write's buffers still hold what they held when it was submitted.
    func isUnchanged(_ entry: CommandInFlight) -> Bool {
        var position = 0
        var isEqual = true
        entry.content.withUnsafeBytes { content in
            forEachBuffer(entry.command) { buffer in
                guard let before = content.baseAddress, let now = buffer.baseAddress,
                    position + buffer.count <= content.count
                else {
                    isEqual = isEqual && buffer.isEmpty
                    return
                }
                isEqual = isEqual && memcmp(now, before + position, buffer.count) == 0
                position += buffer.count
            }
        }
        return isEqual && position == entry.content.count
    }

    func gather(_ command: StoreCommand) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: command.byteCount) { target, count in
            forEachBuffer(command) { buffer in
                guard count + buffer.count <= command.byteCount else { return }
                let piece = UnsafeMutableRawBufferPointer(
                    rebasing: UnsafeMutableRawBufferPointer(target)[count..<(count + buffer.count)])
                piece.copyMemory(from: UnsafeRawBufferPointer(buffer))
                count += buffer.count
            }
        }
    }
}

extension SimulatedDevice {
    /// Where the reads and writes in flight of one owner begin.
    package func inFlightOffsets(owner: Int) -> [UInt64] {
        inFlight.filter { $0.owner == owner && $0.command.operation != .sync }
            .map(\.command.offset)
    }
}
