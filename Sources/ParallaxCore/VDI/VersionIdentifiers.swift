// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Names a snapshot for ever.
///
/// ```
///  63  62   48 47        24 23       0
/// +---+-------+------------+----------+
/// | 1 |stream | generation | row      |   row: place in the stream's table of versions, reused
/// +---+-------+------------+----------+   with the next generation
/// ```
/// Bit 63 tells it from a `VDIIdentifier`.
package struct SnapshotIdentifier: BitwiseCopyable, Hashable, Sendable {
    package let rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    init(stream: Int, generation: UInt32, row: Int) {
        rawValue = 1 << 63 | UInt64(stream) << 48 | UInt64(generation) << 24 | UInt64(row)
    }

    static let rowLimit = 1 << 24
    static let generationLimit: UInt32 = 1 << 24

    var row: Int { Int(rawValue & 0xFF_FFFF) }
    var generation: UInt32 { UInt32(rawValue >> 24 & 0xFF_FFFF) }
    package var stream: Int { Int(rawValue >> 48 & 0x7FFF) }
}

/// What can be attached, compared and read: a VDI's writable head, or a snapshot.
package enum VersionReference: Hashable, Sendable {
    case head(VDIIdentifier)
    case snapshot(SnapshotIdentifier)

    /// One number for either.
    package var rawValue: UInt64 {
        switch self {
        case .head(let identifier): identifier.rawValue
        case .snapshot(let identifier): identifier.rawValue
        }
    }

    package init(rawValue: UInt64) {
        self =
            rawValue >> 63 == 0
            ? .head(VDIIdentifier(rawValue)) : .snapshot(SnapshotIdentifier(rawValue))
    }
}
