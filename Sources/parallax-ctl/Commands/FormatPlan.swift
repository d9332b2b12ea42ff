// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl

/// A store to be made, offline.
struct FormatPlan {
    /// One shard a core up to here; more logs than this only divide the space.
    static let maximumDefaultShards = 8
    static let maximumShards = 64

    var path: String
    /// Nil: the whole of a block device.
    var sizeBytes: UInt64?
    var extentBytes: UInt64
    var shards: Int
    var mayOverwrite: Bool

    static func defaultShards() -> Int {
        min(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))), maximumDefaultShards)
    }

    func run() throws(ControlError) -> FormattedStore {
        throw ControlError(.internalError, "this build has no storage engine yet")
    }
}

/// What `store init` made.
struct FormattedStore: Encodable {
    var path: String
    var uuid: String
    var sizeBytes: UInt64
    var extentBytes: UInt64
    var extentCount: UInt64
    var shards: Int

    enum CodingKeys: String, CodingKey {
        case path
        case uuid
        case sizeBytes = "size_bytes"
        case extentBytes = "extent_bytes"
        case extentCount = "extent_count"
        case shards
    }
}
