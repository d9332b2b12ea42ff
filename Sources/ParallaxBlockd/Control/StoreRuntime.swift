// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// An open store with its shards running: what the control plane is given to control.
package struct StoreRuntime: Sendable {
    package var identity: StoreIdentity
    package var shards: [any ShardControl]
    /// Called once, after every shard has shut down: gives the store's lock back.
    package var close: @Sendable () async -> Void

    package init(
        identity: StoreIdentity, shards: [any ShardControl],
        close: @escaping @Sendable () async -> Void
    ) {
        self.identity = identity
        self.shards = shards
        self.close = close
    }
}

/// The facts about a store that never change while it is open.
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
