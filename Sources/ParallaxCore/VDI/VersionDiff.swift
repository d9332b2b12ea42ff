// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Asks how `new` differs from `old`, both of one stream, in `firstBlock..<endBlock`. The answer
/// may stop early; the asker goes on from `nextBlock`. Reads nodes, never data.
package struct DiffQuery: Equatable, Sendable {
    /// nil: against an empty disk.
    package var old: VersionReference?
    package var new: VersionReference
    package var firstBlock: UInt64
    package var endBlock: UInt64
    /// Instead of ranges: how the blocks lie in the store, of so many leaves at most.
    package var layoutOfLeaves: Int?

    package init(
        old: VersionReference?, new: VersionReference, firstBlock: UInt64 = 0,
        endBlock: UInt64 = .max
    ) {
        self.old = old
        self.new = new
        self.firstBlock = firstBlock
        self.endBlock = endBlock
    }
}

/// Neighbouring blocks that differ in the same way.
package struct DiffRange: Equatable, Sendable {
    package enum Kind: UInt8, Sendable {
        /// Written: the new version has other data, or the same again.
        case changed
        /// Data became zeros by a write of zeros.
        case zeroed
        /// Data became zeros by a discard, or by making the disk smaller.
        case discarded
    }

    package var firstBlock: UInt64
    package var blockCount: UInt64
    package var kind: Kind

    package init(firstBlock: UInt64, blockCount: UInt64, kind: Kind) {
        self.firstBlock = firstBlock
        self.blockCount = blockCount
        self.kind = kind
    }
}

package enum DiffError: Error, Equatable, Sendable {
    case noSuchVersion
    /// A node cannot be read, or fails its checksum.
    case ioError
}

/// How blocks of a disk lie in the store. A run is of blocks that follow each other in both.
package struct DiskLayout: Equatable, Sendable {
    package var blockCount: UInt64
    package var runCount: UInt64

    package init(blockCount: UInt64 = 0, runCount: UInt64 = 0) {
        self.blockCount = blockCount
        self.runCount = runCount
    }

    package static func += (left: inout DiskLayout, right: DiskLayout) {
        left.blockCount += right.blockCount
        left.runCount += right.runCount
    }
}

/// The answer to a `DiffQuery`: ranges in order, without overlap.
package struct DiffAnswer: Equatable, Sendable {
    package var ranges: [DiffRange]
    package var layout = DiskLayout()
    /// Where to go on; nil: the end of the query's range was reached.
    package var nextBlock: UInt64?
}

package struct DiffReply: Sendable {
    package var ticket: UInt64
    package var result: Result<DiffAnswer, DiffError>
}
