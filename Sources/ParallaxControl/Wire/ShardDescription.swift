// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One shard's counters. Each counts from the start of the daemon; LSNs count from the format of
/// the store.
package struct ShardDescription: Codable, Equatable, Sendable {
    package var index: Int
    package var vdiCount = 0
    package var engine = ""
    package var reads: UInt64 = 0
    package var readBytes: UInt64 = 0
    package var writes: UInt64 = 0
    package var writtenBytes: UInt64 = 0
    package var flushes: UInt64 = 0
    package var discards: UInt64 = 0
    /// The newest chunk of the log, and the newest that a checkpoint covers.
    package var lsn: UInt64 = 0
    package var checkpointLSN: UInt64 = 0
    package var extentsUsed: UInt64 = 0
    package var extentsFree: UInt64 = 0
    package var cacheBytes: UInt64 = 0
    package var cacheLimitBytes: UInt64 = 0
    package var deviceErrors: UInt64 = 0
    package var checksumErrors: UInt64 = 0
    /// Why nothing is written any more; nil: it is. Reads go on.
    package var readOnlyReason: String?
    package var space = SpaceDescription()
    package var cleaner = CleanerDescription()
    package var scrub = ScrubDescription()

    package init(index: Int) { self.index = index }

    enum CodingKeys: String, CodingKey {
        case index
        case vdiCount = "vdi_count"
        case engine
        case reads
        case readBytes = "read_bytes"
        case writes
        case writtenBytes = "written_bytes"
        case flushes
        case discards
        case lsn
        case checkpointLSN = "checkpoint_lsn"
        case extentsUsed = "extents_used"
        case extentsFree = "extents_free"
        case cacheBytes = "cache_bytes"
        case cacheLimitBytes = "cache_limit_bytes"
        case deviceErrors = "device_errors"
        case checksumErrors = "checksum_errors"
        case readOnlyReason = "read_only_reason"
        case space
        case cleaner
        case scrub
    }
}
