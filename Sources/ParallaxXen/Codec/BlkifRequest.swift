// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The fields of a request, decoded from a private copy of its ring entry; which of them mean
/// anything depends on the operation. Nothing in it has been checked.
package struct BlkifRequest: BitwiseCopyable, Sendable {
    /// The number as it came; nil in `operation` if we do not know it.
    package var operationNumber: UInt8
    /// What an indirect request does.
    package var indirectOperationNumber: UInt8
    /// The front end's name for it; comes back in the response.
    package var id: UInt64
    package var firstSector: UInt64
    /// Of a direct request.
    package var segmentCount: Int
    /// Of an indirect request.
    package var indirectSegmentCount: Int
    /// Of a discard.
    package var sectorCount: UInt64
    package var isSecure: Bool

    package init(decoding entry: RawSpan, layout: BlkifLayout) {
        precondition(entry.byteCount >= layout.entryBytes, "a ring entry that is too short")
        operationNumber = entry.load8(at: 0)
        indirectOperationNumber = entry.load8(at: 1)
        id = entry.load64(at: layout.idOffset)
        firstSector = entry.load64(at: layout.sectorOffset)
        segmentCount = Int(entry.load8(at: 1))
        indirectSegmentCount = Int(entry.load16(at: 2))
        sectorCount = entry.load64(at: layout.segmentsOffset)
        isSecure = entry.load8(at: 1) & 1 != 0
    }

    package var operation: BlkifOperation? { BlkifOperation(rawValue: operationNumber) }

    /// The response repeats the operation; for an indirect request, the one that it wraps.
    package var echoedOperation: UInt8 {
        operation == .indirect ? indirectOperationNumber : operationNumber
    }
}

/// A page of the guest and the sectors of it that a request is about (blkif_request_segment).
///
/// ```
///   0          4        5       6     8
///   | gref u32 | first  | last  | pad |
/// ```
package struct GrantSegment: BitwiseCopyable, Sendable {
    package static let byteCount = 8

    package var reference: UInt32
    package var firstSector: UInt8
    package var lastSector: UInt8

    package init(reference: UInt32, firstSector: UInt8, lastSector: UInt8) {
        self.reference = reference
        self.firstSector = firstSector
        self.lastSector = lastSector
    }

    package init(decoding bytes: RawSpan, at offset: Int) {
        reference = bytes.load32(at: offset)
        firstSector = bytes.load8(at: offset + 4)
        lastSector = bytes.load8(at: offset + 5)
    }

    /// Sectors from the first to the last; nil if that is no range within a page.
    package var sectorCount: Int? {
        guard firstSector <= lastSector, Int(lastSector) < XenLimits.sectorsPerPage else {
            return nil
        }
        return Int(lastSector - firstSector) + 1
    }
}

extension RawSpan {
    func load8(at offset: Int) -> UInt8 {
        unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
    }

    func load16(at offset: Int) -> UInt16 {
        UInt16(littleEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }

    func load32(at offset: Int) -> UInt32 {
        UInt32(littleEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    func load64(at offset: Int) -> UInt64 {
        UInt64(littleEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
}
