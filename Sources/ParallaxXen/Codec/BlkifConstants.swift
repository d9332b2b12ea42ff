// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// What a request asks for (blkif.h: BLKIF_OP_*).
package enum BlkifOperation: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case read = 0
    case write = 1
    case writeBarrier = 2
    case flushDiskCache = 3
    case discard = 5
    case indirect = 6
}

/// How it ended (blkif.h: BLKIF_RSP_*).
package enum BlkifStatus: Int16, BitwiseCopyable, Sendable, CaseIterable {
    case okay = 0
    case error = -1
    case notSupported = -2

    package init(_ status: BlockStatus) {
        switch status {
        case .ok: self = .okay
        case .ioError, .corrupt, .noSpace, .outOfRange, .readOnly, .invalid, .shuttingDown:
            self = .error
        }
    }
}

/// The bits of the key `info`.
package struct BlkifDiskInfo: OptionSet, BitwiseCopyable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let cdrom = BlkifDiskInfo(rawValue: 1)
    package static let removable = BlkifDiskInfo(rawValue: 2)
    package static let readOnly = BlkifDiskInfo(rawValue: 4)
}

/// Where the fields of a request lie. On 32-bit x86 a `uint64_t` is aligned to 4 bytes, everywhere
/// else to 8; the front end names its layout in the key `protocol`.
///
/// ```
///  offset    x86_32  others
///  operation    0       0
///  count        1       1     u8; of an indirect request: u16 at 2, and its operation at 1
///  id           4       8
///  sector      12      16
///  segments    20      24     11 x { gref u32, first u8, last u8, pad u16 }
///  sectors     20      24     of a discard
///  grefs       24      28     8 x u32, of an indirect request
///  entry      108     112     bytes; a response fits in: id u64, operation u8 at 8, status i16 at 10
/// ```
package enum BlkifLayout: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case x86For32
    case alignedTo8

    package static let entryBytesMax = 112

    /// nil: a protocol that nobody has defined.
    package init?(protocolName: String?) {
        switch protocolName {
        case nil, "x86_64-abi": self = .alignedTo8
        case "x86_32-abi": self = .x86For32
        case "arm-abi": self = .alignedTo8
        default: return nil
        }
    }

    package var entryBytes: Int { self == .x86For32 ? 108 : 112 }
    package var idOffset: Int { self == .x86For32 ? 4 : 8 }
    package var sectorOffset: Int { self == .x86For32 ? 12 : 16 }
    package var segmentsOffset: Int { self == .x86For32 ? 20 : 24 }
    package var indirectReferencesOffset: Int { self == .x86For32 ? 24 : 28 }
}
