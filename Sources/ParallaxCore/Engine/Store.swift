// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What to make a store of.
package struct FormatOptions: Sendable {
    /// Bytes to use; at most the medium's size.
    package var sizeBytes: UInt64
    /// A power of two within `Limits.extentBytes`.
    package var extentBytes: UInt64
    package var streamCount: Int
    /// Random.
    package var uuid: StoreUUID
    package var createdAtNanoseconds: UInt64
    /// The medium's space is allocated, and free extents keep theirs.
    package var isPreallocated: Bool

    package init(
        sizeBytes: UInt64, extentBytes: UInt64 = 64 << 20, streamCount: Int = 1, uuid: StoreUUID,
        createdAtNanoseconds: UInt64, isPreallocated: Bool = false
    ) {
        self.sizeBytes = sizeBytes
        self.extentBytes = extentBytes
        self.streamCount = streamCount
        self.uuid = uuid
        self.createdAtNanoseconds = createdAtNanoseconds
        self.isPreallocated = isPreallocated
    }
}

/// A store whose superblock has been read.
package struct OpenedStore: Sendable {
    package var superblock: Superblock
    /// What an administrator should know: a repaired superblock copy, for instance.
    package var notices: [String]
    /// The copy that the superblock was read from.
    var newestCopy: Int
}

