// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxCore
import ParallaxIO

/// A store to be made, offline.
struct FormatPlan {
    /// One shard a core up to here; more logs than this only divide the space.
    static let maximumDefaultShards = 8

    var path: String
    /// Nil: the whole of a block device, or the size of the file that is overwritten.
    var sizeBytes: UInt64?
    /// Nil: as `defaultExtentBytes` has it.
    var extentBytes: UInt64?
    /// Nil: as many as the cores and the size allow.
    var shards: Int?
    var mayOverwrite: Bool
    /// Write the whole of a file once, now, instead of each extent before its first use.
    var preallocates = false

    func run() throws(ControlError) -> FormattedStore {
        let existed = access(path, F_OK) == 0
        // Before anything is made, cut off or written: what was there may be somebody's store.
        if let size = sizeBytes ?? fileSize { try checkLayout(options(sizeBytes: size)) }
        let file = try create(existed: existed)
        do throws(ControlError) {
            if file.isBlockDevice, !mayOverwrite { try requireBlank(file) }
            return try format(file)
        } catch {
            // Half a store is worse than none; what was there before us stays.
            if !existed { unlink(path) }
            throw error
        }
    }

    /// Of a file that is there already; nil for a block device, or nothing.
    private var fileSize: UInt64? {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        return UInt64(clamping: status.st_size)
    }

    private func checkLayout(_ options: FormatOptions) throws(ControlError) {
        do throws(StoreError) {
            _ = try Store.layout(options, mediumBytes: options.sizeBytes)
        } catch {
            throw cannotMake(error)
        }
    }

    private func cannotMake(_ error: StoreError) -> ControlError {
        let kind: ControlError.Kind = error.kind == .invalidOptions ? .invalid : .ioError
        return ControlError(kind, "cannot make the store \(path): \(error.message)")
    }

    private func create(existed: Bool) throws(ControlError) -> StoreFile {
        guard existed || sizeBytes != nil else {
            throw ControlError(
                .invalid, "there is no \(path) yet; to make it, give its size with --size")
        }
        do throws(StoreFileError) {
            return try StoreFile.create(
                path: path, byteCount: sizeBytes, replacesExisting: mayOverwrite)
        } catch {
            if error.reason == .alreadyExists {
                throw ControlError(
                    .invalid,
                    "\(path) exists already; use another path, or --force to lose all that is in it"
                )
            }
            throw ControlError(.ioError, error.description)
        }
    }

