// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// What each block must hold: the generation last written, and whether a request for the block is
/// in flight (then no second one may start, because its outcome would be ambiguous).
///
/// One word a block: bit 31 busy, bits 0..30 the generation, 0 = not written by this run.
///
/// SAFETY: owns its storage; every index is checked.
package struct GenerationTable: ~Copyable {
    private let words: UnsafeMutablePointer<UInt32>
    package let count: Int
    private static var busyBit: UInt32 { 1 << 31 }

    package init(count: Int) throws(GuestError) {
        // calloc and not allocate: pages of blocks that are never touched cost nothing.
        guard let memory = calloc(max(1, count), MemoryLayout<UInt32>.stride) else {
            throw GuestError(
                .system, "no memory for the generations of \(count) blocks: use a smaller range")
        }
        words = memory.assumingMemoryBound(to: UInt32.self)
        self.count = count
    }

    deinit { free(words) }

    package subscript(block: UInt64) -> UInt32 {
        precondition(block < UInt64(count), "GenerationTable: no such block")
        return words[Int(block)] & ~Self.busyBit
    }

    package func isBusy(_ block: UInt64) -> Bool {
        precondition(block < UInt64(count), "GenerationTable: no such block")
        return words[Int(block)] & Self.busyBit != 0
    }

    /// Starts a request for a block; a write makes its next generation.
    package mutating func begin(_ block: UInt64, isWrite: Bool) {
        precondition(!isBusy(block), "GenerationTable: two requests for one block")
        let generation = words[Int(block)] &+ (isWrite ? 1 : 0)
        words[Int(block)] = generation | Self.busyBit
    }

    package mutating func end(_ block: UInt64) {
        precondition(isBusy(block), "GenerationTable: the end of no request")
        words[Int(block)] &= ~Self.busyBit
    }
}
