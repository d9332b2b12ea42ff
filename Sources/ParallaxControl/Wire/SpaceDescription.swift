// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// How a shard's part of the store is used.
///
/// ```
///   extents in use   | live | dead | room behind the log's head |
///   free extents     | leased to the shard | nobody's           |
///   reserved: how much of the free space and the room guests' writes leave alone
/// ```
package struct SpaceDescription: Codable, Equatable, Sendable {
    /// Blocks to which something refers: data, nodes, records.
    package var liveBytes: UInt64 = 0
    /// What was overwritten or deleted, and the log's own headers and tables: the cleaner's work.
    package var deadBytes: UInt64 = 0
    /// Left free by guests' writes, for deletions and checkpoints.
    package var reservedBytes: UInt64 = 0
    /// Whether the blocks of something that was deleted are being given back, and how many more
    /// snapshots and VDIs wait for that.
    package var reclaiming = false
    package var reclaimsWaiting: UInt64 = 0
    /// Nodes of deleted versions that could not be read: what only they name is lost space.
    package var nodesPassedOver: UInt64 = 0
    /// Requests that were refused because there was no space.
    package var refusedRequests: UInt64 = 0
    /// Of those the ones that a VDI's quota refused; the others met a full store.
    package var quotaRefusedRequests: UInt64 = 0
    /// Bytes that went to the log, headers and checkpoints included; with the bytes that guests
    /// wrote this is the write amplification.
    package var logBytes: UInt64 = 0

    package init() {}

    enum CodingKeys: String, CodingKey {
        case liveBytes = "live_bytes"
        case deadBytes = "dead_bytes"
        case reservedBytes = "reserved_bytes"
        case reclaiming
        case reclaimsWaiting = "reclaims_waiting"
        case nodesPassedOver = "nodes_passed_over"
        case refusedRequests = "refused_requests"
        case quotaRefusedRequests = "quota_refused_requests"
        case logBytes = "log_bytes"
    }
}

/// What a store in a file takes of the file system that it is in.
package struct HostSpace: Codable, Equatable, Sendable {
    /// Bytes of the file that have blocks.
    package var allocatedBytes: UInt64
    /// Bytes of free extents that went back since the start of the daemon.
    package var punchedBytes: UInt64
    /// Why the last extent could not be allocated, until one can.
    package var problem: String?

    package init(allocatedBytes: UInt64, punchedBytes: UInt64, problem: String? = nil) {
        self.allocatedBytes = allocatedBytes
        self.punchedBytes = punchedBytes
        self.problem = problem
    }

    enum CodingKeys: String, CodingKey {
        case allocatedBytes = "allocated_bytes"
        case punchedBytes = "punched_bytes"
        case problem
    }
}
