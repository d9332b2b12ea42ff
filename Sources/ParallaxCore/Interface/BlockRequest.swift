// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One contiguous piece of a request's memory; the layout of Linux `struct iovec`.
///
/// SAFETY: a plain address. Whoever hands one out keeps the memory mapped and the array of
/// data segments in place until the reply (or the completion) that answers it.
@frozen
package struct DataSegment: BitwiseCopyable {
    package var base: UnsafeMutableRawPointer
    package var count: Int

    @inlinable
    package init(base: UnsafeMutableRawPointer, count: Int) {
        self.base = base
        self.count = count
    }
}

/// What a front end asks of the engine. Everything in it has been copied out of guest or peer
/// memory; the engine still checks ranges, so that no front end can forget to.
@frozen
package struct BlockRequest: BitwiseCopyable {
    @frozen
    package enum Operation: UInt8, BitwiseCopyable, Sendable {
        case read
        case write
        case flush
        case discard
        case writeZeroes
        /// Which parts of the range are holes: the engine fills the one data segment with
        /// `AllocationExtent`s. An engine that cannot tell answers `.invalid`, and the front end
        /// then calls the whole range data.
        case allocation

        @inlinable package var changesBlocks: Bool {
            self == .write || self == .discard || self == .writeZeroes
        }
    }

    package var operation: Operation
    /// The write, discard or write-zeroes is answered only when it is durable.
    package var forceUnitAccess: Bool
    /// Index of the VDI in the shard's table of open VDIs.
    package var vdi: UInt32
    /// The front-end session that is to get the reply.
    package var session: UInt32
    /// The session's own name for the request; comes back in the reply.
    package var tag: UInt32
    /// Sectors of 512 bytes. `sectorCount` is 0 for a flush. For read and write it equals the
    /// bytes of all data segments divided by 512; for an allocation query it is the range.
    package var firstSector: UInt64
    package var sectorCount: UInt64
    /// Stays valid until the reply. A data segment may have any alignment and any length.
    package var segments: UnsafePointer<DataSegment>?
    package var segmentCount: UInt32
    /// Of the memory from which the request was read and in which its data segments are; nil: our own.
    /// Once it has happened nothing is changed for this request any more.
    package var memoryLoss: MemoryLoss?

    @inlinable
    package init(
        operation: Operation, vdi: UInt32, session: UInt32, tag: UInt32,
        firstSector: UInt64 = 0, sectorCount: UInt64 = 0, forceUnitAccess: Bool = false,
        segments: UnsafePointer<DataSegment>? = nil, segmentCount: UInt32 = 0,
        memoryLoss: MemoryLoss? = nil
    ) {
        self.operation = operation
        self.forceUnitAccess = forceUnitAccess
        self.vdi = vdi
        self.session = session
        self.tag = tag
        self.firstSector = firstSector
        self.sectorCount = sectorCount
        self.segments = segments
        self.segmentCount = segmentCount
        self.memoryLoss = memoryLoss
    }
}

/// How a request ended. Each front end maps it to its protocol in one total `switch`.
@frozen
package enum BlockStatus: UInt8, BitwiseCopyable, Sendable {
    case ok
    /// The device failed, or the log can no longer accept writes.
    case ioError
    /// A block failed its checksum.
    case corrupt
    /// The store is full.
    case noSpace
    /// Past the end of the VDI.
    case outOfRange
    /// A write to a read-only export.
    case readOnly
    /// Malformed: a length that is not that of the data segments.
    case invalid
    /// The VDI is being detached or the daemon is stopping.
    case shuttingDown
}

/// The engine's answer to one `BlockRequest`.
@frozen
package struct BlockReply: BitwiseCopyable {
    package var session: UInt32
    package var tag: UInt32
    package var status: BlockStatus

    @inlinable
    package init(session: UInt32, tag: UInt32, status: BlockStatus) {
        self.session = session
        self.tag = tag
        self.status = status
    }
}
