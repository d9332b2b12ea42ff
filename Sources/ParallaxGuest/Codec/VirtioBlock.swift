// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A virtio-blk request type (virtio 1.2, 5.2.6). A struct, so that tests can send unknown ones.
package struct BlockOperation: RawRepresentable, Equatable, Sendable, BitwiseCopyable {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static var read: Self { Self(rawValue: 0) }  // virtio: VIRTIO_BLK_T_IN
    package static var write: Self { Self(rawValue: 1) }  // virtio: VIRTIO_BLK_T_OUT
    package static var flush: Self { Self(rawValue: 4) }
    package static var identify: Self { Self(rawValue: 8) }  // virtio: VIRTIO_BLK_T_GET_ID
    package static var discard: Self { Self(rawValue: 11) }
    package static var writeZeroes: Self { Self(rawValue: 13) }
}

/// The last byte of a request, written by the device.
package enum BlockStatusByte {
    package static let ok: UInt8 = 0
    package static let ioError: UInt8 = 1
    package static let unsupported: UInt8 = 2
    /// What the driver puts there first: no device may leave it.
    package static let unwritten: UInt8 = 0xFF

    package static func name(_ status: UInt8) -> String {
        switch status {
        case ok: "ok"
        case ioError: "an I/O error"
        case unsupported: "\"unsupported\""
        case unwritten: "no status at all"
        default: "the unknown status \(status)"
        }
    }
}

/// The device-readable start of each request.
///
///      0        4        8                16
///     +--------+--------+----------------+
///     | type   | 0      | first sector   |
///     +--------+--------+----------------+
package struct BlockRequestHeader: BitwiseCopyable {
    package var operation: UInt32
    package var reserved: UInt32 = 0
    package var firstSector: UInt64

    package init(operation: BlockOperation, firstSector: UInt64) {
        self.operation = operation.rawValue
        self.firstSector = firstSector
    }
}

/// The payload of a discard or write-zeroes request.
///
///      0                8        12       16
///     +----------------+--------+--------+
///     | first sector   | count  | flags  |   flags bit 0: may unmap
///     +----------------+--------+--------+
package struct BlockRange: BitwiseCopyable {
    package static let mayUnmapFlag: UInt32 = 1

    package var firstSector: UInt64
    package var sectorCount: UInt32
    package var flags: UInt32

    package init(firstSector: UInt64, sectorCount: UInt32, flags: UInt32 = 0) {
        self.firstSector = firstSector
        self.sectorCount = sectorCount
        self.flags = flags
    }
}

/// One virtqueue element (virtio 1.2, 2.7.5).
///
///      0                8        12    14    16
///     +----------------+--------+-----+-----+
///     | guest address  | length |flags|next |
///     +----------------+--------+-----+-----+
package struct Descriptor: BitwiseCopyable, Equatable {
    package static var byteCount: Int { 16 }
    package static var nextFlag: UInt16 { 1 }
    package static var deviceWritableFlag: UInt16 { 2 }
    package static var indirectFlag: UInt16 { 4 }

    package var guestAddress: UInt64
    package var byteCount: UInt32
    package var flags: UInt16
    package var next: UInt16

    package init(guestAddress: UInt64, byteCount: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
        self.guestAddress = guestAddress
        self.byteCount = byteCount
        self.flags = flags
        self.next = next
    }
}
