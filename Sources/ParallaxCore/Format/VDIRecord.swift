// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What the store remembers of a VDI, apart from its tree.
///
/// ```
///  offset size  field
///       0    2  length of this record in bytes, these two included
///       2    1  levels of the radix tree (0: no root)
///       3    1  flags: 1 = being deleted
///       4    4  epoch: birth of what is written now
///       8    4  epoch of the newest snapshot (0: none)
///      12    4  zeros
///      16    8  identifier
///      24    8  size in bytes
///      32    8  created at, ns since 1970
///      40    8  allocated blocks
///      48   16  root reference
///      64    n  name, UTF-8
/// ```
package struct VDIRecord: Equatable, Sendable {
    static let fixedBytes = 64

    package var identifier: VDIIdentifier
    package var name: String
    package var sizeBytes: UInt64
    package var createdAtNanoseconds: UInt64
    package var epoch: UInt32 = 1
    package var snapshotEpoch: UInt32 = 0
    package var isDeleting = false
    package var levels = 0
    package var root = BlockReference.hole
    package var allocatedBlocks: UInt64 = 0

    var encodedBytes: Int { Self.fixedBytes + name.utf8.count }

    func encode(to writer: inout ByteWriter) {
        writer.put(UInt16(encodedBytes))
        writer.put(UInt8(levels))
        writer.put(UInt8(isDeleting ? 1 : 0))
        writer.put(epoch)
        writer.put(snapshotEpoch)
        writer.put(UInt32(0))
        writer.put(identifier.rawValue)
        writer.put(sizeBytes)
        writer.put(createdAtNanoseconds)
        writer.put(allocatedBlocks)
        writer.put(reference: root)
        writer.put(bytes: name.utf8)
    }

    /// nil when the bytes are no valid record.
    static func decode(from reader: inout ByteReader) -> VDIRecord? {
        guard let length = reader.take(UInt16.self), length >= fixedBytes,
            let levels = reader.take(UInt8.self), Int(levels) <= Limits.radixLevels,
            let flags = reader.take(UInt8.self), let epoch = reader.take(UInt32.self),
            let snapshotEpoch = reader.take(UInt32.self), reader.take(UInt32.self) != nil,
            let identifier = reader.take(UInt64.self), let size = reader.take(UInt64.self),
            let createdAt = reader.take(UInt64.self), let allocated = reader.take(UInt64.self),
            let root = reader.takeReference(),
            let name = reader.takeBytes(Int(length) - fixedBytes),
            Limits.vdiBytes.contains(size), size % UInt64(blockBytes) == 0,
            !root.address.isResident, root.isHole || levels > 0
        else { return nil }
        return VDIRecord(
            identifier: VDIIdentifier(identifier), name: String(decoding: name, as: UTF8.self),
            sizeBytes: size, createdAtNanoseconds: createdAt, epoch: epoch,
            snapshotEpoch: snapshotEpoch, isDeleting: flags & 1 != 0, levels: Int(levels),
            root: root, allocatedBlocks: allocated)
    }
}
