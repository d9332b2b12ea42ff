// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
package import ParallaxCore

/// The memory of one request as a guest may lay it out: pieces of odd lengths at odd addresses,
/// with guard bytes around each that nobody may touch.
///
///     | guard | piece 0 | guard | piece 1 | guard | ...
///
/// SAFETY: owns its storage; must outlive the request.
package final class RequestMemory {
    package enum Layout: CaseIterable {
        /// One piece, aligned to a block.
        case whole
        /// Several pieces of whole sectors, aligned to sectors: fit for direct transfer.
        case sectors
        /// Anything goes.
        case odd
        /// More pieces than a device takes in one command.
        case many
    }

    package let byteCount: Int
    package let segments: UnsafeMutablePointer<DataSegment>
    package let segmentCount: Int
    private let storage: UnsafeMutableRawPointer
    private let storageCount: Int

    private static let guardBytes = 64
    private static let guardValue: UInt8 = 0xC7

    package init(byteCount: Int, layout: Layout, random: inout SeededRandom) {
        self.byteCount = byteCount
        let pieces = Self.pieces(byteCount, layout, &random)
        segmentCount = pieces.count
        segments = .allocate(capacity: max(pieces.count, 1))
        let slack = layout == .whole ? 2 * blockBytes : 2 * sectorBytes
        storageCount = pieces.reduce(2 * blockBytes) { $0 + $1 + slack }
        storage = .allocate(byteCount: storageCount, alignment: blockBytes)
        memset(storage, Int32(Self.guardValue), storageCount)
        var position = Self.guardBytes
        for (index, length) in pieces.enumerated() {
            position = Self.place(position, layout, &random)
            (segments + index).initialize(to: DataSegment(base: storage + position, count: length))
            position += length + Self.guardBytes
        }
    }

    deinit {
        storage.deallocate()
        segments.deallocate()
    }

    private static func pieces(
        _ byteCount: Int, _ layout: Layout, _ random: inout SeededRandom
    ) -> [Int] {
        var pieces: [Int] = []
        var left = byteCount
        while left > 0 {
            let length: Int
            switch layout {
            case .whole: length = left
            case .sectors:
                length = random.integer(in: 1...max(1, left / sectorBytes / 2)) * sectorBytes
            case .odd: length = random.integer(in: 0...max(1, left * 2 / 3))
            case .many: length = max(1, byteCount / random.integer(in: 257...400))
            }
            pieces.append(min(length, left))
            left -= min(length, left)
        }
        return pieces
    }

    private static func place(
        _ position: Int, _ layout: Layout, _ random: inout SeededRandom
    ) -> Int {
        let unit: Int
        switch layout {
        case .whole: unit = blockBytes
        case .sectors: unit = sectorBytes
        case .odd, .many: return position + random.integer(in: 0...63)
        }
        return (position + unit - 1) / unit * unit
    }

    /// Calls `body` with each piece and its offset in the request.
    private func forEachPiece(_ body: (Int, UnsafeMutableRawBufferPointer) -> Void) {
        var done = 0
        for index in 0..<segmentCount {
            let piece = segments[index]
            body(done, UnsafeMutableRawBufferPointer(start: piece.base, count: piece.count))
            done += piece.count
        }
    }

    package func fill(from bytes: UnsafeRawBufferPointer) {
        forEachPiece { offset, piece in
            piece.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + piece.count)]))
        }
    }

    package func copy(to bytes: UnsafeMutableRawBufferPointer) {
        forEachPiece { offset, piece in
            UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<(offset + piece.count)])
                .copyMemory(from: UnsafeRawBufferPointer(piece))
        }
    }

    /// Calls `body` with all the bytes, in one piece.
    package func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        if segmentCount == 1 {
            return body(UnsafeRawBufferPointer(start: segments[0].base, count: byteCount))
        }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        defer { bytes.deallocate() }
        copy(to: bytes)
        return body(UnsafeRawBufferPointer(bytes))
    }

    /// Replaces some of the bytes by those of `bytes` at the same place.
    package func scribble(from bytes: UnsafeRawBufferPointer, random: inout SeededRandom) {
        for _ in 0..<random.integer(in: 1...8) {
            let start = random.index(below: byteCount)
            let end = min(byteCount, start + random.integer(in: 1...1500))
            forEachPiece { offset, piece in
                let low = max(start, offset)
                let high = min(end, offset + piece.count)
                guard low < high else { return }
                UnsafeMutableRawBufferPointer(rebasing: piece[(low - offset)..<(high - offset)])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[low..<high]))
            }
        }
    }

    /// Whether nobody has written outside the pieces.
    package var isUnharmed: Bool {
        var position = 0
        var intact = true
        forEachPiece { _, piece in
            guard let base = piece.baseAddress else { return }
            let start = UnsafeRawPointer(base) - UnsafeRawPointer(storage)
            intact = intact && isGuard(max(position, start - Self.guardBytes)..<start)
            position = start + piece.count
        }
        return intact && isGuard(position..<(position + Self.guardBytes))
    }

    private func isGuard(_ range: Range<Int>) -> Bool {
        // All bytes are alike if each is like the one before it.
        guard let first = range.first else { return true }
        let start = storage + first
        return start.load(as: UInt8.self) == Self.guardValue
            && memcmp(start, start + 1, range.count - 1) == 0
    }
}
