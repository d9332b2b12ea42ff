// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Names a snapshot for ever.
///
/// ```
///  63  62   58 57     36 35                  0
/// +---+-------+---------+---------------------+
/// | 1 |stream | row     | sequence            |   row: place in the stream's table of versions,
/// +---+-------+---------+---------------------+   reused; sequence: counts the stream's snapshots
/// ```
/// Bit 63 tells it from a `VDIIdentifier`.
package struct SnapshotIdentifier: BitwiseCopyable, Hashable, Sendable {
    package let rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    init(stream: Int, row: Int, sequence: UInt64) {
        precondition(
            stream < 32 && row < Limits.snapshotsPerStream && sequence <= Self.lastSequence,
            "SnapshotIdentifier: out of range")
        rawValue = 1 << 63 | UInt64(stream) << 58 | UInt64(row) << 36 | sequence
    }

    /// A hundred snapshots a second reach it in 21 years.
    static let lastSequence: UInt64 = 1 << 36 - 1

    package var stream: Int { Int(rawValue >> 58 & 31) }
    var row: Int { Int(rawValue >> 36 & 0x3F_FFFF) }
    /// Greater for a snapshot that was made later on the same stream.
    package var sequence: UInt64 { rawValue & Self.lastSequence }

    /// The same identifier as a number that is greater for a snapshot that was made later on the
    /// same stream, whatever row it is in: the sequence first.
    package var age: UInt64 { rawValue << 28 | rawValue >> 36 }

    package init(age: UInt64) { rawValue = age >> 28 | age << 36 }
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
