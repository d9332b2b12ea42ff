// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl
package import ParallaxCore

/// What the control plane asks of one shard. Calls may come from any thread; an implementation
/// passes them through its mailbox. Operations on one VDI never overlap: the control plane sees
/// to it. Lists are short (`ShardBatch`), so that no call holds a guest up.
///
/// Failures are `ControlError` with a sentence for the user (`.noSpace`, `.socketUnusable`,
/// `.ioError`, ...), because the shard knows best what failed on which object.
package protocol ShardControl: Sendable {
    var index: Int { get }

    /// All of them; for the start.
    func vdis() async throws -> [VDIState]

    /// Those of `identifiers` that are there, in that order.
    func vdis(_ identifiers: [VDIIdentifier]) async throws -> [VDIState]

    /// Makes the changes in their order; each is durable, or was not made.
    func change(_ changes: [CatalogChange]) async throws -> [CatalogResult]

    /// This shard's members of a group. Guests of this shard may wait for `cut.arrive`.
    func snapshot(_ members: [CatalogChange], in cut: GroupCut) async throws -> [CatalogResult]

    /// Guests of this shard need not wait for the group any more. Returns at once.
    func releaseGroup(_ group: UInt64)

    /// The rows of the table of snapshots from `cursor` on.
    func snapshots(from cursor: Int, limit: Int) async throws -> SnapshotPage

    /// Those of `identifiers` that are there, in that order.
    func snapshots(_ identifiers: [SnapshotIdentifier]) async throws -> [SnapshotSummary]

    func compare(_ query: DiffQuery) async throws -> DiffAnswer

    /// Serving when it returns: a client may connect to the socket.
    func attachVhost(version: VersionReference, socketPath: String, readOnly: Bool) async throws

    /// A `socketPath` of nil is the daemon's shared NBD socket.
    func attachNBD(version: VersionReference, socketPath: String?, readOnly: Bool) async throws

    /// A disk of a Xen domain: `place` is DOMAIN:DEVICE, or a back-end directory in xenstore. Not
    /// `isNew`: it was served before a restart.
    func attachXen(
        version: VersionReference, place: String, readOnly: Bool, isNew: Bool) async throws

    /// Versions that were attached to Xen domains that have gone.
    func endedXen() async throws -> [VersionReference]

    /// Ends the sessions, finishes what is in flight and removes the version's own socket.
    func detach(version: VersionReference) async throws

    func status() async throws -> ShardStatus

    /// Detaches everything, writes a checkpoint and ends the thread.
    func shutdown() async
}

package typealias CatalogResult = Result<CatalogOutcome, ControlError>

/// LIMIT: what one message may ask of a shard, which serves no guest meanwhile.
enum ShardBatch {
    static let descriptions = 128
    static let deletions = 64
}

extension ShardControl {
    @discardableResult
    package func change(_ change: CatalogChange) async throws -> CatalogOutcome {
        guard let result = try await self.change([change]).first else {
            throw ControlError(.internalError, "the shard gave no answer")
        }
        return try result.get()
    }
}

/// One VDI as its shard knows it.
package struct VDIState: Equatable, Sendable {
    package enum Phase: Equatable, Sendable {
        case active
        /// Deleted; its blocks are being freed. Its name is free already.
        case deleting
    }

    package var identifier: VDIIdentifier
    package var name: String
    package var sizeBytes: UInt64
    package var createdAtSeconds: Int64
    package var allocatedBytes: UInt64
    package var chargedBytes: UInt64
    package var exclusiveBytes: UInt64
    package var phase: Phase
    package var attributes: VDIAttributes
    package var parent: SnapshotIdentifier?

    package init(
        identifier: VDIIdentifier, name: String, sizeBytes: UInt64, createdAtSeconds: Int64,
        allocatedBytes: UInt64, chargedBytes: UInt64, exclusiveBytes: UInt64,
        phase: Phase = .active, attributes: VDIAttributes = VDIAttributes(),
        parent: SnapshotIdentifier? = nil
    ) {
        self.identifier = identifier
        self.name = name
        self.sizeBytes = sizeBytes
        self.createdAtSeconds = createdAtSeconds
        self.allocatedBytes = allocatedBytes
        self.chargedBytes = chargedBytes
        self.exclusiveBytes = exclusiveBytes
        self.phase = phase
        self.attributes = attributes
        self.parent = parent
    }
}

/// A shard's counters are shown as they are; the control plane fills in the VDI count.
package typealias ShardStatus = ShardDescription
