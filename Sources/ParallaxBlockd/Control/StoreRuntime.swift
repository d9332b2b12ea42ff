// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl

/// An open store with its shards running: what the control plane is given to control.
package struct StoreRuntime: Sendable {
    package var identity: StoreIdentity
    package var shards: [any ShardControl]
    /// Makes the store larger while it is used; nil: as large as its block device is now. One at a
    /// time. Failures are `ControlError`.
    package var grow: @Sendable (UInt64?) async throws -> StoreIdentity
    /// Makes the cleaner work until so many percent of the store are free, or nothing is left that is
    /// worth it (nil: only that). Returns when it has begun.
    package var clean: @Sendable (UInt64?) async throws -> Void
    /// Begins or stops a scrub; returns when every shard has. One at a time.
    package var scrub: @Sendable (ScrubOrder) async throws -> Void
    /// Of a store in a file; nil for a block device. From any thread, at any time.
    package var hostSpace: @Sendable () -> HostSpace?
    /// The shared NBD socket answers from now on. Called once, when the exports of the last run are back.
    package var serveSharedNBD: @Sendable () -> Void
    /// Called once, after every shard has shut down: gives the store's lock back.
    package var close: @Sendable () async -> Void

    package init(
        identity: StoreIdentity, shards: [any ShardControl],
        grow: @escaping @Sendable (UInt64?) async throws -> StoreIdentity,
        clean: @escaping @Sendable (UInt64?) async throws -> Void = { _ in },
        scrub: @escaping @Sendable (ScrubOrder) async throws -> Void = { _ in },
        hostSpace: @escaping @Sendable () -> HostSpace? = { nil },
        serveSharedNBD: @escaping @Sendable () -> Void = {},
        close: @escaping @Sendable () async -> Void
    ) {
        self.identity = identity
        self.shards = shards
        self.grow = grow
        self.clean = clean
        self.scrub = scrub
        self.hostSpace = hostSpace
        self.serveSharedNBD = serveSharedNBD
        self.close = close
    }
}

/// The facts about a store; while it is open only a growth changes them.
package struct StoreIdentity: Equatable, Sendable {
    package var path: String
    /// Lower case, in the usual 8-4-4-4-12 form; part of a file name.
    package var uuid: String
    package var sizeBytes: UInt64
    package var extentBytes: UInt64
    package var extentCount: UInt64

    package init(
        path: String, uuid: String, sizeBytes: UInt64, extentBytes: UInt64, extentCount: UInt64
    ) {
        self.path = path
        self.uuid = uuid
        self.sizeBytes = sizeBytes
        self.extentBytes = extentBytes
        self.extentCount = extentCount
    }
}