/// Formatting, and the first step of opening.
package enum Store {
    /// Makes an empty store. Whatever was on the medium is lost.
    package static func format(medium: some StoreMedium, options: FormatOptions)
        throws(StoreError)
    {
        let superblock = try layout(options, mediumBytes: medium.byteCount)
        let block = BlockBuffer()
        // The superblocks come last: a format that is cut off leaves no store rather than half.
        block.zero()
        for offset in Superblock.copyOffsets { try write(block, at: offset, to: medium) }
        try sync(medium)
        for stream in 0..<options.streamCount {
            CheckpointRoot(
                uuid: options.uuid, stream: stream, sequence: 0, generation: 1,
                replayLSN: LogSequenceNumber(1), replayExtent: ExtentNumber(1), replayBlock: 0,
                nodeFrames: 0, nextExtent: ExtentNumber(2), nextVDI: 1,
                nextSnapshot: 1
            ).encode(to: block.base)
            for offset in Superblock.checkpointRootOffsets(stream: stream, copy: 0) {
                try write(block, at: offset, to: medium)
            }
            block.zero()
            for offset in Superblock.checkpointRootOffsets(stream: stream, copy: 1) {
                try write(block, at: offset, to: medium)
            }
        }
        try sync(medium)
        try writeSuperblock(superblock, to: medium)
    }

    /// What the superblock of a store made with these options says. Throws `.invalidOptions` where
    /// there can be no such store.
    package static func layout(
        _ options: FormatOptions, mediumBytes: UInt64
    ) throws(StoreError) -> Superblock {
        guard Limits.extentBytes.contains(options.extentBytes),
            options.extentBytes.nonzeroBitCount == 1
        else {
            throw StoreError(
                .invalidOptions,
                "An extent size of \(options.extentBytes) bytes is not possible; "
                    + "use a power of two from 1M to 1G.")
        }
        guard Limits.streams.contains(options.streamCount) else {
            throw StoreError(
                .invalidOptions,
                "\(options.streamCount) shards are not possible; use 1 to "
                    + "\(Limits.streams.upperBound).")
        }
        let size = min(options.sizeBytes, mediumBytes)
        let slots =
            size < Superblock.firstExtentOffset
            ? 0 : (size - Superblock.firstExtentOffset) / options.extentBytes
        let needed = UInt64(options.streamCount * Limits.extentsPerStream)
        guard slots >= needed else {
            let bytes = Superblock.firstExtentOffset + needed * options.extentBytes
            throw StoreError(
                .invalidOptions,
                "A store of \(size) bytes is too small for \(options.streamCount) shards and "
                    + "extents of \(options.extentBytes >> 20)M; it needs at least "
                    + "\((bytes + (1 << 20) - 1) >> 20)M, or smaller extents.")
        }
        guard slots <= UInt64(UInt32.max) else {
            throw StoreError(
                .invalidOptions, "The store has too many extents; use a larger extent size.")
        }
        return Superblock(
            compatibleFeatures: options.isPreallocated ? Superblock.preallocatedFeature : 0,
            uuid: options.uuid, storeBytes: size, extentBytes: options.extentBytes,
            slotCount: UInt32(slots), streamCount: UInt32(options.streamCount), generation: 1,
            createdAtNanoseconds: options.createdAtNanoseconds)
    }

    /// Reads the superblock, repairs a damaged copy from the other, and makes this opening's
    /// generation durable. After this an older opening's unfinished chunks are never believed.
    package static func open(medium: some StoreMedium) throws(StoreError) -> OpenedStore {
        var opened = try inspect(medium: medium)
        // The copy that is believed now is the only one that need be good: it is written last, and
        // before the other, as it is, since only the host's cache may have it from a process that
        // died.
        try writeCopy(opened.newestCopy, of: opened.superblock, to: medium)
        opened.superblock.generation += 1
        try writeSuperblock(opened.superblock, to: medium, last: opened.newestCopy)
        return opened
    }

    /// Reads the superblock and changes nothing.
    package static func inspect(medium: some StoreMedium) throws(StoreError) -> OpenedStore {
        guard medium.byteCount > Superblock.firstExtentOffset else {
            throw StoreError(
                .notAStore,
                "This is no Parallax store: it is only \(medium.byteCount) bytes long; "
                    + "make one with `parallax-ctl store init`.")
        }
        var valid: [(superblock: Superblock, copy: Int)] = []
        var faults: [(copy: Int, fault: Superblock.Fault)] = []
        let block = BlockBuffer()
        for (copy, offset) in Superblock.copyOffsets.enumerated() {
            do throws(MediumError) {
                try medium.read(at: offset, into: block.bytes)
            } catch {
                if error.errno != 5 { throw StoreError(error) }
                faults.append((copy, .badChecksum))
                continue
            }
            do throws(Superblock.Fault) {
                valid.append((try Superblock.decode(from: block.base), copy))
            } catch {
                faults.append((copy, error))
            }
        }
        guard
            // A growth that was cut off between its two writes has left copies of one generation.
            let (newest, newestCopy) = valid.max(by: {
                ($0.superblock.generation, $0.superblock.storeBytes)
                    < ($1.superblock.generation, $1.superblock.storeBytes)
            })
        else { throw unusable(faults.map(\.fault)) }
        for case .otherVersion in faults.map(\.fault) { throw unusable(faults.map(\.fault)) }
        let used = Superblock.firstExtentOffset + UInt64(newest.slotCount) * newest.extentBytes
        guard medium.byteCount >= used else {
            throw StoreError(
                .truncated,
                "The store is cut off: it needs \(used) bytes and only \(medium.byteCount) are "
                    + "there; restore the file or device to its full size.")
        }
        let notices = faults.map { fault in
            "Superblock copy \(fault.copy) was damaged and is repaired from copy \(1 - fault.copy)."
        }
        return OpenedStore(superblock: newest, notices: notices, newestCopy: newestCopy)
    }

    private static func unusable(_ faults: [Superblock.Fault]) -> StoreError {
        for case .otherVersion(let version) in faults {
            let advice =
                version > Superblock.currentVersion
                ? "use a newer program" : "copy its disks out with the program that made it"
            return StoreError(
                .unsupportedVersion,
                "The store has format version \(version), this program knows version "
                    + "\(Superblock.currentVersion); \(advice).")
        }
        for case .unknownFeatures(let bits) in faults {
            return StoreError(
                .unsupportedVersion,
                "The store uses features that this program does not know (bits "
                    + "0x\(String(bits, radix: 16))); use a newer program.")
        }
        if faults.allSatisfy({ $0 == .notAStore }) {
            return StoreError(
                .notAStore,
                "This is no Parallax store; make one with `parallax-ctl store init`.")
        }
        return StoreError(
            .damaged,
            "Both copies of the store's superblock are damaged; restore the store from a backup.")
    }

    static func writeSuperblock(
        _ superblock: Superblock, to medium: some StoreMedium, last: Int = 1
    ) throws(StoreError) {
        // One after the other, so that a crash spoils at most one of them.
        for copy in [1 - last, last] { try writeCopy(copy, of: superblock, to: medium) }
    }

    private static func writeCopy(
        _ copy: Int, of superblock: Superblock, to medium: some StoreMedium
    ) throws(StoreError) {
        let block = BlockBuffer()
        superblock.encode(to: block.base)
        try write(block, at: Superblock.copyOffsets[copy], to: medium)
        try sync(medium)
    }

    private static func write(
        _ block: borrowing BlockBuffer, at offset: UInt64, to medium: some StoreMedium
    ) throws(StoreError) {
        do throws(MediumError) {
            try medium.write(at: offset, from: UnsafeRawBufferPointer(block.bytes))
        } catch {
            throw StoreError(error)
        }
    }

    private static func sync(_ medium: some StoreMedium) throws(StoreError) {
        do throws(MediumError) { try medium.sync() } catch { throw StoreError(error) }
    }
}

/// One page-aligned block of memory.
///
/// SAFETY: owns the block; `base` must not outlive it.
struct BlockBuffer: ~Copyable {
    let base: UnsafeMutableRawPointer

    init(blocks: Int = 1) {
        base = Memory.allocatePages(byteCount: blocks * blockBytes)
        count = blocks * blockBytes
        Memory.zero(base, count: count)
    }

    let count: Int

    deinit { base.deallocate() }

    var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base, count: count)
    }

    borrowing func zero() { Memory.zero(base, count: count) }
}
