// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// How far a shard's part of a scrub is. What is kept over a restart of the daemon, too.
package struct ScrubDescription: Codable, Equatable, Sendable {
    package var running = false
    package var finished = false
    /// The extent that is being read, and the last ones of the log and of the cleaner's that will be.
    package var extent: UInt64 = 0
    package var lastLogExtent: UInt64 = 0
    package var lastColdExtent: UInt64 = 0
    package var verifiedBytes: UInt64 = 0
    /// What lived when the pass began.
    package var totalBytes: UInt64 = 0
    package var damagedBlocks: UInt64 = 0
    /// Since the start of the daemon.
    package var readBytes: UInt64 = 0
    package var damagedBlocksEver: UInt64 = 0

    package init() {}

    enum CodingKeys: String, CodingKey {
        case running
        case finished
        case extent
        case lastLogExtent = "last_log_extent"
        case lastColdExtent = "last_cold_extent"
        case verifiedBytes = "verified_bytes"
        case totalBytes = "total_bytes"
        case damagedBlocks = "damaged_blocks"
        case readBytes = "read_bytes"
        case damagedBlocksEver = "damaged_blocks_ever"
    }
}

/// The newest scrub of a store, whole.
package struct ScrubSummary: Codable, Equatable, Sendable {
    package enum State: String, Codable, Sendable {
        case running
        /// Interrupted; it goes on from where it is.
        case paused
        case finished
    }

    package var state: State
    package var rateBytesPerSecond: UInt64
    /// ISO 8601.
    package var startedAt: String
    package var finishedAt: String?
    package var verifiedBytes: UInt64
    package var totalBytes: UInt64
    package var damagedBlocks: UInt64

    package init(
        state: State, rateBytesPerSecond: UInt64, startedAt: String,
        finishedAt: String?, verifiedBytes: UInt64, totalBytes: UInt64, damagedBlocks: UInt64
    ) {
        self.state = state
        self.rateBytesPerSecond = rateBytesPerSecond
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.verifiedBytes = verifiedBytes
        self.totalBytes = totalBytes
        self.damagedBlocks = damagedBlocks
    }

    enum CodingKeys: String, CodingKey {
        case state
        case rateBytesPerSecond = "rate_bytes_per_second"
        case startedAt = "started_at"
        case finishedAt = "finished_at"
        case verifiedBytes = "verified_bytes"
        case totalBytes = "total_bytes"
        case damagedBlocks = "damaged_blocks"
    }
}

/// The body of `POST /v1/store/scrub`.
package struct ScrubStoreRequest: Codable, Sendable {
    /// What is read at most, by all shards together; nil: 16 MiB/s, or what it was before.
    package var rateBytesPerSecond: UInt64?
    /// From the beginning, and not from where the last one was interrupted.
    package var restart: Bool?

    package init(rateBytesPerSecond: UInt64?, restart: Bool?) {
        self.rateBytesPerSecond = rateBytesPerSecond
        self.restart = restart
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        rateBytesPerSecond = try container.decodeIfPresent(
            UInt64.self, forKey: .rateBytesPerSecond)
        restart = try container.decodeIfPresent(Bool.self, forKey: .restart)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case rateBytesPerSecond = "rate_bytes_per_second"
        case restart
    }
}
