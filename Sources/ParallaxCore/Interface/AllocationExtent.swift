// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One run of sectors of the same kind, in the answer to an `.allocation` request.
///
/// The answer is a list that starts at the request's first sector and has no gaps. It ends at the
/// request's last sector, at the end of the data segment, or before an extent of 0 sectors,
/// whichever comes first; so an engine may stop early, but it answers with at least one extent.
///
/// ```
///  0        8       9         16
///  +--------+-------+----------+
///  | count  | hole? | (unused) |
///  +--------+-------+----------+
/// ```
@frozen
package struct AllocationExtent: BitwiseCopyable, Equatable, Sendable {
    package var sectorCount: UInt64
    /// No block is stored: the sectors read as zeroes.
    package var isHole: Bool

    @inlinable
    package init(sectorCount: UInt64, isHole: Bool) {
        self.sectorCount = sectorCount
        self.isHole = isHole
    }
}
