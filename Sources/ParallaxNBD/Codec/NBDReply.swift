// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Reply headers of the transmission phase, written to the front of 32 bytes.
///
/// ```
///  simple       0            4        8        16
///               +------------+--------+--------+-----------------------
///               | 0x67446698 | error  | cookie | data (READ only)
///               +------------+--------+--------+-----------------------
///
///  structured   0            4       6      8        16       20
///  chunk        +------------+-------+------+--------+--------+--------
///               | 0x668e33ef | flags | type | cookie | length | payload
///               +------------+-------+------+--------+--------+--------
///    NONE                                                       -
///    OFFSET_DATA                                                offset u64 | data
///    BLOCK_STATUS                                               context u32 | (length u32 | flags u32)...
///    ERROR                                                      error u32 | n u16 | message
/// ```
package struct NBDReplyWriter {
    package static var bytesMax: Int { 32 }
    private static var done: UInt16 { 1 }  // NBD_REPLY_FLAG_DONE

    /// SAFETY: room for `bytesMax` bytes; the output queue owns them.
    private let header: UnsafeMutableRawPointer

    package init(_ header: UnsafeMutableRawPointer) { self.header = header }

    // Each returns the number of bytes written; the caller sends what belongs behind them.

    package func simple(_ error: NBDErrorCode?, cookie: UInt64) -> Int {
        header.storeBigEndian(NBDMagic.simpleReply, at: 0)
        header.storeBigEndian(error?.rawValue ?? 0, at: 4)
        header.storeBigEndian(cookie, at: 8)
        return 16
    }

    package func none(cookie: UInt64) -> Int {
        chunk(.none, isLast: true, cookie: cookie, payloadBytes: 0)
    }

    package func offsetData(
        cookie: UInt64, offset: UInt64, dataBytes: Int, isLast: Bool
    ) -> Int {
        let count = chunk(
            .offsetData, isLast: isLast, cookie: cookie, payloadBytes: 8 + dataBytes)
        header.storeBigEndian(offset, at: count)
        return count + 8
    }

    package func error(_ error: NBDErrorCode, cookie: UInt64) -> Int {
        let messageBytes = error.message.utf8CodeUnitCount
        let count = chunk(.error, isLast: true, cookie: cookie, payloadBytes: 6 + messageBytes)
        header.storeBigEndian(error.rawValue, at: count)
        header.storeBigEndian(UInt16(messageBytes), at: count + 4)
        return count + 6
    }

    /// The header of a list of descriptors.
    package func blockStatus(cookie: UInt64, context: UInt32, descriptorBytes: Int) -> Int {
        let count = chunk(
            .blockStatus, isLast: true, cookie: cookie, payloadBytes: 4 + descriptorBytes)
        header.storeBigEndian(context, at: count)
        return count + 4
    }

    private func chunk(
        _ type: NBDChunk, isLast: Bool, cookie: UInt64, payloadBytes: Int
    ) -> Int {
        header.storeBigEndian(NBDMagic.structuredReply, at: 0)
        header.storeBigEndian(isLast ? Self.done : 0, at: 4)
        header.storeBigEndian(type.rawValue, at: 6)
        header.storeBigEndian(cookie, at: 8)
        header.storeBigEndian(UInt32(payloadBytes), at: 16)
        return 20
    }
}

/// `base:allocation` descriptors: a length and flags, 8 bytes each.
package enum NBDDescriptors {
    package static var byteCount: Int { 8 }

    /// Turns the engine's extents into descriptors in the same memory, and returns their bytes.
    /// Neighbours of the same kind become one. The list covers at most `rangeBytes`, and at least
    /// one descriptor comes out: an engine that said nothing sensible gets one that says data.
    package static func encode(
        _ memory: UnsafeMutableRawBufferPointer, rangeBytes: UInt32, onlyOne: Bool
    ) -> Int {
        guard let base = memory.baseAddress else { return 0 }
        let stride = MemoryLayout<AllocationExtent>.stride
        var written = 0
        var covered: UInt64 = 0
        var source = 0
        var lastFlags: NBDAllocationFlags?
        var lastBytes: UInt64 = 0
        while source + stride <= memory.count, covered < rangeBytes {
            let extent = base.loadUnaligned(fromByteOffset: source, as: AllocationExtent.self)
            source += stride
            let rest = UInt64(rangeBytes) - covered
            let sectors = min(extent.sectorCount, rest / UInt64(sectorBytes))
            guard sectors > 0 else { break }
            let flags: NBDAllocationFlags = extent.isHole ? [.hole, .zero] : []
            if flags != lastFlags {
                if onlyOne && written > 0 { break }
                lastBytes = 0
                lastFlags = flags
                written += byteCount
            }
            lastBytes += sectors * UInt64(sectorBytes)
            covered += sectors * UInt64(sectorBytes)
            // In place: a descriptor is half an extent, so it never reaches one not yet read.
            store(base + written - byteCount, bytes: UInt32(lastBytes), flags)
        }
        return written > 0 ? written : encodeData(base, rangeBytes: rangeBytes)
    }

    /// One descriptor: all of it is data.
    package static func encodeData(_ base: UnsafeMutableRawPointer, rangeBytes: UInt32) -> Int {
        store(base, bytes: rangeBytes, [])
        return byteCount
    }

    private static func store(
        _ descriptor: UnsafeMutableRawPointer, bytes: UInt32, _ flags: NBDAllocationFlags
    ) {
        descriptor.storeBigEndian(bytes, at: 0)
        descriptor.storeBigEndian(flags.rawValue, at: 4)
    }
}
