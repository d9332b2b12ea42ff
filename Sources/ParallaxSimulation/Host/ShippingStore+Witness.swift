// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// A second reader of chunk headers, written after docs/format.md and not after the engine.
extension ShippingStore {
    /// Where a chunk says that more than `lsn` was durable. One that a device has put into a wrong place is
    /// asked only where the log has gone on: nobody looks for the log anywhere else.
    package func witness(
        against lsn: UInt64, stream: Int, slots: [UInt32], device: SimulatedDevice
    ) -> UInt64? {
        let owned = Set(slots)
        var displaced: [(slot: UInt32, offset: UInt64)] = []
        var slotsOfLog: Set<UInt32> = []
        for page in device.touchedPages.sorted() {
            let offset = page * UInt64(blockBytes)
            guard case .slot(let slot) = place(of: offset), owned.contains(slot),
                let chunk = ChunkClaim(device.peek(at: offset, count: blockBytes)),
                chunk.stream == UInt32(stream)
            else { continue }
            let block = (offset - Superblock.firstExtentOffset) % shape.extentBytes
            let isInPlace = UInt64(chunk.block) * UInt64(blockBytes) == block
            if isInPlace, chunk.lsn > lsn { slotsOfLog.insert(slot) }
            guard chunk.durable > lsn else { continue }
            if isInPlace { return offset }
            displaced.append((slot, offset))
        }
        return displaced.first { slotsOfLog.contains($0.slot) }?.offset
    }
}

/// What the header of a chunk says.
private struct ChunkClaim {
    let stream: UInt32
    let lsn: UInt64
    let block: UInt32
    /// What had been durable when it was written.
    let durable: UInt64

    /// Nil: this is no header.
    init?(_ block: [UInt8]) {
        guard block.starts(with: Array("PLXCHUNK".utf8)) else { return nil }
        func number<Number: FixedWidthInteger>(at offset: Int) -> Number {
            block.withUnsafeBytes {
                Number(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Number.self))
            }
        }
        var content = block
        content.replaceSubrange(92..<96, with: [0, 0, 0, 0])
        guard content.withUnsafeBytes({ Checksum.crc32c($0) }) == number(at: 92) else { return nil }
        stream = number(at: 24)
        lsn = number(at: 32)
        self.block = number(at: 56)
        durable = number(at: 64)
    }
}