    /// A device that holds a store, or a file system, is not overwritten by a slip of the hand.
    private func requireBlank(_ file: StoreFile) throws(ControlError) {
        let probeBytes = Int(min(file.byteCount, 1 << 20)) & ~4095
        do {
            let memory = try AlignedMemory(byteCount: probeBytes)
            let probe = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<probeBytes])
            try file.read(at: 0, into: probe)
            guard probe.contains(where: { $0 != 0 }) else { return }
        } catch {
            throw ControlError(.ioError, "cannot read \(path): \(error)")
        }
        let isStore = (try? Store.inspect(medium: file)) != nil
        throw ControlError(
            .invalid,
            "\(path) is not blank\(isStore ? " but holds a Parallax store" : ""); "
                + "use another device, or --force to lose all that is on it")
    }

    /// Prepares the first extents, as the daemon will do with the others. The logs begin there.
    private func prepare(
        _ file: StoreFile, extents: UInt64, of extentBytes: UInt64
    ) throws(ControlError) {
        guard !file.isBlockDevice, file.byteCount > Superblock.firstExtentOffset else { return }
        let bytes = min(
            extents * extentBytes, file.byteCount - Superblock.firstExtentOffset)
        let isShown = preallocates && isatty(STDERR_FILENO) == 1
        do {
            let zeroes = try AlignedMemory(byteCount: 1 << 20)
            try file.prepare(
                from: Superblock.firstExtentOffset, byteCount: bytes,
                zeroes: UnsafeRawBufferPointer(zeroes.bytes)
            ) { done in
                if isShown && done % (256 << 20) == 0 {
                    Self.show("\rpreallocating: \(done * 100 / bytes) %")
                }
                return true
            }
            if isShown { Self.show("\r\u{1B}[K") }
        } catch {
            let isFull = (error as? MediumError)?.errno == ENOSPC
            let reason =
                isFull ? "its file system is full; free some space first" : "\(error)"
            throw ControlError(.ioError, "cannot allocate \(path): \(reason)")
        }
    }

    private static func show(_ text: String) {
        let bytes = Array(text.utf8)
        _ = write(STDERR_FILENO, bytes, bytes.count)
    }

    private func options(sizeBytes: UInt64, isBlockDevice: Bool = false) -> FormatOptions {
        let extentBytes = extentBytes ?? Self.defaultExtentBytes(sizeBytes: sizeBytes)
        return FormatOptions(
            sizeBytes: sizeBytes, extentBytes: extentBytes,
            streamCount: shards
                ?? Self.defaultShards(sizeBytes: sizeBytes, extentBytes: extentBytes),
            uuid: Self.randomUUID(), createdAtNanoseconds: Self.nowNanoseconds(),
            isPreallocated: preallocates && !isBlockDevice)
    }

    private func format(_ file: StoreFile) throws(ControlError) -> FormattedStore {
        let options = options(
            sizeBytes: sizeBytes ?? file.byteCount, isBlockDevice: file.isBlockDevice)
        try checkLayout(options)
        let extents = options.sizeBytes / options.extentBytes
        try prepare(
            file, extents: preallocates ? extents : UInt64(options.streamCount),
            of: options.extentBytes)
        do throws(StoreError) {
            try Store.format(medium: file, options: options)
            let superblock = try Store.inspect(medium: file).superblock
            return FormattedStore(path: path, superblock: superblock)
        } catch {
            throw cannotMake(error)
        }
    }

    /// 64 MiB, less in a store of which that would be more than a 1024th: what a shard holds in
    /// advance and what the cleaner needs is counted in extents.
    static func defaultExtentBytes(sizeBytes: UInt64) -> UInt64 {
        var extentBytes: UInt64 = 64 << 20
        while extentBytes > 4 << 20, sizeBytes / extentBytes < 1024 { extentBytes /= 2 }
        return extentBytes
    }

    /// As many shards as cores, but never so many that the store is too small for them.
    static func defaultShards(sizeBytes: UInt64, extentBytes: UInt64) -> Int {
        let cores = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        guard extentBytes > 0, sizeBytes > Superblock.firstExtentOffset else { return 1 }
        let extents = (sizeBytes - Superblock.firstExtentOffset) / extentBytes
        let room = Int(clamping: extents) / Limits.extentsPerStream
        return max(1, min(cores, maximumDefaultShards, room))
    }

    /// Version 4, variant 1 (RFC 9562).
    private static func randomUUID() -> StoreUUID {
        let high = UInt64.random(in: .min ... .max) & ~0xF000 | 0x4000
        let low = UInt64.random(in: .min ... .max) & ~(3 << 62) | 2 << 62
        return StoreUUID(high: high, low: low)
    }

    private static func nowNanoseconds() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(max(0, now.tv_sec)) * 1_000_000_000 + UInt64(now.tv_nsec)
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

    init(path: String, superblock: Superblock) {
        self.path = path
        uuid = superblock.uuid.description
        sizeBytes = superblock.storeBytes
        extentBytes = superblock.extentBytes
        extentCount = UInt64(superblock.slotCount)
        shards = Int(superblock.streamCount)
    }

    enum CodingKeys: String, CodingKey {
        case path
        case uuid
        case sizeBytes = "size_bytes"
        case extentBytes = "extent_bytes"
        case extentCount = "extent_count"
        case shards
    }
}
