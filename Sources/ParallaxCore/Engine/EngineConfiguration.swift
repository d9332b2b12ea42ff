// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// How one engine is to run.
package struct EngineConfiguration: Sendable {
    /// Which of the store's streams this engine is.
    package var stream = 0
    /// Memory for radix nodes, in bytes; at least `leastNodeFrames`.
    package var nodeCacheBytes = 256 << 20
    var nodeFrames: Int { max(Self.leastNodeFrames, nodeCacheBytes / blockBytes) }

    /// LIMIT: nodes that an engine can do with.
    static let leastNodeFrames = 64
    /// A checkpoint starts when this many bytes of log have been written since the last.
    package var checkpointLogBytes = 512 << 20
    /// ... or when this much time has passed and anything has changed.
    package var checkpointIntervalNanoseconds: UInt64 = 30_000_000_000
    /// Chunk writes in flight; one more buffer is being filled.
    package var maxChunksInFlight = 4
    /// Memory that the device reads and writes must have this alignment in bytes.
    package var bufferAlignment = 512
    /// Extents to hold leased ahead of the log.
    package var leasesAhead = 2
    /// How long after the last sign that other streams are winning back a slot the store counts as full.
    package var peerPatienceNanoseconds: UInt64 = 500_000_000
    /// Blocks that the cleaner gathers and sorts at a time, in memory; at least a chunk's.
    package var cleanerBatchBlocks = 8192
    /// Cleaning begins when fewer slots of the store are free than this, in thousandths.
    package var cleaningPermille = 5
    /// Blocks that must have been moved before leaves are gone through for them.
    package var leastNamesForSweep = 65536

    package init() {}
}

/// Counters of one engine since it was opened, and some of its present state.
package struct EngineStatistics: Sendable {
    package var reads: UInt64 = 0
    package var readBytes: UInt64 = 0
    package var writes: UInt64 = 0
    package var writtenBytes: UInt64 = 0
    package var flushes: UInt64 = 0
    package var discards: UInt64 = 0
    /// Requests that a VDI's quota refused; the others without space met a full store.
    package var quotaRefusals: UInt64 = 0
    package var chunks: UInt64 = 0
    package var chunkBytes: UInt64 = 0
    package var syncs: UInt64 = 0
    package var checkpoints: UInt64 = 0
    package var checkpointNodes: UInt64 = 0
    package var checksumFailures: UInt64 = 0
    package var deviceErrors: UInt64 = 0
    package var nodeLoads: UInt64 = 0
    package var nodeEvictions: UInt64 = 0
    package var replayedChunks: UInt64 = 0
    package var lsn: UInt64 = 0
    package var durableLSN: UInt64 = 0
    package var checkpointLSN: UInt64 = 0
    package var extents = 0
    /// Of those, the ones that are leased and have nothing in them yet.
    package var leasedExtents = 0
    package var liveBlocks: UInt64 = 0
    package var nodeFrames = 0
    package var nodeFramesUsed = 0
    package var dirtyNodes = 0
    package var requestsInFlight = 0
    /// Nodes of deleted versions that could not be read: what only they name is not given back.
    package var nodesPassedOver: UInt64 = 0
    /// The cleaner: victims gone through, rounds, blocks moved, bytes read and written, blocks that
    /// were damaged and stay where they are.
    package var cleanedExtents: UInt64 = 0
    package var cleanerRounds: UInt64 = 0
    package var movedBlocks: UInt64 = 0
    /// Extents that were given back between checkpoints.
    package var droppedExtents: UInt64 = 0
    package var cleanerReadBytes: UInt64 = 0
    package var cleanerWrittenBytes: UInt64 = 0
    package var cleanerDamagedBlocks: UInt64 = 0
    /// The scrub: bytes read, and blocks that were found damaged.
    package var scrubbedBytes: UInt64 = 0
    package var scrubDamagedBlocks: UInt64 = 0
    /// Blocks that are not where their names say.
    package var forwardedBlocks = 0
    package var isCleaning = false
    /// Guests wait for what it gives back.
    package var isCleaningUrgent = false
    /// Its reads or writes failed; it rests until the next start.
    package var isCleanerBroken = false
    /// Blocks behind the log's head in its extent: nothing is in them yet.
    package var logRoomBlocks: UInt64 = 0
    /// Blocks that guests' writes leave free for deletions and checkpoints.
    package var reservedBlocks: UInt64 = 0
    /// Whether the blocks of a deleted version or VDI are being given back.
    package var isReclaiming = false
    /// Deleted versions and VDIs that wait for that, the one under way not counted.
    package var reclaimsWaiting = 0

    package init() {}
}
