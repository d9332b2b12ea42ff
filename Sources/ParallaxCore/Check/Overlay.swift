// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A medium whose writes stay in memory, above another one that is only read: so a repair can be
/// made, looked at and checked before anything of it reaches the store.
///
/// Owned by one thread. Memory: what was written, in blocks.
package final class Overlay<Base: StoreMedium>: StoreMedium {
    let base: Base
    private(set) var blocks: [UInt64: [UInt8]] = [:]

    init(_ base: Base) { self.base = base }

    package var byteCount: UInt64 { base.byteCount }

    package func read(
        at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(MediumError) {
        let count = buffer.count / blockBytes
        let held = (0..<count).filter { blocks[offset + UInt64($0 * blockBytes)] != nil }
        // What is wholly in memory need not be readable below.
        if held.count < count { try base.read(at: offset, into: buffer) }
        for index in held {
            let place = index * blockBytes
            guard let content = blocks[offset + UInt64(place)] else { continue }
            UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + blockBytes])
                .copyBytes(from: content)
        }
    }

    package func readAll(_ commands: UnsafeBufferPointer<StoreCommand>) throws(MediumError) {
        let isBelow = commands.allSatisfy { command in
            (0..<command.byteCount / blockBytes).allSatisfy {
                blocks[command.offset + UInt64($0 * blockBytes)] == nil
            }
        }
        if isBelow { return try base.readAll(commands) }
        try readInTurn(commands)
    }

    package func write(
        at offset: UInt64, from buffer: UnsafeRawBufferPointer
    ) throws(MediumError) {
        for place in stride(from: 0, to: buffer.count, by: blockBytes) {
            blocks[offset + UInt64(place)] = Array(buffer[place..<place + blockBytes])
        }
    }

    package func sync() throws(MediumError) {}

    /// Writes a superblock once more as the store shows it, durably.
    func renewSuperblock(_ copy: Int) throws(StoreError) {
        let block = BlockBuffer()
        do throws(MediumError) {
            try base.read(at: Superblock.copyOffsets[copy], into: block.bytes)
            try base.write(
                at: Superblock.copyOffsets[copy], from: UnsafeRawBufferPointer(block.bytes))
        } catch { throw StoreError(error) }
        try syncBase()
    }

    /// Puts what was written into the store, in the order in which a daemon would: the superblocks with
    /// the new generation, `lastCopy` last, because it is good now; what lies in the extents; and when
    /// that is durable the roots of each shard, the older first. A crash in between leaves a store that
    /// is as it was, or as it is to be.
    func apply(lastCopy: Int) throws(StoreError) {
        for copy in [1 - lastCopy, lastCopy] {
            try put(Superblock.copyOffsets[copy])
            try syncBase()
        }
        let offsets = blocks.keys.sorted()
        for offset in offsets where offset >= Superblock.firstExtentOffset { try put(offset) }
        try syncBase()
        let roots = offsets.filter {
            $0 < Superblock.firstExtentOffset && !Superblock.copyOffsets.contains($0)
        }
        for parity in [0, 1] {
            for offset in roots where isNewer(offset) == (parity == 1) {
                try put(offset)
            }
            try syncBase()
        }
    }

    /// Whether the root is the newer one of its shard.
    private func isNewer(_ offset: UInt64) -> Bool {
        let first = offset / UInt64(2 * blockBytes) * UInt64(2 * blockBytes)
        let pair = [first, first + UInt64(blockBytes)]
        return pair.allSatisfy { sequence($0) <= sequence(offset) }
    }

    private func sequence(_ offset: UInt64) -> UInt64 {
        guard let content = blocks[offset] else { return 0 }
        return content.withUnsafeBytes {
            UInt64(
                littleEndian: $0.loadUnaligned(
                    fromByteOffset: CheckpointRoot.sequenceOffset, as: UInt64.self))
        }
    }

    private func put(_ offset: UInt64) throws(StoreError) {
        guard let content = blocks[offset] else { return }
        // Direct I/O wants memory that is aligned.
        let block = BlockBuffer()
        block.bytes.copyBytes(from: content)
        do throws(MediumError) {
            try base.write(at: offset, from: UnsafeRawBufferPointer(block.bytes))
        } catch {
            throw StoreError(error)
        }
    }

    private func syncBase() throws(StoreError) {
        do throws(MediumError) { try base.sync() } catch { throw StoreError(error) }
    }
}
