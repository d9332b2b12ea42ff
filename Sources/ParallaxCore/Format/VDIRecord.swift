// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One VDI, as a record page keeps it and as the log creates it.
///
/// ```
///  offset size  field
///       0    2  length of this record in bytes, these two included
///       2    1  1: a VDI
///       3    1  levels of the radix tree (0: no root)
///       4    1  flags: 1 = being deleted, 2 = template
///       5    1  bytes of the name
///       6    2  bytes of the policy
///       8    8  identifier
///      16    8  parent: the snapshot that the head continues, 0 for none
///      24    4  epoch: birth of what is written now
///      28    4  zeros
///      32    8  size in bytes
///      40    8  created at, ns since 1970
///      48    8  allocated blocks
///      56    8  blocks that only the parent holds since the head let go of them
///      64   16  root reference
///      80    8  data blocks born in the head
///      88    8  quota in bytes, 0 for none
///      96    n  name, policy, UTF-8
/// ```
package struct VDIRecord: Equatable, Sendable {
    static let kind: UInt8 = 1
    static let fixedBytes = 96
    /// Where the root reference stands.
    static let rootOffset = 64

    package var identifier: VDIIdentifier
    package var name: String
    package var sizeBytes: UInt64
    package var createdAtNanoseconds: UInt64
    package var parent = SnapshotIdentifier(0)
    package var epoch: UInt32 = 1
    package var isDeleting = false
    package var levels = 0
    package var root = BlockReference.hole
    package var allocatedBlocks: UInt64 = 0
    package var lostBlocks: UInt64 = 0
    package var bornBlocks: UInt64 = 0
    package var attributes = VDIAttributes()

    var encodedBytes: Int { Self.fixedBytes + name.utf8.count + attributes.policy.utf8.count }

    func encode(to writer: inout ByteWriter) {
        writer.put(UInt16(encodedBytes))
        writer.put(Self.kind)
        writer.put(UInt8(levels))
        writer.put(UInt8((isDeleting ? 1 : 0) | (attributes.isTemplate ? 2 : 0)))
        writer.put(UInt8(name.utf8.count))
        writer.put(UInt16(attributes.policy.utf8.count))
        writer.put(identifier.rawValue)
        writer.put(parent.rawValue)
        writer.put(epoch)
        writer.put(UInt32(0))
        writer.put(sizeBytes)
        writer.put(createdAtNanoseconds)
        writer.put(allocatedBlocks)
        writer.put(lostBlocks)
        writer.put(reference: root)
        writer.put(bornBlocks)
        writer.put(attributes.quotaBytes)
        writer.put(bytes: name.utf8)
        writer.put(bytes: attributes.policy.utf8)
    }

    /// nil when the bytes are no valid record.
    static func decode(from reader: inout ByteReader) -> VDIRecord? {
        guard let length = reader.take(UInt16.self), reader.take(UInt8.self) == kind,
            let levels = reader.take(UInt8.self), Int(levels) <= Limits.radixLevels,
            let flags = reader.take(UInt8.self), let nameBytes = reader.take(UInt8.self),
            let policyBytes = reader.take(UInt16.self), Int(policyBytes) <= Limits.policyBytes,
            Int(length) == fixedBytes + Int(nameBytes) + Int(policyBytes),
            let identifier = reader.take(UInt64.self), let parent = reader.take(UInt64.self),
            let epoch = reader.take(UInt32.self), reader.take(UInt32.self) != nil,
            let size = reader.take(UInt64.self), let createdAt = reader.take(UInt64.self),
            let allocated = reader.take(UInt64.self), let lost = reader.take(UInt64.self),
            let root = reader.takeReference(), let born = reader.take(UInt64.self),
            let quota = reader.take(UInt64.self), let name = reader.takeString(Int(nameBytes)),
            let policy = reader.takeString(Int(policyBytes)),
            identifier != 0, identifier >> 63 == 0, epoch > 0,
            Limits.vdiBytes.contains(size), size % UInt64(blockBytes) == 0,
            max(allocated, lost, born) <= Limits.accountBlocks,
            !root.address.isResident, root.isHole || levels > 0
        else { return nil }
        return VDIRecord(
            identifier: VDIIdentifier(identifier), name: name, sizeBytes: size,
            createdAtNanoseconds: createdAt, parent: SnapshotIdentifier(parent), epoch: epoch,
            isDeleting: flags & 1 != 0, levels: Int(levels), root: root,
            allocatedBlocks: allocated, lostBlocks: lost, bornBlocks: born,
            attributes: VDIAttributes(
                isTemplate: flags & 2 != 0, policy: policy, quotaBytes: quota))
    }
}
