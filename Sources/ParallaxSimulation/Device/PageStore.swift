// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// A sparse array of bytes, in pages of 4 KiB; what was never written reads as zeros.
///
/// Owned by one thread. A store of many GiB costs only the pages that were touched.
///
/// SAFETY: owns its pages; every access is cut to one page before it is made.
package final class PageStore {
    /// Pages by number, in tables of `tablePages` each; a dictionary would be most of the work.
    private var tables: [[UnsafeMutableRawPointer?]] = []
    private static let tablePages = 512
    /// In the order of their first write, so that a random choice among them replays.
    package private(set) var pageNumbers: [UInt64] = []

    package init() {}

    deinit {
        for number in pageNumbers { page(number)?.deallocate() }
    }

    private func page(_ number: UInt64) -> UnsafeMutableRawPointer? {
        let table = Int(number / UInt64(Self.tablePages))
        guard table < tables.count, !tables[table].isEmpty else { return nil }
        return tables[table][Int(number % UInt64(Self.tablePages))]
    }

    package func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) {
        forEachPage(offset, target.count) { page, start, range in
            let piece = UnsafeMutableRawBufferPointer(rebasing: target[range])
            guard let source = self.page(page) else {
                if let base = piece.baseAddress { memset(base, 0, piece.count) }
                return
            }
            piece.copyMemory(
                from: UnsafeRawBufferPointer(start: source + start, count: piece.count))
        }
    }

    package func write(at offset: UInt64, from source: UnsafeRawBufferPointer) {
        forEachPage(offset, source.count) { page, start, range in
            let piece = UnsafeRawBufferPointer(rebasing: source[range])
            let target = makePage(page) + start
            UnsafeMutableRawBufferPointer(start: target, count: piece.count).copyMemory(from: piece)
        }
    }

    /// Inverts one bit.
    package func flip(bit: Int, at offset: UInt64) {
        let page = makePage(offset / UInt64(blockBytes))
        let byte = page + Int(offset % UInt64(blockBytes))
        byte.storeBytes(of: byte.load(as: UInt8.self) ^ UInt8(1 << (bit & 7)), as: UInt8.self)
    }

    package func copy() -> PageStore {
        let other = PageStore()
        for number in pageNumbers {
            guard let page = page(number) else { continue }
            other.write(
                at: number * UInt64(blockBytes),
                from: UnsafeRawBufferPointer(start: page, count: blockBytes))
        }
        return other
    }

    /// Makes the pages of these numbers the same as those of `other`.
    package func copy(_ numbers: [UInt64], from other: PageStore) {
        for number in numbers {
            if let source = other.page(number) {
                makePage(number).copyMemory(from: source, byteCount: blockBytes)
            } else if let target = page(number) {
                memset(target, 0, blockBytes)
            }
        }
    }

    private func makePage(_ number: UInt64) -> UnsafeMutableRawPointer {
        if let page = page(number) { return page }
        let page = UnsafeMutableRawPointer.allocate(byteCount: blockBytes, alignment: blockBytes)
        memset(page, 0, blockBytes)
        let table = Int(number / UInt64(Self.tablePages))
        while tables.count <= table { tables.append([]) }
        if tables[table].isEmpty {
            tables[table] = Array(repeating: nil, count: Self.tablePages)
        }
        tables[table][Int(number % UInt64(Self.tablePages))] = page
        pageNumbers.append(number)
        return page
    }

    /// Calls `body` with each page number, the offset in that page, and the piece of the buffer.
    private func forEachPage(
        _ offset: UInt64, _ count: Int, _ body: (UInt64, Int, Range<Int>) -> Void
    ) {
        var done = 0
        while done < count {
            let position = offset + UInt64(done)
            let start = Int(position % UInt64(blockBytes))
            let length = min(blockBytes - start, count - done)
            body(position / UInt64(blockBytes), start, done..<(done + length))
            done += length
        }
    }
}
