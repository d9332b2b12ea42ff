// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One entry of a split virtqueue's descriptor table (virtio 1.2, 2.7.5), little-endian.
///
/// ```
///   0                 8         12      14     16
///   | guest address   | length  | flags | next |
/// ```
package struct Descriptor: BitwiseCopyable, Equatable, Sendable {
    package static let byteCount = 16
    package static let nextFlag: UInt16 = 1  // VIRTQ_DESC_F_NEXT
    package static let writableFlag: UInt16 = 2  // VIRTQ_DESC_F_WRITE
    package static let indirectFlag: UInt16 = 4  // VIRTQ_DESC_F_INDIRECT

    package var address: UInt64
    package var byteCount: UInt32
    package var flags: UInt16
    package var next: UInt16

    package init(address: UInt64, byteCount: UInt32, flags: UInt16, next: UInt16 = 0) {
        self.address = address
        self.byteCount = byteCount
        self.flags = flags
        self.next = next
    }

    /// From the two words of the descriptor as they are in memory.
    package init(decoding first: UInt64, _ second: UInt64) {
        let rest = UInt64(littleEndian: second)
        address = UInt64(littleEndian: first)
        byteCount = UInt32(truncatingIfNeeded: rest)
        flags = UInt16(truncatingIfNeeded: rest >> 32)
        next = UInt16(truncatingIfNeeded: rest >> 48)
    }

    package var isWritable: Bool { flags & Self.writableFlag != 0 }
}

/// What a guest did to its queue that cannot be answered. The queue stops; nothing else does.
package enum RingFault: UInt8, Error, BitwiseCopyable, Sendable, CaseIterable {
    case availableIndexTooFar
    case headOutOfRange
    case headInFlight
    case nextOutOfRange
    case chainTooLong
    case indirectNotNegotiated
    case indirectNested
    case indirectWithNext
    case indirectLength
    case indirectOutsideMemory
    case readableAfterWritable
    case tooManyPieces
    case headerTooShort
    case noStatusByte
    case statusOutsideMemory
    case ringOutsideMemory
    case inflightAreaMismatch
}

/// Follows one chain of descriptors and knows the rules; does not touch memory.
///
/// Invariant: I1 at most `VhostLimits.chainLengthMax` descriptors are accepted, so a loop ends.
package struct ChainWalk: BitwiseCopyable, Sendable {
    /// What to do with the descriptor that was accepted.
    package enum Step: BitwiseCopyable, Equatable, Sendable {
        /// A buffer; the chain goes on at `next` in the same table, or ends.
        case buffer(next: UInt16?)
        /// Go on at entry 0 of a table at this guest address.
        case table(address: UInt64, count: UInt32)
    }

    private var tableCount: UInt32
    private var acceptedCount = 0
    private var isInIndirectTable = false
    private var hasWritable = false
    private let isIndirectAllowed: Bool

    package init(queueSize: UInt16, isIndirectAllowed: Bool) {
        tableCount = UInt32(queueSize)
        self.isIndirectAllowed = isIndirectAllowed
    }

    package mutating func accept(_ descriptor: Descriptor) throws(RingFault) -> Step {
        acceptedCount += 1
        guard acceptedCount <= VhostLimits.chainLengthMax else { throw .chainTooLong }
        if descriptor.flags & Descriptor.indirectFlag != 0 { return try enterTable(descriptor) }
        guard descriptor.isWritable || !hasWritable else { throw .readableAfterWritable }
        hasWritable = descriptor.isWritable
        guard descriptor.flags & Descriptor.nextFlag != 0 else { return .buffer(next: nil) }
        guard UInt32(descriptor.next) < tableCount else { throw .nextOutOfRange }
        return .buffer(next: descriptor.next)
    }

    /// A chain may start with direct descriptors and end with one indirect (2.7.5.3.2).
    private mutating func enterTable(_ descriptor: Descriptor) throws(RingFault) -> Step {
        guard isIndirectAllowed else { throw .indirectNotNegotiated }
        guard !isInIndirectTable else { throw .indirectNested }
        guard descriptor.flags & Descriptor.nextFlag == 0 else { throw .indirectWithNext }
        let entryBytes = UInt32(Descriptor.byteCount)
        guard descriptor.byteCount > 0, descriptor.byteCount % entryBytes == 0 else {
            throw .indirectLength
        }
        isInIndirectTable = true
        tableCount = descriptor.byteCount / entryBytes
        return .table(address: descriptor.address, count: tableCount)
    }
}
