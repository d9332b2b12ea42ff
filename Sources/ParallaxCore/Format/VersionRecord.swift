// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One immutable version, as a record page keeps it.
///
/// ```
///  offset size  field
///       0    2  length of this record in bytes, these two included
///       2    1  2: a version
///       3    1  levels of the radix tree (0: no root)
///       4    1  state: 1 pending in a group, 2 visible, 3 deleted
///       5    1  flags: 1 = the exclusive blocks are counted
///       6    2  bytes of the details
///       8    8  identifier
///      16    8  VDI whose snapshot it is, or was
///      24    8  parent, 0 for none
///      32    4  epoch: births up to here are in it
///      36    4  zeros
///      40    8  size in bytes
///      48    8  created at, ns since 1970
///      56    8  allocated blocks
///      64    8  exclusive blocks
///      72    8  group, 0 for none
///      80   16  root reference
///      96    8  data blocks born in it
///     104    n  details (`SnapshotDetails`)
/// ```
struct VersionRecord {
    static let kind: UInt8 = 2
    static let fixedBytes = 104
    static let rootOffset = 80

    var version: Version
    var parent: SnapshotIdentifier
    var details: [UInt8]

    var encodedBytes: Int { Self.fixedBytes + details.count }

    func encode(to writer: inout ByteWriter) {
        writer.put(UInt16(encodedBytes))
        writer.put(Self.kind)
        writer.put(version.levels)
        writer.put(version.state.rawValue)
        writer.put(UInt8(version.isCounted ? 1 : 0))
        writer.put(UInt16(details.count))
        writer.put(version.identifier.rawValue)
        writer.put(version.vdi.rawValue)
        writer.put(parent.rawValue)
        writer.put(version.epoch)
        writer.put(UInt32(0))
        writer.put(version.sizeBlocks * UInt64(blockBytes))
        writer.put(version.createdAtNanoseconds)
        writer.put(version.allocatedBlocks)
        writer.put(version.exclusiveBlocks)
        writer.put(version.group)
        writer.put(reference: version.root)
        writer.put(version.bornBlocks)
        writer.put(bytes: details)
    }

    /// nil when the bytes are no valid record.
    static func decode(from reader: inout ByteReader) -> VersionRecord? {
        guard let length = reader.take(UInt16.self), reader.take(UInt8.self) == kind,
            let levels = reader.take(UInt8.self), Int(levels) <= Limits.radixLevels,
            let state = reader.take(UInt8.self).flatMap(Version.State.init(rawValue:)),
            state != .free, let flags = reader.take(UInt8.self),
            let detailBytes = reader.take(UInt16.self),
            Int(length) == fixedBytes + Int(detailBytes),
            let identifier = reader.take(UInt64.self), identifier >> 63 == 1,
            let vdi = reader.take(UInt64.self), vdi != 0, vdi >> 63 == 0,
            let parent = reader.take(UInt64.self),
            let epoch = reader.take(UInt32.self), epoch > 0, reader.take(UInt32.self) != nil,
            let size = reader.take(UInt64.self), let createdAt = reader.take(UInt64.self),
            let allocated = reader.take(UInt64.self), let exclusive = reader.take(UInt64.self),
            let group = reader.take(UInt64.self), let root = reader.takeReference(),
            let born = reader.take(UInt64.self),
            let details = reader.takeBytes(Int(detailBytes)),
            Limits.vdiBytes.contains(size), size % UInt64(blockBytes) == 0,
            max(allocated, exclusive, born) <= Limits.accountBlocks,
            !root.address.isResident, root.isHole || levels > 0
        else { return nil }
        var version = Version()
        version.identifier = SnapshotIdentifier(identifier)
        version.vdi = VDIIdentifier(vdi)
        version.root = root
        version.levels = levels
        version.state = state
        version.isCounted = flags & 1 != 0
        version.epoch = epoch
        version.sizeBlocks = size / UInt64(blockBytes)
        version.createdAtNanoseconds = createdAt
        version.allocatedBlocks = allocated
        version.exclusiveBlocks = exclusive
        version.group = group
        version.bornBlocks = born
        return VersionRecord(
            version: version, parent: SnapshotIdentifier(parent), details: details)
    }
}
