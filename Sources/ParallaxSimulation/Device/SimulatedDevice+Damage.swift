// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What happens to stored data while nobody looks.
extension SimulatedDevice {
    /// Inverts a bit of a sector, in every copy that the device has of it.
    package func rot(at offset: UInt64, bit: Int) {
        visible.flip(bit: bit, at: offset)
        durable.flip(bit: bit, at: offset)
        for index in unsynced.indices {
            let start = unsynced[index].offset
            guard offset >= start, offset - start < UInt64(unsynced[index].content.count) else {
                continue
            }
            unsynced[index].content[Int(offset - start)] ^= UInt8(1 << (bit & 7))
        }
    }

    /// Inverts a bit somewhere in what was ever written at or after `minimum`; returns where.
    package func rotSomewhere(from minimum: UInt64 = 0) -> UInt64? {
        let pages = visible.pageNumbers.filter { $0 * UInt64(blockBytes) >= minimum }
        guard !pages.isEmpty else { return nil }
        let page = pages[random.index(below: pages.count)]
        let offset = page * UInt64(blockBytes) + UInt64(random.index(below: blockBytes))
        rot(at: offset, bit: random.index(below: 8))
        return offset
    }

    /// Inverts a bit in one of the last writes at or after `minimum`; returns where.
    package func rotRecent(from minimum: UInt64) -> UInt64? {
        let writes = recentWrites.filter { $0.lowerBound >= minimum }
        guard !writes.isEmpty else { return nil }
        let write = writes[random.index(below: writes.count)]
        let offset = write.lowerBound + UInt64(random.index(below: write.count))
        rot(at: offset, bit: random.index(below: 8))
        return offset
    }

    /// The sector at this offset cannot be read until it is written again.
    package func spoil(at offset: UInt64) { unreadable.insert(offset / UInt64(sectorBytes)) }

    /// Makes a sector of what was ever written unreadable until it is written again; returns where.
    package func spoilSomewhere() -> UInt64? {
        let pages = visible.pageNumbers
        guard !pages.isEmpty else { return nil }
        let page = pages[faultRandom.index(below: pages.count)]
        let offset =
            page * UInt64(blockBytes)
            + UInt64(faultRandom.index(below: sectorsPerBlock) * sectorBytes)
        spoil(at: offset)
        return offset
    }

    func isUnreadable(at offset: UInt64, count: Int) -> Bool {
        guard !unreadable.isEmpty else { return false }
        return sectors(at: offset, count: count).contains { unreadable.contains($0) }
    }

    /// A sector that is written can be read again.
    func mend(at offset: UInt64, count: Int) {
        guard !unreadable.isEmpty else { return }
        for sector in sectors(at: offset, count: count) { unreadable.remove(sector) }
    }

    private func sectors(at offset: UInt64, count: Int) -> Range<UInt64> {
        let first = offset / UInt64(sectorBytes)
        return first..<(first + UInt64((count + sectorBytes - 1) / sectorBytes))
    }

    /// The byte of a read in which a bit gets lost on its way, if one does.
    func flippedByte(of count: Int) -> Int? {
        guard count > 0, faults.flippedReadOneIn > 0 else { return nil }
        for start in stride(from: 0, to: count, by: Self.flipStride)
        where faultRandom.oneIn(faults.flippedReadOneIn) {
            statistics.flips += 1
            return start + faultRandom.index(below: min(Self.flipStride, count - start))
        }
        return nil
    }

    private static let flipStride = 16 * blockBytes
}
