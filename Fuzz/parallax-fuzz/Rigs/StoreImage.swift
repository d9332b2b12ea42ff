// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

@testable import ParallaxCore

/// A small store in memory: blocks that many images share, and those that this one has changed.
///
/// Owned by one thread.
final class StoreImage: StoreMedium {
    typealias Blocks = [Int: [UInt8]]

    let byteCount: UInt64
    private let base: Blocks
    private(set) var changes: Blocks = [:]

    init(byteCount: UInt64, base: Blocks = [:]) {
        self.byteCount = byteCount
        self.base = base
    }

    /// Everything in it.
    var blocks: Blocks { base.merging(changes) { $1 } }

    subscript(block: Int) -> [UInt8] {
        get { changes[block] ?? base[block] ?? [UInt8](repeating: 0, count: blockBytes) }
        set { changes[block] = newValue }
    }

    // MARK: The medium

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(MediumError) {
        try check(.read, offset, buffer.count)
        for (index, block) in blocks(of: offset, buffer.count).enumerated() {
            let place = index * blockBytes..<(index + 1) * blockBytes
            UnsafeMutableRawBufferPointer(rebasing: buffer[place]).copyBytes(from: self[block])
        }
    }

    func readAll(_ commands: UnsafeBufferPointer<StoreCommand>) throws(MediumError) {
        for command in commands { try perform(command) }
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(MediumError) {
        try check(.write, offset, buffer.count)
        for (index, block) in blocks(of: offset, buffer.count).enumerated() {
            self[block] = [UInt8](buffer[index * blockBytes..<(index + 1) * blockBytes])
        }
    }

    func sync() throws(MediumError) {}

    /// What an engine asks of its device, at once.
    func perform(_ command: StoreCommand) throws(MediumError) {
        var offset = command.offset
        for index in 0..<Int(command.bufferCount) {
            guard let segment = command.buffers?[index] else { return }
            let bytes = UnsafeMutableRawBufferPointer(start: segment.base, count: segment.count)
            if command.operation == .read {
                try read(at: offset, into: bytes)
            } else {
                try write(at: offset, from: UnsafeRawBufferPointer(bytes))
            }
            offset += UInt64(segment.count)
        }
    }

    private func blocks(of offset: UInt64, _ count: Int) -> Range<Int> {
        let first = Int(offset) / blockBytes
        return first..<first + count / blockBytes
    }

    /// No content of a store may lead the engine out of it.
    private func check(
        _ operation: StoreCommand.Operation, _ offset: UInt64, _ count: Int
    ) throws(MediumError) {
        let (end, overflow) = offset.addingReportingOverflow(UInt64(count))
        precondition(!overflow && end <= byteCount, "an access outside the store")
        precondition(
            offset % UInt64(blockBytes) == 0 && count % blockBytes == 0, "an access of half a block"
        )
    }
}

/// Which blocks of an image name which others by their checksums, so that a change of one can be
/// made to look right in all that lead to it.
struct ChecksumLinks {
    private struct Link {
        var block: Int
        var offset: Int
    }

    /// By block: where its checksum stands.
    private var links: [Int: [Link]] = [:]
    /// Blocks without guests' data, by what kind of thing is in them.
    private(set) var fixed: [Int] = []
    private(set) var chunkHeaders: [Int] = []
    private(set) var others: [Int] = []

    /// `isData` tells blocks that hold what a guest wrote.
    init(_ blocks: StoreImage.Blocks, isData: ([UInt8]) -> Bool) {
        var owners: [UInt32: [Int]] = [:]
        // Which lower halves of checksums there are: most bytes of a block are none.
        let halves = UnsafeMutablePointer<UInt8>.allocate(capacity: 1 << 16)
        halves.initialize(repeating: 0, count: 1 << 16)
        defer { halves.deallocate() }
        for (number, block) in blocks where !isData(block) {
            let checksum = block.withUnsafeBytes { Checksum.crc32c($0) }
            owners[checksum, default: []].append(number)
            halves[Int(checksum & 0xffff)] = 1
        }
        for number in blocks.keys.sorted() {
            guard let block = blocks[number], !isData(block) else { continue }
            classify(number, block)
            block.withUnsafeBufferPointer { bytes in
                guard let base = bytes.baseAddress else { return }
                var offset = 0
                while offset < blockBytes - 3 {
                    let half = Int(base[offset]) | Int(base[offset + 1]) << 8
                    if halves[half] != 0 {
                        let other = UInt32(base[offset + 2]) << 16 | UInt32(base[offset + 3]) << 24
                        for owner in owners[UInt32(half) | other] ?? [] where owner != number {
                            links[owner, default: []].append(Link(block: number, offset: offset))
                        }
                    }
                    offset += 1
                }
            }
        }
    }

    private mutating func classify(_ number: Int, _ block: [UInt8]) {
        if UInt64(number * blockBytes) < Superblock.firstExtentOffset {
            fixed.append(number)
        } else if block.starts(with: Array("PLXCHUNK".utf8)) {
            chunkHeaders.append(number)
        } else if block.contains(where: { $0 != 0 }) {
            others.append(number)
        }
    }

    /// Puts the checksums of changed blocks right, and those of all blocks that name them.
    func repair(_ image: StoreImage, _ changed: Set<Int>) {
        var waiting = Array(changed)
        // A block is named by blocks that were written later, so there is no circle; the bound is for
        // what only looks like a checksum.
        var steps = 0
        while let number = waiting.popLast(), steps < 400 {
            steps += 1
            sealItself(image, number)
            let checksum = image[number].withUnsafeBytes { Checksum.crc32c($0) }
            for link in links[number] ?? [] {
                withUnsafeBytes(of: checksum.littleEndian) { bytes in
                    image[link.block].replaceSubrange(link.offset..<link.offset + 4, with: bytes)
                }
                waiting.append(link.block)
            }
        }
    }

    /// The checksums of superblocks, roots and chunk headers stand in them.
    private func sealItself(_ image: StoreImage, _ number: Int) {
        let offset = chunkHeaders.contains(number) ? 92 : blockBytes - 4
        guard offset == 92 || fixed.contains(number) else { return }
        var block = image[number]
        block.replaceSubrange(offset..<offset + 4, with: [0, 0, 0, 0])
        let covered = offset == 92 ? block[...] : block[..<offset]
        let checksum = Array(covered).withUnsafeBytes { Checksum.crc32c($0) }
        withUnsafeBytes(of: checksum.littleEndian) {
            block.replaceSubrange(offset..<offset + 4, with: $0)
        }
        image[number] = block
    }
}
