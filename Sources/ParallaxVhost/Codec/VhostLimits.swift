// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Every bound of the vhost-user back end, in one place.
package enum VhostLimits {
    package static let queueCountMax = 16
    /// Entries of one queue; a power of two.
    package static let queueSizeMax = 1024

    /// Memory regions by ADD_MEM_REG, and in one SET_MEM_TABLE (fixed by the protocol).
    package static let memoryRegionsMax = 32
    package static let memoryTableRegionsMax = 8
    /// Guest memory of one front end. It only costs address space, of which a process has 128 TiB.
    package static let guestMemoryBytesMax: UInt64 = 8 << 40

    /// Longest payload that is read to its end; a longer one ends the connection.
    package static let payloadBytesMax = 4096
    package static let fileDescriptorsPerMessageMax = 8
    package static let messagesPerTurnMax = 32
    package static let acceptsPerTurnMax = 8

    /// Files that are neither an eventfd, nor memory, nor a Unix socket. Closing one can take for
    /// ever, so a device whose front ends have sent so many serves nobody any more.
    package static let strangeFilesMax = 16

    /// Descriptors of one request, those of its indirect table included.
    package static let chainLengthMax = 1024
    /// Pieces of one request in our address space. A descriptor that crosses from one memory
    /// region into the next is two pieces.
    package static let chainPiecesMax = 2048
    /// Data segments of one request. We offer `segmentCountMax`; drivers may do with more.
    package static let dataSegmentsMax = 1024
    /// What a task holds by itself; a longer list comes out of the device's pool.
    package static let inlineDataSegments = 8
    /// Lists in the device's pool, each of `dataSegmentsMax`.
    package static let pooledListCount = 128

    /// Offered as `seg_max` and `size_max`, so that a legal request is just under 32 MiB.
    package static let segmentCountMax: UInt32 = 254
    package static let segmentBytesMax: UInt32 = 128 << 10
    package static let requestBytesMax: UInt64 = 32 << 20

    /// Ranges of one discard or write-zeroes request, and the length of each (2 GiB).
    package static let rangesMax = 64
    package static let rangeSectorsMax: UInt32 = 1 << 22

    /// Requests to the engine of one guest that have no reply yet: a quarter of what the engine works
    /// on at a time. The ranges of one more request may come on top.
    package static let engineRequestsMax = 256

    /// Requests taken from one queue before the other queues and sessions get their turn.
    package static let requestsPerTurnMax = 128
}
