// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
package import ParallaxCore

/// One command on its way: how much is done and what is to be submitted next.
///
/// The kernel may transfer less than asked for. The caller's array of buffers is not ours to
/// change, so the rest of a buffer cut in the middle goes alone, and then the buffers behind it
/// go as a shorter array:
///
/// ```
///  buffers   |----0----|----1----|----2----|----3----|
///  done      =============^ bufferIndex 1, bufferOffset 40 %
///  next      first the rest of 1 alone, then [2, 3]
/// ```
///
/// SAFETY: `command.buffers` is valid until the completion, by the contract of `StoreCommand`.
package struct StoreTransfer: BitwiseCopyable {
    package var command: StoreCommand
    package var transferredBytes = 0
    package var bufferIndex = 0
    package var bufferOffset = 0
    package var fruitlessTries = 0

    package init(_ command: StoreCommand) {
        self.command = command
    }

    /// One submission: a single run of memory, or an array of them.
    package struct Piece: BitwiseCopyable {
        package var offset: UInt64
        package var base: UnsafeMutableRawPointer
        package var byteCount: Int
        /// More than one buffer, starting at this one.
        package var vector: UnsafePointer<DataSegment>
        package var vectorCount: Int
    }

    // LIMIT: the kernel's IOV_MAX, and its largest single transfer rounded down to 1 GiB.
    private static let vectorCountMax = 1024
    private static let pieceBytesMax = 1 << 30
    // LIMIT: how often the kernel may say "try again" in a row.
    private static let fruitlessTriesMax = 64

    /// What to submit now. Not for a sync.
    package var nextPiece: Piece {
        guard let buffers = command.buffers, bufferIndex < Int(command.bufferCount) else {
            preconditionFailure("StoreTransfer: a transfer without buffers")
        }
        let first = buffers + bufferIndex
        let isCut = bufferOffset > 0
        return Piece(
            offset: command.offset + UInt64(transferredBytes),
            base: first.pointee.base + bufferOffset,
            byteCount: min(first.pointee.count - bufferOffset, Self.pieceBytesMax),
            vector: first,
            vectorCount: isCut
                ? 1 : min(Int(command.bufferCount) - bufferIndex, Self.vectorCountMax))
    }

    /// Takes the kernel's answer to what was submitted last. Nil: submit `nextPiece`.
    package mutating func settle(result: Int) -> StoreCompletion? {
        if result == -Int(EINTR) || result == -Int(EAGAIN) {
            fruitlessTries += 1
            return fruitlessTries <= Self.fruitlessTriesMax ? nil : completion(result)
        }
        if result < 0 || command.operation == .sync { return completion(result) }
        if result == 0 && command.byteCount > 0 { return completion(stalledResult) }
        fruitlessTries = 0
        advance(by: result)
        if transferredBytes == command.byteCount { return completion(transferredBytes) }
        // Direct I/O cannot go on from the middle of a sector: this is the end of a file.
        return transferredBytes % sectorBytes == 0 ? nil : completion(stalledResult)
    }

    private var stalledResult: Int {
        command.operation == .read ? -Int(ENODATA) : -Int(EIO)
    }

    private func completion(_ result: Int) -> StoreCompletion {
        StoreCompletion(tag: command.tag, result: result)
    }

    private mutating func advance(by byteCount: Int) {
        transferredBytes += byteCount
        precondition(
            transferredBytes <= command.byteCount, "StoreTransfer: more bytes than the command has")
        guard let buffers = command.buffers else { return }
        bufferOffset += byteCount
        while bufferIndex < Int(command.bufferCount),
            bufferOffset >= buffers[bufferIndex].count
        {
            bufferOffset -= buffers[bufferIndex].count
            bufferIndex += 1
        }
    }
}
