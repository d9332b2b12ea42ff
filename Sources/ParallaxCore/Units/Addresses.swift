// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Number of an extent in its stream's history: counted up, never reused. 0 is no extent.
@frozen
package struct ExtentNumber: BitwiseCopyable, Hashable, Comparable, Sendable {
    package let rawValue: UInt64

    @inlinable package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    package static func < (left: ExtentNumber, right: ExtentNumber) -> Bool {
        left.rawValue < right.rawValue
    }

    @inlinable package var next: ExtentNumber { ExtentNumber(rawValue + 1) }

    /// Numbers from here on are those of extents that the cleaner fills; below are the log's, which
    /// follow each other without a gap.
    package static let firstCold = ExtentNumber(1 << 39)

    @inlinable package var isCold: Bool { rawValue >> 39 != 0 }
}

/// Place of an extent in the store: slot n begins `n` extents after the first. Slots are reused.
@frozen
package struct ExtentSlot: BitwiseCopyable, Hashable, Sendable {
    package let rawValue: UInt32

    @inlinable package init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// Position of a chunk in its stream's log. The first chunk ever written is number 1.
@frozen
package struct LogSequenceNumber: BitwiseCopyable, Hashable, Comparable, Sendable {
    package let rawValue: UInt64

    @inlinable package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    package static func < (left: LogSequenceNumber, right: LogSequenceNumber) -> Bool {
        left.rawValue < right.rawValue
    }

    @inlinable package var next: LogSequenceNumber { LogSequenceNumber(rawValue + 1) }
}

/// Names a VDI for ever: `stream << 48 | n`, never reused.
@frozen
package struct VDIIdentifier: BitwiseCopyable, Hashable, Sendable {
    package let rawValue: UInt64

    @inlinable package init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// Where a block is: an extent's number and a block within it, or a marker.
///
/// ```
///  63                                    24 23                    4 3       0
/// +----------------------------------------+-----------------------+---------+
/// |  extent number (40 bits)               | block in extent (20)  | flags 4 |
/// +----------------------------------------+-----------------------+---------+
///  flags: 1 = resident (in memory only: bits 63..24 are a frame's index)
/// ```
/// The value 0 is a hole: the block reads as zeros.
@frozen
package struct BlockAddress: BitwiseCopyable, Hashable, Sendable {
    package let rawValue: UInt64

    @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    package init(extent: ExtentNumber, block: Int) {
        rawValue = extent.rawValue << 24 | UInt64(block) << 4
    }

    /// Refers to a node that is in the node cache and has no place in the store yet.
    @inlinable
    package init(residentFrame: Int) {
        rawValue = UInt64(residentFrame) << 24 | 1
    }

    @inlinable package static var hole: BlockAddress { BlockAddress(rawValue: 0) }
    @inlinable package var isHole: Bool { rawValue == 0 }
    @inlinable package var isResident: Bool { rawValue & 1 != 0 }
    @inlinable package var residentFrame: Int { Int(rawValue >> 24) }
    @inlinable package var extent: ExtentNumber { ExtentNumber(rawValue >> 24) }
    @inlinable package var block: Int { Int(rawValue >> 4 & 0xFFFFF) }
    @inlinable package var flags: UInt8 { UInt8(rawValue & 15) }

    /// The address `count` blocks further on in the same extent.
    @inlinable
    package func advanced(by count: Int) -> BlockAddress {
        BlockAddress(rawValue: rawValue + UInt64(count) << 4)
    }
}
