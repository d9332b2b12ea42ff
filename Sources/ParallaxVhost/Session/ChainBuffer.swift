// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import ParallaxCore

/// The descriptors of one request as pieces in our address space; reused for each request.
///
/// ```
///   pieces:  | readable ...          | writable ...            |
///            0           readableEnd                  pieceCount
///              header first            status byte last
/// ```
///
/// SAFETY: owns `pieces`; counts never exceed its capacity (checked in `append`).
struct ChainBuffer: ~Copyable {
    private let pieces: UnsafeMutablePointer<DataSegment>
    private var pieceCount = 0
    private var readableStart = 0
    private var readableEnd = 0
    private(set) var readableBytes: UInt64 = 0
    private(set) var writableBytes: UInt64 = 0
    /// Some bytes are outside guest memory.
    private(set) var hasUnmapped = false
    private var endsUnmapped = false

    init() { pieces = .allocate(capacity: VhostLimits.chainPiecesMax) }

    deinit { pieces.deallocate() }

    /// Follows the chain at `head`, reading each descriptor once.
    mutating func gather(
        _ ring: SplitRing, head: UInt16, isIndirectAllowed: Bool, memory: inout GuestMemory
    ) throws(RingFault) {
        reset()
        var walk = ChainWalk(queueSize: ring.size, isIndirectAllowed: isIndirectAllowed)
        var table: UInt64?
        var index = head
        while true {
            let descriptor: Descriptor
            if let table {
                descriptor = try Self.load(table, index, &memory)
            } else {
                descriptor = ring.descriptor(at: index)
            }
            switch try walk.accept(descriptor) {
            case .table(let address, _):
                table = address
                index = 0
            case .buffer(let next):
                try append(descriptor, &memory)
                guard let next else { return }
                index = next
            }
        }
    }

    private mutating func reset() {
        pieceCount = 0
        readableStart = 0
        readableEnd = 0
        readableBytes = 0
        writableBytes = 0
        hasUnmapped = false
        endsUnmapped = false
    }

    /// An entry of an indirect table, which need not be aligned nor within one region.
    private static func load(
        _ table: UInt64, _ index: UInt16, _ memory: inout GuestMemory
    ) throws(RingFault) -> Descriptor {
        let offset = UInt64(Descriptor.byteCount) * UInt64(index)
        let (address, wraps) = table.addingReportingOverflow(offset)
        guard !wraps, let words = memory.load16(at: address) else { throw .indirectOutsideMemory }
        return Descriptor(decoding: words.0, words.1)
    }

    private mutating func append(
        _ descriptor: Descriptor, _ memory: inout GuestMemory
    ) throws(RingFault) {
        var address = descriptor.address
        var rest = UInt64(descriptor.byteCount)
        while rest > 0 {
            guard let piece = memory.piece(at: address, byteCount: rest) else {
                hasUnmapped = true
                endsUnmapped = true
                return
            }
            guard pieceCount < VhostLimits.chainPiecesMax else { throw .tooManyPieces }
            pieces[pieceCount] = piece
            pieceCount += 1
            endsUnmapped = false
            let taken = UInt64(piece.count)
            rest -= taken
            // No overflow: I1 of GuestMemory keeps the end of a region within the address space.
            address &+= taken
            if descriptor.isWritable {
                writableBytes += taken
            } else {
                readableBytes += taken
                readableEnd = pieceCount
            }
        }
    }

    /// Takes the status byte, the last writable one, off the end.
    mutating func takeStatus() throws(RingFault) -> UnsafeMutableRawPointer {
        guard !endsUnmapped else { throw .statusOutsideMemory }
        guard pieceCount > readableEnd else { throw .noStatusByte }
        let last = pieceCount - 1
        pieces[last].count -= 1
        writableBytes -= 1
        let status = pieces[last].base + pieces[last].count
        if pieces[last].count == 0 { pieceCount = last }
        return status
    }

    /// Takes 16 bytes off the front of the readable part, however they are divided.
    mutating func take16() -> (UInt64, UInt64)? {
        guard readableBytes >= 16 else { return nil }
        readableBytes -= 16
        var words: (UInt64, UInt64) = (0, 0)
        withUnsafeMutableBytes(of: &words) { bytes in
            var done = 0
            while done < 16, let to = bytes.baseAddress {
                let count = min(16 - done, pieces[readableStart].count)
                parallax_copy_once(to + done, pieces[readableStart].base, count)
                done += count
                pieces[readableStart].base += count
                pieces[readableStart].count -= count
                if pieces[readableStart].count == 0 { readableStart += 1 }
            }
        }
        return words
    }

    /// What is left for data once header and status are taken.
    var readable: UnsafeBufferPointer<DataSegment> {
        UnsafeBufferPointer(start: pieces + readableStart, count: readableEnd - readableStart)
    }

    var writable: UnsafeBufferPointer<DataSegment> {
        UnsafeBufferPointer(start: pieces + readableEnd, count: pieceCount - readableEnd)
    }
}
