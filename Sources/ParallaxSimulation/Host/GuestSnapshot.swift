// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// What the simulated administrator knows of one snapshot.
package final class GuestSnapshot {
    package let identifier: UInt64
    /// Whose it is; stays when that VDI's head goes another way.
    package let disk: UInt64
    package let stream: Int
    package let sizeBytes: UInt64
    package let createdAt: UInt64
    /// More than one while a change is in flight or was cut off by a crash.
    package var details: [SnapshotDetails]
    /// The group that it may be an unfinished member of; 0: none.
    package var groups: Set<UInt64>
    /// The nearest ancestor that is left.
    package var parent: UInt64?
    package var isDeletionPending = false
    package var changesInFlight = 0
    package var requestsInFlight = 0
    /// Open for reading, that many times.
    package var openings = 0
    package var handle: UInt32?

    package init(
        identifier: UInt64, disk: UInt64, stream: Int, sizeBytes: UInt64, createdAt: UInt64,
        details: SnapshotDetails, group: UInt64
    ) {
        self.identifier = identifier
        self.disk = disk
        self.stream = stream
        self.sizeBytes = sizeBytes
        self.createdAt = createdAt
        self.details = [details]
        groups = [group]
    }

    package var mayBeHeld: Bool { details.contains { $0.isHeld } }
    package var isHidden: Bool { groups != [0] }
    package var sectorCount: UInt64 { sizeBytes / UInt64(sectorBytes) }
}
