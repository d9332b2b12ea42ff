// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The answer of `GET /v1/status`.
package struct DaemonStatus: Codable, Sendable {
    package var version: String
    package var processIdentifier: Int32
    package var state: DaemonState
    package var store: StoreStatus
    /// The I/O engine in use, such as `io_uring`.
    package var engine: String
    package var vdiCount: Int
    package var snapshotCount: Int
    package var attachmentCount: Int
    /// Remembered attachments that do not serve.
    package var missing: [MissingAttachment]
    package var shards: [ShardDescription]
    /// The newest scrub; nil: there was none.
    package var scrub: ScrubSummary?

    package init(
        version: String, processIdentifier: Int32, state: DaemonState, store: StoreStatus,
        engine: String, vdiCount: Int, snapshotCount: Int, attachmentCount: Int,
        missing: [MissingAttachment], shards: [ShardDescription],
        scrub: ScrubSummary? = nil
    ) {
        self.version = version
        self.processIdentifier = processIdentifier
        self.state = state
        self.store = store
        self.engine = engine
        self.vdiCount = vdiCount
        self.snapshotCount = snapshotCount
        self.attachmentCount = attachmentCount
        self.missing = missing
        self.shards = shards
        self.scrub = scrub
    }

    enum CodingKeys: String, CodingKey {
        case version
        case processIdentifier = "pid"
        case state
        case store
        case engine
        case vdiCount = "vdi_count"
        case snapshotCount = "snapshot_count"
        case attachmentCount = "attachment_count"
        case missing
        case shards
        case scrub
    }
}

/// How far the daemon is.
package enum DaemonState: String, Codable, Sendable {
    /// The store is open, remembered attachments are being restored.
    case starting
    /// Every remembered attachment serves.
    case ready
    /// Some remembered attachment could not be restored; the others serve.
    case degraded
    case stopping
}

/// The answer of `GET /v1/ready` with status 200.
package struct ReadyBody: Codable, Sendable {
    package var state: DaemonState

    package init(state: DaemonState) { self.state = state }
}

/// The store as a whole. Used and free are whole extents, summed over the shards.
package struct StoreStatus: Codable, Sendable {
    package var path: String
    package var uuid: String
    package var sizeBytes: UInt64
    package var usedBytes: UInt64
    package var freeBytes: UInt64
    package var extentBytes: UInt64
    package var extentCount: UInt64
    package var extentsUsed: UInt64
    package var extentsFree: UInt64
    /// Sums over the shards; see `SpaceDescription`.
    package var liveBytes: UInt64
    package var deadBytes: UInt64
    package var reservedBytes: UInt64
    /// What is live or reserved, in percent of all extents. Near 100 writes are refused.
    package var fullPercent: UInt64
    /// Only of a store in a file.
    package var host: HostSpace?

    package init(
        path: String, uuid: String, sizeBytes: UInt64, usedBytes: UInt64, freeBytes: UInt64,
        extentBytes: UInt64, extentCount: UInt64, extentsUsed: UInt64, extentsFree: UInt64,
        liveBytes: UInt64, deadBytes: UInt64, reservedBytes: UInt64, host: HostSpace?
    ) {
        self.path = path
        self.uuid = uuid
        self.sizeBytes = sizeBytes
        self.usedBytes = usedBytes
        self.freeBytes = freeBytes
        self.extentBytes = extentBytes
        self.extentCount = extentCount
        self.extentsUsed = extentsUsed
        self.extentsFree = extentsFree
        self.liveBytes = liveBytes
        self.deadBytes = deadBytes
        self.reservedBytes = reservedBytes
        let all = max(1, extentCount * extentBytes)
        fullPercent = min(100, (liveBytes + reservedBytes) / max(1, all / 100))
        self.host = host
    }

    enum CodingKeys: String, CodingKey {
        case path
        case uuid
        case sizeBytes = "size_bytes"
        case usedBytes = "used_bytes"
        case freeBytes = "free_bytes"
        case extentBytes = "extent_bytes"
        case extentCount = "extent_count"
        case extentsUsed = "extents_used"
        case extentsFree = "extents_free"
        case liveBytes = "live_bytes"
        case deadBytes = "dead_bytes"
        case reservedBytes = "reserved_bytes"
        case fullPercent = "full_percent"
        case host
    }
}
