// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// A second reader of chunk headers, written after docs/format.md and not after the engine.
extension ShippingStore {
    package func witness(
        against lsn: UInt64, stream: Int, slots: [UInt32], device: SimulatedDevice
    ) -> UInt64? {
        let owned = Set(slots)
        for page in device.touchedPages.sorted() {
            let offset = page * UInt64(blockBytes)
            guard case .slot(let slot) = place(of: offset), owned.contains(slot) else { continue }
            let header = device.peek(at: offset, count: blockBytes)
            if let durable = Self.durableLSN(of: header, stream: stream), durable > lsn {
                return offset
            }
        }
        return nil
    }

    /// What a chunk header of the stream says had been durable; nil if it is none.
    private static func durableLSN(of header: [UInt8], stream: Int) -> UInt64? {
        guard header.starts(with: Array("PLXCHUNK".utf8)) else { return nil }
        var header = header
        let (durable, owner, stored) = header.withUnsafeBytes { bytes in
            (
                UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 64, as: UInt64.self)),
                UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self)),
                UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 92, as: UInt32.self))
            )
        }
        guard owner == UInt32(stream) else { return nil }
        header.replaceSubrange(92..<96, with: [0, 0, 0, 0])
        let isWhole = header.withUnsafeBytes { Checksum.crc32c($0) == stored }
        return isWhole ? durable : nil
    }
}
