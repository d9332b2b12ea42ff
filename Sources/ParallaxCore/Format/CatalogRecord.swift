// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A change of the catalogue as the log records it: the bytes of a chunk record of type 6.
///
/// ```
///  1 create      VDIRecord; with a parent it is a clone, and begins as that snapshot is
///  2 resize      VDI u64, size in bytes u64
///  3 rename      VDI u64, name
///  4 delete      VDI u64
///  5 attributes  VDI u64, flags u8 (2 = template), quota u64, policy
///  6 snapshot    snapshot u64, VDI u64, created at u64, group u64, details
///  7 details     snapshot u64, details
///  8 delete      snapshot u64
///  9 rollback    VDI u64, to snapshot u64, kept snapshot u64, created at u64, visible u8, details
/// 10 group       group u64, commit u8
/// ```
enum CatalogRecord: Equatable {
    case create(VDIRecord)
    case resize(VDIIdentifier, sizeBytes: UInt64)
    case rename(VDIIdentifier, name: String)
    /// From now on the VDI and its snapshots are being deleted; their blocks go little by little.
    case delete(VDIIdentifier)
    case setAttributes(VDIIdentifier, VDIAttributes)
    case snapshot(
        SnapshotIdentifier, VDIIdentifier, createdAt: UInt64, group: UInt64, details: [UInt8])
    case setDetails(SnapshotIdentifier, details: [UInt8])
    case deleteSnapshot(SnapshotIdentifier)
    case rollback(
        VDIIdentifier, to: SnapshotIdentifier, kept: SnapshotIdentifier, createdAt: UInt64,
        isVisible: Bool, details: [UInt8])
    case finishGroup(UInt64, commit: Bool)

    var kind: UInt8 {
        switch self {
        case .create: 1
        case .resize: 2
        case .rename: 3
        case .delete: 4
        case .setAttributes: 5
        case .snapshot: 6
        case .setDetails: 7
        case .deleteSnapshot: 8
        case .rollback: 9
        case .finishGroup: 10
        }
    }

    /// The snapshot that comes into being with it.
    var newSnapshot: SnapshotIdentifier? {
        switch self {
        case .snapshot(let snapshot, _, _, _, _): snapshot
        case .rollback(_, _, let kept, _, _, _): kept
        default: nil
        }
    }

    var encodedBytes: Int {
        switch self {
        case .create(let record): record.encodedBytes
        case .resize: 16
        case .rename(_, let name): 8 + name.utf8.count
        case .delete, .deleteSnapshot: 8
        case .setAttributes(_, let attributes): 17 + attributes.policy.utf8.count
        case .snapshot(_, _, _, _, let details): 32 + details.count
        case .setDetails(_, let details): 8 + details.count
        case .rollback(_, _, _, _, _, let details): 33 + details.count
        case .finishGroup: 9
        }
    }

    func encode(to writer: inout ByteWriter) {
        switch self {
        case .create(let record): record.encode(to: &writer)
        case .resize(let identifier, let sizeBytes):
            writer.put(identifier.rawValue)
            writer.put(sizeBytes)
        case .rename(let identifier, let name):
            writer.put(identifier.rawValue)
            writer.put(bytes: name.utf8)
        case .delete(let identifier): writer.put(identifier.rawValue)
        case .setAttributes(let identifier, let attributes):
            writer.put(identifier.rawValue)
            writer.put(UInt8(attributes.isTemplate ? 2 : 0))
            writer.put(attributes.quotaBytes)
            writer.put(bytes: attributes.policy.utf8)
        case .snapshot(let snapshot, let vdi, let createdAt, let group, let details):
            writer.put(snapshot.rawValue)
            writer.put(vdi.rawValue)
            writer.put(createdAt)
            writer.put(group)
            writer.put(bytes: details)
        case .setDetails(let snapshot, let details):
            writer.put(snapshot.rawValue)
            writer.put(bytes: details)
        case .deleteSnapshot(let snapshot): writer.put(snapshot.rawValue)
        case .rollback(let vdi, let target, let kept, let createdAt, let isVisible, let details):
            writer.put(vdi.rawValue)
            writer.put(target.rawValue)
            writer.put(kept.rawValue)
            writer.put(createdAt)
            writer.put(UInt8(isVisible ? 1 : 0))
            writer.put(bytes: details)
        case .finishGroup(let group, let commit):
            writer.put(group)
            writer.put(UInt8(commit ? 1 : 0))
        }
    }

    /// nil when the bytes are no valid record.
    static func decode(kind: UInt8, from reader: inout ByteReader) -> CatalogRecord? {
        if kind == 1 { return VDIRecord.decode(from: &reader).map(CatalogRecord.create) }
        guard let raw = reader.take(UInt64.self) else { return nil }
        let vdi = VDIIdentifier(raw)
        let snapshot = SnapshotIdentifier(raw)
        switch kind {
        case 2:
            guard let size = reader.take(UInt64.self), Limits.vdiBytes.contains(size),
                size % UInt64(blockBytes) == 0
            else { return nil }
            return .resize(vdi, sizeBytes: size)
        case 3:
            guard Limits.vdiNameBytes.contains(reader.remaining) else { return nil }
            return reader.takeString(reader.remaining).map { .rename(vdi, name: $0) }
        case 4: return .delete(vdi)
        case 5:
            guard let flags = reader.take(UInt8.self), let quota = reader.take(UInt64.self),
                reader.remaining <= Limits.policyBytes,
                let policy = reader.takeString(reader.remaining)
            else { return nil }
            return .setAttributes(
                vdi,
                VDIAttributes(isTemplate: flags & 2 != 0, policy: policy, quotaBytes: quota))
        case 6:
            guard let vdi = reader.take(UInt64.self), let createdAt = reader.take(UInt64.self),
                let group = reader.take(UInt64.self), let details = takeDetails(&reader)
            else { return nil }
            return .snapshot(
                snapshot, VDIIdentifier(vdi), createdAt: createdAt, group: group,
                details: details)
        case 7: return takeDetails(&reader).map { .setDetails(snapshot, details: $0) }
        case 8: return .deleteSnapshot(snapshot)
        case 9:
            guard let target = reader.take(UInt64.self), let kept = reader.take(UInt64.self),
                let createdAt = reader.take(UInt64.self), let visible = reader.take(UInt8.self),
                let details = takeDetails(&reader)
            else { return nil }
            return .rollback(
                vdi, to: SnapshotIdentifier(target), kept: SnapshotIdentifier(kept),
                createdAt: createdAt, isVisible: visible == 1, details: details)
        case 10: return reader.take(UInt8.self).map { .finishGroup(raw, commit: $0 == 1) }
        default: return nil
        }
    }

    /// The rest, if it is valid details.
    private static func takeDetails(_ reader: inout ByteReader) -> [UInt8]? {
        var copy = reader
        guard SnapshotDetails.decode(from: &copy) != nil, copy.remaining == 0 else { return nil }
        return reader.takeBytes(reader.remaining)
    }
}
