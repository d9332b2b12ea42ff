// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// `struct vhost_vring_state`: a queue and a number, 8 bytes.
package struct QueueNumber: BitwiseCopyable, Equatable, Sendable {
    static let byteCount = 8
    package var queue: UInt32
    package var number: UInt32

    init(decoding bytes: RawSpan) {
        queue = bytes.load(at: 0)
        number = bytes.load(at: 4)
    }
}

/// `struct vhost_vring_addr`: where a queue is in the *front end's* address space, 40 bytes.
///
/// ```
///   0       4       8            16      24          32             40
///   | queue | flags | descriptors | used  | available | log address |
/// ```
package struct QueueAddresses: BitwiseCopyable, Equatable, Sendable {
    static let byteCount = 40
    package var queue: UInt32
    package var flags: UInt32
    package var descriptorTable: UInt64
    package var usedRing: UInt64
    package var availableRing: UInt64

    init(decoding bytes: RawSpan) {
        queue = bytes.load(at: 0)
        flags = bytes.load(at: 4)
        descriptorTable = bytes.load(at: 8)
        usedRing = bytes.load(at: 16)
        availableRing = bytes.load(at: 24)
    }
}

/// A queue whose file descriptor comes beside the message: u64, bits 0-7 the queue, bit 8 "none".
package struct QueueFileDescriptor: BitwiseCopyable, Equatable, Sendable {
    static let byteCount = 8
    package var queue: UInt32
    package var hasFileDescriptor: Bool

    init(decoding bytes: RawSpan) {
        let value: UInt64 = bytes.load(at: 0)
        queue = UInt32(truncatingIfNeeded: value & 0xff)
        hasFileDescriptor = value & 0x100 == 0
    }
}

/// One piece of guest memory, 32 bytes: guest physical address, size, the front end's own address
/// of it, and the offset in the file that comes beside the message.
package struct MemoryRegion: BitwiseCopyable, Equatable, Sendable {
    static let byteCount = 32
    package var guestAddress: UInt64
    package var byteCount: UInt64
    package var userAddress: UInt64
    package var fileOffset: UInt64

    package init(
        guestAddress: UInt64, byteCount: UInt64, userAddress: UInt64, fileOffset: UInt64
    ) {
        self.guestAddress = guestAddress
        self.byteCount = byteCount
        self.userAddress = userAddress
        self.fileOffset = fileOffset
    }

    init(decoding bytes: RawSpan, at offset: Int) {
        guestAddress = bytes.load(at: offset)
        byteCount = bytes.load(at: offset + 8)
        userAddress = bytes.load(at: offset + 16)
        fileOffset = bytes.load(at: offset + 24)
    }
}

/// The regions of SET_MEM_TABLE: count u32, padding u32, then the regions.
package struct MemoryTable: BitwiseCopyable, Sendable {
    static let headerByteCount = 8
    package private(set) var count: Int
    private var regions: InlineArray<8, MemoryRegion>

    init(decoding bytes: RawSpan) throws(MessageFault) {
        guard bytes.byteCount >= Self.headerByteCount else { throw .wrongPayloadSize }
        let announced: UInt32 = bytes.load(at: 0)
        guard announced <= VhostLimits.memoryTableRegionsMax else { throw .memoryRejected }
        let needed = Self.headerByteCount + Int(announced) * MemoryRegion.byteCount
        // Some front ends send all eight slots whatever the count.
        guard bytes.byteCount >= needed, bytes.byteCount <= Self.byteCountMax else {
            throw .wrongPayloadSize
        }
        count = Int(announced)
        regions = InlineArray(
            repeating: MemoryRegion(guestAddress: 0, byteCount: 0, userAddress: 0, fileOffset: 0))
        for index in 0..<count {
            let offset = Self.headerByteCount + index * MemoryRegion.byteCount
            regions[index] = MemoryRegion(decoding: bytes, at: offset)
        }
    }

    static let byteCountMax =
        headerByteCount + VhostLimits.memoryTableRegionsMax * MemoryRegion.byteCount

    package subscript(index: Int) -> MemoryRegion { regions[index] }
}

/// An access to the device's configuration space: offset, size and flags u32 each, then the bytes.
package struct ConfigAccess: BitwiseCopyable, Equatable, Sendable {
    static let headerByteCount = 12
    /// The protocol's bound on the size of a configuration space.
    static let spaceByteCountMax: UInt32 = 256
    package var offset: UInt32
    package var byteCount: UInt32
    package var flags: UInt32
    /// The first byte to write; reads do not use it.
    package var firstByte: UInt8

    init(decoding bytes: RawSpan, hasBytes: Bool) throws(MessageFault) {
        guard bytes.byteCount >= Self.headerByteCount else { throw .wrongPayloadSize }
        offset = bytes.load(at: 0)
        byteCount = bytes.load(at: 4)
        flags = bytes.load(at: 8)
        guard byteCount > 0, byteCount <= Self.spaceByteCountMax else { throw .configAccess }
        let full = Self.headerByteCount + Int(byteCount)
        guard bytes.byteCount == full || (!hasBytes && bytes.byteCount == Self.headerByteCount)
        else { throw .wrongPayloadSize }
        firstByte = hasBytes ? bytes.load(at: Self.headerByteCount) : 0
    }
}
