// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxControl
import ParallaxCore
import ParallaxIO

/// A store to be made, offline.
struct FormatPlan {
    /// One shard a core up to here; more logs than this only divide the space.
    static let maximumDefaultShards = 8
    static let maximumShards = Limits.streams.upperBound

    var path: String
    /// Nil: the whole of a block device.
    var sizeBytes: UInt64?
    var extentBytes: UInt64
    var shards: Int
    var mayOverwrite: Bool

    static func defaultShards() -> Int {
        min(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))), maximumDefaultShards)
    }

    /// Makes the file, or takes the block device, and formats it. A file that was made for
    /// nothing is removed again.
    func run() throws(ControlError) -> FormattedStore {
        let existed = access(path, F_OK) == 0
        do {
            let file = try StoreFile.create(
                path: path, byteCount: sizeBytes, replacesExisting: mayOverwrite)
            try refuseToOverwrite(file)
            let options = FormatOptions(
                sizeBytes: sizeBytes ?? file.byteCount, extentBytes: extentBytes,
                streamCount: shards, uuid: Self.randomUUID(),
                createdAtNanoseconds: Self.wallClockNanoseconds())
            try Store.format(medium: file, options: options)
            return FormattedStore(path: path, try Store.inspect(medium: file).superblock)
        } catch {
            if !existed { unlink(path) }
            throw Self.explain(error)
        }
    }

    /// A block device always "exists"; what counts is whether there is a store on it.
    private func refuseToOverwrite(_ file: StoreFile) throws {
        guard file.isBlockDevice, !mayOverwrite else { return }
        guard (try? Store.inspect(medium: file)) == nil else {
            throw ControlError(
                .invalid, "\(path) holds a store already; use --force to destroy it")
        }
    }

    private static func explain(_ error: any Error) -> ControlError {
        switch error {
        case let error as ControlError: error
        case let error as StoreError where error.kind == .invalidOptions:
            ControlError(.invalid, error.message)
        default: ControlError(.ioError, "\(error)")
        }
    }

    /// Random, with the version and variant bits of RFC 9562, section 5.4.
    private static func randomUUID() -> StoreUUID {
        StoreUUID(
            high: UInt64.random(in: 0...UInt64.max) & ~0xF000 | 0x4000,
            low: UInt64.random(in: 0...UInt64.max) & ~(3 << 62) | 2 << 62)
    }

    private static func wallClockNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

extension FormattedStore {
    fileprivate init(path: String, _ superblock: Superblock) {
        self.init(
            path: path, uuid: superblock.uuid.description, sizeBytes: superblock.storeBytes,
            extentBytes: superblock.extentBytes, extentCount: UInt64(superblock.slotCount),
            shards: Int(superblock.streamCount))
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
