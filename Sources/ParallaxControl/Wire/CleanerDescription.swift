// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a shard's log cleaner does, and what it has done since the start of the daemon.
package struct CleanerDescription: Codable, Equatable, Sendable {
    package var active = false
    /// Somebody has asked for it, and its goal is not reached.
    package var asked = false
    /// Writes wait for what it gives back.
    package var urgent = false
    /// Its reads or writes failed; it rests until the daemon starts again.
    package var broken = false
    package var rounds: UInt64 = 0
    package var cleanedExtents: UInt64 = 0
    package var movedBytes: UInt64 = 0
    package var readBytes: UInt64 = 0
    package var writtenBytes: UInt64 = 0
    /// Blocks that failed their checksum, and stay where they are.
    package var damagedBlocks: UInt64 = 0
    /// Blocks that are known by another address than their place.
    package var forwardedBlocks: UInt64 = 0
    /// It begins by itself when less of the store than this is free.
    package var startsBelowBytes: UInt64 = 0

    package init() {}

    enum CodingKeys: String, CodingKey {
        case active
        case asked
        case urgent
        case broken
        case rounds
        case cleanedExtents = "cleaned_extents"
        case movedBytes = "moved_bytes"
        case readBytes = "read_bytes"
        case writtenBytes = "written_bytes"
        case damagedBlocks = "damaged_blocks"
        case forwardedBlocks = "forwarded_blocks"
        case startsBelowBytes = "starts_below_bytes"
    }
}
