// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The immutable versions of one stream, by row. Rows stay where they are in memory, so that a
/// million of them grow without a pause.
///
/// Owned by the shard thread.
/// I1 a row that was freed is used again only when neither of the two durable checkpoints knows what was
///    in it: a replay puts every snapshot into the row that it had, and may have to begin with the
///    older one, if the newer has rotted.
///
/// SAFETY: owns its segments; every index is checked against `count`.
struct VersionTable: ~Copyable {
    private static let segmentRows = 4096

    private var segments: [UnsafeMutablePointer<Version>] = []
    /// Encoded `SnapshotDetails`, by row.
    private var details: [[UInt8]] = []
    private(set) var count = 0
    private(set) var usedCount = 0
    private var freeRows = Fifo<UInt32>()
    /// Freed since the last freeze; freed before it; and those of which only the older of the two
    /// checkpoints knows.
    private var freed: [UInt32] = []
    private var freeing: [UInt32] = []
    private var aging: [UInt32] = []
    var nextSequence: UInt64

    init(nextSequence: UInt64) { self.nextSequence = nextSequence }

    deinit { for segment in segments { segment.deallocate() } }

    subscript(row: Int) -> Version {
        unsafeAddress {
            precondition(row >= 0 && row < count, "VersionTable: row out of range")
            return UnsafePointer(segments[row / Self.segmentRows] + row % Self.segmentRows)
        }
        unsafeMutableAddress {
            precondition(row >= 0 && row < count, "VersionTable: row out of range")
            return segments[row / Self.segmentRows] + row % Self.segmentRows
        }
    }

    /// The row of a version that is there, deleted or not.
    func row(of identifier: SnapshotIdentifier) -> Int? {
        let row = identifier.row
        guard row < count, self[row].identifier == identifier, self[row].state != .free else {
            return nil
        }
        return row
    }

    /// Whether there is room for one more than the `named` whose records are on their way.
    func hasRoom(besides named: Int) -> Bool {
        usedCount + named + freed.count + freeing.count + aging.count < Limits.snapshotsPerStream
            && nextSequence <= SnapshotIdentifier.lastSequence
    }

    /// Names the next snapshot, and takes a row for it. There must be room.
    mutating func nextIdentifier(stream: Int) -> SnapshotIdentifier {
        var row = count
        while let free = freeRows.popFirst() {
            // A replay may have put a snapshot into a row that was free before.
            guard self[Int(free)].state == .free, self[Int(free)].identifier.rawValue == 0 else {
                continue
            }
            row = Int(free)
            break
        }
        let identifier = SnapshotIdentifier(stream: stream, row: row, sequence: nextSequence)
        reserve(row)
        self[row].identifier = identifier
        nextSequence += 1
        return identifier
    }

    /// A snapshot that was named has not been made: its row is free again. A replay names nothing:
    /// there the row may never have been used, or have something else in it.
    mutating func giveUp(_ identifier: SnapshotIdentifier) {
        let row = identifier.row
        guard row < count, self[row].identifier == identifier, self[row].state == .free else {
            return
        }
        self[row].identifier = SnapshotIdentifier(0)
        freeRows.append(UInt32(row))
    }

    /// Puts a version into its row, which must be free. False: it is not.
    mutating func insert(_ version: Version, details bytes: [UInt8]) -> Bool {
        let row = version.identifier.row
        reserve(row)
        guard self[row].state == .free,
            self[row].identifier.rawValue == 0 || self[row].identifier == version.identifier
        else { return false }
        self[row] = version
        details[row] = bytes
        usedCount += 1
        nextSequence = max(nextSequence, version.identifier.sequence + 1)
        return true
    }

    /// Whether another version is in the row that the identifier names. When it was named nothing was.
    func isTaken(_ identifier: SnapshotIdentifier) -> Bool {
        let row = identifier.row
        return row < count && self[row].state != .free && self[row].identifier != identifier
    }

    private mutating func reserve(_ row: Int) {
        while row >= segments.count * Self.segmentRows {
            let segment = UnsafeMutablePointer<Version>.allocate(capacity: Self.segmentRows)
            segment.initialize(repeating: Version(), count: Self.segmentRows)
            segments.append(segment)
        }
        while details.count <= row { details.append([]) }
        count = max(count, row + 1)
    }

    mutating func free(_ row: Int) {
        precondition(self[row].state == .deleted, "VersionTable: freeing a version in use")
        self[row] = Version()
        details[row] = []
        usedCount -= 1
        freed.append(UInt32(row))
    }

    /// The checkpoint that begins now no longer knows the rows freed so far.
    mutating func beginCheckpoint() {
        freeing += freed
        freed.removeAll(keepingCapacity: true)
    }

    mutating func finishCheckpoint() {
        for row in aging { freeRows.append(row) }
        aging.removeAll(keepingCapacity: true)
        swap(&aging, &freeing)
    }

    /// After a replay: rows that nothing is in, as far as the checkpoint knows with which it began. The one
    /// before may know something in them, also in the last ones.
    mutating func collectFreeRows(ofAll rows: Int) {
        if rows > count { reserve(rows - 1) }
        for row in 0..<count where self[row].state == .free {
            self[row].identifier = SnapshotIdentifier(0)
            aging.append(UInt32(row))
        }
    }

    func encodedDetails(_ row: Int) -> [UInt8] { details[row] }

    mutating func setDetails(_ row: Int, _ bytes: [UInt8]) { details[row] = bytes }

    func decodedDetails(_ row: Int) -> SnapshotDetails {
        details[row].withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return SnapshotDetails(name: "") }
            var reader = ByteReader(base, count: bytes.count)
            return SnapshotDetails.decode(from: &reader) ?? SnapshotDetails(name: "")
        }
    }
}

extension SnapshotDetails {
    var encoded: [UInt8] {
        Array(unsafeUninitializedCapacity: encodedBytes) { buffer, count in
            guard let base = buffer.baseAddress else { return }
            var writer = ByteWriter(UnsafeMutableRawPointer(base), capacity: buffer.count)
            encode(to: &writer)
            count = writer.count
        }
    }
}
