// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Up to a leaf's worth of blocks that were read together, and which of them are as they should be.
struct BlockFetch: ~Copyable {
    fileprivate let buffer: BlockBuffer
    /// For each reference its block in the buffer, or -1: it cannot be read, or fails its checksum.
    fileprivate let positions: [Int]

    func isGood(_ index: Int) -> Bool { positions[index] >= 0 }

    /// The block as a radix node's entries; nil: it is not good.
    func entries(_ index: Int) -> [BlockReference]? {
        guard positions[index] >= 0 else { return nil }
        return Engine.entries(at: buffer.base + positions[index] * blockBytes)
    }
}

extension Engine {
    /// Reads blocks in the order of their places, neighbours in one piece, and verifies them. All must
    /// be in the store.
    func fetch(_ references: [BlockReference], medium: some StoreMedium) -> BlockFetch {
        let places = references.map { forest.place(of: $0.address) }
        let offsets = places.map { offset(of: $0) }
        let order = references.indices.sorted { offsets[$0] < offsets[$1] }
        let buffer = BlockBuffer(blocks: max(1, references.count))
        let isWhole = Self.readAll(order.map { offsets[$0] }, into: buffer.base, medium: medium)
        var positions = Array(repeating: -1, count: references.count)
        for (position, index) in order.enumerated() {
            let content = buffer.base + position * blockBytes
            let isRead = isWhole || Self.read(offsets[index], into: content, medium: medium)
            if isRead, Checksum.ofBlock(content) == references[index].checksum {
                positions[index] = position
            }
        }
        return BlockFetch(buffer: buffer, positions: positions)
    }

    /// Reads the blocks at ascending offsets one behind the other into memory. False: not all could be.
    private static func readAll(
        _ offsets: [UInt64], into base: UnsafeMutableRawPointer, medium: some StoreMedium
    ) -> Bool {
        let segments = UnsafeMutablePointer<DataSegment>.allocate(capacity: max(1, offsets.count))
        defer { segments.deallocate() }
        var commands: [StoreCommand] = []
        for (position, offset) in offsets.enumerated() {
            let last = commands.count - 1
            if last >= 0, commands[last].offset + UInt64(commands[last].byteCount) == offset {
                segments[last].count += blockBytes
                commands[last].byteCount += blockBytes
                continue
            }
            (segments + commands.count).initialize(
                to: DataSegment(base: base + position * blockBytes, count: blockBytes))
            commands.append(
                StoreCommand(
                    operation: .read, tag: UInt64(position), offset: offset, byteCount: blockBytes,
                    buffers: UnsafePointer(segments + commands.count), bufferCount: 1))
        }
        return commands.withUnsafeBufferPointer { buffer in
            do throws(MediumError) {
                try medium.readAll(buffer)
                return true
            } catch {
                return false
            }
        }
    }

    private func offset(of place: BlockAddress) -> UInt64 {
        guard let slot = forest.extents.slot(of: place.extent) else { return 0 }
        return superblock.byteOffset(slot: slot, block: place.block)
    }

    /// One block alone. False: it cannot be read.
    private static func read(
        _ offset: UInt64, into target: UnsafeMutableRawPointer, medium: some StoreMedium
    ) -> Bool {
        do throws(MediumError) {
            try medium.read(
                at: offset, into: UnsafeMutableRawBufferPointer(start: target, count: blockBytes))
            return true
        } catch {
            return false
        }
    }

    /// A copy of a node's entries; nil: it cannot be read, or makes no sense.
    func entries(
        of reference: BlockReference, medium: some StoreMedium
    ) -> [BlockReference]? {
        if reference.address.isResident {
            return Self.entries(at: forest.cache.content(reference.address.residentFrame))
        }
        if let frame = forest.cache.find(reference.address),
            forest.cache.frames[frame].state != .loading
        {
            return Self.entries(at: forest.cache.content(frame))
        }
        guard isInStore(forest.place(of: reference.address)) else { return nil }
        return fetch([reference], medium: medium).entries(0)
    }
}
