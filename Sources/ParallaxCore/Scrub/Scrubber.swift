// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// How far a stream's scrub is. A pass goes through the extents in the order of their numbers: those
/// of the log, then the cold ones, as far as there were any when it began. So what was in the store then
/// and still is at its end has been compared with its checksum: in its place, or by the cleaner, which does
/// so before it moves a block into an extent that may be too young for the pass. What was written since
/// is left to the next.
package struct ScrubStatus: Equatable, Sendable {
    package var isRunning = false
    /// The pass has come to its end.
    package var isFinished = false
    /// The extent that is being read; all before it are verified. A pass that is interrupted goes on
    /// with it.
    package var position: UInt64 = 0
    /// The last extents, of the log and cold, that this pass reads.
    package var lastLog: UInt64 = 0
    package var lastCold: UInt64 = 0
    /// Blocks of this pass, and those that lived when it began.
    package var verifiedBlocks: UInt64 = 0
    package var totalBlocks: UInt64 = 0
    package var damagedBlocks: UInt64 = 0
    /// Passes that came to their end since the engine was opened.
    package var passes: UInt64 = 0

    package init() {}
}

/// Reads everything that lives again and again, a piece at a time and never faster than it may, and
/// compares it with what its chunk says of it.
///
/// ```
///   idle ---> reading (one read under way, or waiting for its rate) ---> idle
///                |   ^
///        damage  v   |
///             asking the trees whose the block is
/// ```
/// SAFETY: owns its buffers, which are handed to the device only while `isBusy`.
struct Scrubber: ~Copyable {
    static let pieceBlocks = 64
    /// LIMIT: findings that wait for somebody to take them; more are only counted.
    static let findingsKept = 256
    /// LIMIT: time without a turn that earns something. With it `reckon` cannot overflow below 180 GB/s.
    private static let creditNanoseconds: UInt64 = 100_000_000

    var status = ScrubStatus()
    var bytesPerSecond: UInt64 = 0
    /// Bytes that may be read now, and when that was reckoned.
    var credit: Int64 = 0
    var reckonedAt: UInt64 = 0

    var isBusy = false
    /// What is being read is not what the present pass wants.
    var isPieceStale = false
    /// The epoch of the read under way, or 2: its extent's slot must not be given away under it.
    var readEpoch: UInt8 = 2
    /// The next block to look at, and which of the piece under way lived when it was asked for: what
    /// is written only now may be read before it is there.
    var block = 0
    var pieceCount = 0
    var livedBefore: UInt64 = 0
    /// Up to here blocks are read one by one, because the piece could not be read.
    var singlyUntil = 0

    /// Where the pass goes on behind the extent that is being read.
    var ahead = ScrubExtents()

    /// The chunk that the next block belongs to.
    var chunk = ChunkCursor()

    var inquiry: ScrubInquiry?
    var findings: [String] = []

    let piece = BlockBuffer(blocks: Scrubber.pieceBlocks)
    let header = BlockBuffer()
    let buffer: UnsafeMutablePointer<DataSegment>

    init() { buffer = .allocate(capacity: 1) }

    deinit { buffer.deallocate() }

    /// More may be read as time goes by; never more at once than in a tenth of a second.
    mutating func reckon(now: UInt64) {
        let start = min(now, max(reckonedAt, now - min(now, Self.creditNanoseconds)))
        let earned = bytesPerSecond * (now - start) / 1_000_000_000
        // Turns may follow each other so fast that none earns a byte: their time counts later.
        guard earned > 0 else { return }
        reckonedAt = start + earned * 1_000_000_000 / bytesPerSecond
        let most = max(Int64(bytesPerSecond / 10), Int64(Self.pieceBlocks * blockBytes))
        credit = min(credit + Int64(earned), most)
    }
}

/// A damaged data block, and how far the search for those who have it has come.
struct ScrubInquiry {
    var name: BlockAddress
    var place: BlockAddress
    var block: UInt64
    /// The next to ask: first the heads, then the versions.
    var handle = 0
    var row = 0
    var attempts = 0
    /// The first of those that have it, and how many there are: a million snapshots may.
    var owners: [String] = []
    var ownerCount = 0

    /// LIMIT: owners that a finding names.
    private static let ownersNamed = 16

    mutating func add(_ owner: String) {
        ownerCount += 1
        if owners.count < Self.ownersNamed { owners.append(owner) }
    }

    var whose: String {
        guard ownerCount > 0 else { return "nobody any more" }
        let named = owners.joined(separator: ", ")
        let others = ownerCount - owners.count
        return others > 0 ? "\(named) and \(others) more" : named
    }
}
