// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl
package import ParallaxCore

/// What the control plane asks of one shard. Calls may come from any thread; an implementation
/// passes them through its mailbox. Operations on one VDI never overlap: the control plane sees
/// to it.
///
/// Failures are `ControlError` with a sentence for the user (`.noSpace`, `.socketUnusable`,
/// `.ioError`, ...), because the shard knows best what failed on which object.
package protocol ShardControl: Sendable {
    var index: Int { get }

    func vdis() async throws -> [VDIState]

    /// Durable when it returns.
    func create(name: String, sizeBytes: UInt64) async throws -> VDIState

    /// Grows, or shrinks when the new size is smaller (only asked for a detached VDI).
    func resize(identifier: VDIIdentifier, sizeBytes: UInt64) async throws

    /// An NBD export of the VDI goes by the new name from the next connection on.
    func rename(identifier: VDIIdentifier, name: String) async throws

    /// The name is free when it returns; the blocks are freed in the background.
    func delete(identifier: VDIIdentifier) async throws

    /// Serving when it returns: a client may connect to the socket.
    func attachVhost(identifier: VDIIdentifier, socketPath: String, readOnly: Bool) async throws

    /// A `socketPath` of nil is the daemon's shared NBD socket.
    func attachNBD(identifier: VDIIdentifier, socketPath: String?, readOnly: Bool) async throws

    /// A disk of a Xen domain: `place` is DOMAIN:DEVICE, or a back-end directory in xenstore. Not
    /// `isNew`: it was served before a restart.
    func attachXen(
        identifier: VDIIdentifier, place: String, readOnly: Bool, isNew: Bool) async throws

    /// VDIs that were attached to Xen domains that have gone.
    func endedXen() async throws -> [VDIIdentifier]

    /// Ends the sessions, finishes what is in flight and removes the VDI's own socket.
    func detach(identifier: VDIIdentifier) async throws

    func status() async throws -> ShardStatus

    /// Detaches everything, writes a checkpoint and ends the thread.
    func shutdown() async
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
    package var phase: Phase

    package init(
        identifier: VDIIdentifier, name: String, sizeBytes: UInt64, createdAtSeconds: Int64,
        allocatedBytes: UInt64, phase: Phase = .active
    ) {
        self.identifier = identifier
        self.name = name
        self.sizeBytes = sizeBytes
        self.createdAtSeconds = createdAtSeconds
        self.allocatedBytes = allocatedBytes
        self.phase = phase
    }
}

/// A shard's counters are shown as they are; the control plane fills in the VDI count.
package typealias ShardStatus = ShardDescription
