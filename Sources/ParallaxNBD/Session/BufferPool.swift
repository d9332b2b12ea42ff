// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
import ParallaxCore

/// The data memory of one connection: a fixed number of page-aligned pieces of two sizes, and a
/// stretch of zeroes.
///
/// ```
///  0                2 MiB                                  8 MiB      8 MiB + 256 KiB
///  +----+----+- -+--+---------+---------+- - - -+---------+----------+
///  | 16 KiB x 128   |     256 KiB x 24                     | zeroes   |
///  +----+----+- -+--+---------+---------+- - - -+---------+----------+
///   0    1     127    128       129               151       read-only
/// ```
///
/// Untouched pages cost nothing, and the zeroes all are the kernel's one zero page.
///
/// SAFETY: one mapping, unmapped in `deinit`; the connection lives until no request refers to it.
struct BufferPool: ~Copyable {
    private static var smallBytes: Int { NBDLimits.smallPieces * NBDLimits.smallPieceBytes }
    private static var pieceBytes: Int {
        smallBytes + NBDLimits.largePieces * NBDLimits.largePieceBytes
    }
    private static var mappedBytes: Int { pieceBytes + NBDLimits.largePieceBytes }

    private let base: UnsafeMutableRawPointer
    private var freeSmall: SlotStack
    private var freeLarge: SlotStack

    init() throws(NBDError) {
        base = try Self.map()
        freeSmall = SlotStack(capacity: NBDLimits.smallPieces)
        freeLarge = SlotStack(capacity: NBDLimits.largePieces, base: NBDLimits.smallPieces)
    }

    deinit { munmap(base, Self.mappedBytes) }

    private static func map() throws(NBDError) -> UnsafeMutableRawPointer {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard
            let mapping = mmap(nil, mappedBytes, PROT_READ | PROT_WRITE, flags, -1, 0),
            mapping != MAP_FAILED
        else { throw .system(action: "map", object: "NBD buffers", errno: errno) }
        guard mprotect(mapping + pieceBytes, NBDLimits.largePieceBytes, PROT_READ) == 0 else {
            let code = errno
            munmap(mapping, mappedBytes)
            throw .system(action: "protect", object: "NBD buffers", errno: code)
        }
        return mapping
    }

    /// `NBDLimits.largePieceBytes` bytes that are never written.
    var zeroes: UnsafeMutableRawPointer { base + Self.pieceBytes }

    var isUnused: Bool {
        freeSmall.count == NBDLimits.smallPieces && freeLarge.count == NBDLimits.largePieces
    }

    func address(of piece: Int32) -> UnsafeMutableRawPointer {
        let index = Int(piece)
        precondition(
            index >= 0 && index < NBDLimits.smallPieces + NBDLimits.largePieces,
            "BufferPool: no such piece")
        guard index >= NBDLimits.smallPieces else {
            return base + index * NBDLimits.smallPieceBytes
        }
        return base + Self.smallBytes
            + (index - NBDLimits.smallPieces) * NBDLimits.largePieceBytes
    }

    /// A piece of at least `byteCount` bytes, of which `keepingLarge` large ones must stay free.
    mutating func take(byteCount: Int, keepingLarge: Int) -> Int32? {
        precondition(byteCount <= NBDLimits.largePieceBytes, "BufferPool: no piece is that large")
        if byteCount <= NBDLimits.smallPieceBytes, let piece = freeSmall.pop() { return piece }
        return freeLarge.count > keepingLarge ? freeLarge.pop() : nil
    }

    mutating func giveBack(_ piece: Int32) {
        if piece < NBDLimits.smallPieces { freeSmall.push(piece) } else { freeLarge.push(piece) }
    }
}
