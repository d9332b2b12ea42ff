// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What is looked at before a change goes into the log. What only the log's order decides (two
/// deletions of one snapshot) is looked at again when the record is carried out, there and in a
/// replay alike: by `carryOut`.
extension Engine {
    /// Why the change is not possible, if that is known already.
    func refusal(_ change: CatalogChange) -> CatalogError? {
        switch change {
        case .create(let name, let sizeBytes, _):
            refusal(name: name) ?? refusal(size: sizeBytes) ?? refusalOfNewVDI
        case .clone(let origin, let name, let sizeBytes, _):
            refusal(name: name) ?? refusal(size: sizeBytes) ?? refusalOfNewVDI
                ?? refusal(origin: origin, sizeBytes: sizeBytes)
        case .resize(let identifier, let sizeBytes):
            refusal(vdi: identifier) ?? refusal(size: sizeBytes)
        case .rename(let identifier, let name): refusal(vdi: identifier) ?? refusal(name: name)
        case .delete(let identifier): refusalOfDeletion(identifier)
        case .setAttributes(let identifier, let attributes):
            refusal(vdi: identifier)
                ?? (attributes.policy.utf8.count > Limits.policyBytes ? .invalidDetails : nil)
        case .snapshot(let identifier, let details, _, _):
            refusal(vdi: identifier) ?? refusal(details: details) ?? refusalOfNewSnapshot
        case .setDetails(let identifier, let details):
            refusal(snapshot: identifier) ?? refusal(details: details)
        case .deleteSnapshot(let identifier): refusalOfDeletion(identifier)
        case .rollback(let identifier, let target, let details, _):
            refusal(vdi: identifier) ?? refusal(snapshot: target) ?? refusalOfNewSnapshot
                ?? details.flatMap { refusal(details: $0) }
                ?? (isBeingChanged(identifier) ? .inUse : nil)
        case .finishGroup: nil
        }
    }

    private func refusal(vdi identifier: VDIIdentifier) -> CatalogError? {
        handle(of: identifier) == nil ? .noSuchVDI : nil
    }

    private func refusal(snapshot identifier: SnapshotIdentifier) -> CatalogError? {
        visibleRow(of: identifier) == nil ? .noSuchSnapshot : nil
    }

    private func refusal(size: UInt64) -> CatalogError? {
        Limits.vdiBytes.contains(size) && size % UInt64(blockBytes) == 0 ? nil : .invalidSize
    }

    private func refusal(name: String) -> CatalogError? {
        Limits.vdiNameBytes.contains(name.utf8.count) ? nil : .invalidName
    }

    private func refusal(details: SnapshotDetails) -> CatalogError? {
        details.isValid ? nil : .invalidDetails
    }

    private var refusalOfNewVDI: CatalogError? {
        let expected = catalog.vdiCount + catalog.logged.count
        return expected < Limits.vdisPerStream ? nil : .tooManyVDIs
    }

    private var refusalOfNewSnapshot: CatalogError? {
        catalog.versions.hasRoom(besides: catalog.logged.count) ? nil : .tooManySnapshots
    }

    private func refusal(
        origin: SnapshotIdentifier, sizeBytes: UInt64
    ) -> CatalogError? {
        guard let row = visibleRow(of: origin) else { return .noSuchSnapshot }
        let version = catalog.versions[row]
        guard sizeBytes / UInt64(blockBytes) >= version.sizeBlocks else { return .invalidSize }
        return version.epoch < .max ? nil : .tooManyEpochs
    }

    private func refusalOfDeletion(_ identifier: VDIIdentifier) -> CatalogError? {
        guard let handle = handle(of: identifier) else { return .noSuchVDI }
        if catalog.vdis[Int(handle)].heldSnapshots > 0 { return .held }
        return catalog.vdis[Int(handle)].openSnapshots > 0 ? .inUse : nil
    }

    private func refusalOfDeletion(_ identifier: SnapshotIdentifier) -> CatalogError? {
        guard let row = visibleRow(of: identifier) else { return .noSuchSnapshot }
        if catalog.versions[row].isHeld { return .held }
        return catalog.versions[row].openCount > 0 ? .inUse : nil
    }

    /// Whether requests that change the head are under way.
    private func isBeingChanged(_ identifier: VDIIdentifier) -> Bool {
        guard let handle = catalog.handle(of: identifier),
            catalog.vdis[Int(handle)].requestsInFlight > 0
        else { return false }
        return (0..<requests.capacity).contains { index in
            requests[index].isInUse && requests[index].request.vdi == handle
                && requests[index].request.operation.changesBlocks
        }
    }

    /// The row of a snapshot that is there for people.
    func visibleRow(of identifier: SnapshotIdentifier) -> Int? {
        catalog.versions.row(of: identifier).flatMap { catalog.isVisible($0) ? $0 : nil }
    }
}

extension Engine {
    /// Bytes that the change's record takes in a chunk's header.
    static func recordBytes(of change: CatalogChange) -> Int {
        let record = record(of: change, vdi: VDIIdentifier(0), snapshot: SnapshotIdentifier(0))
        return ChunkRecord.vdiFixedBytes + record.encodedBytes
    }

    /// Of a version that nobody is to see.
    private static let detailsOfNothing = SnapshotDetails(name: "-", origin: .automatic)

    /// The record of a change that is possible. Names what it makes.
    mutating func makeRecord(_ change: CatalogChange) -> CatalogRecord {
        var vdi = VDIIdentifier(0)
        var snapshot = SnapshotIdentifier(0)
        switch change {
        case .create, .clone: vdi = nextVDI()
        case .snapshot, .rollback:
            snapshot = catalog.versions.nextIdentifier(stream: catalog.stream)
        case .resize, .rename, .delete, .setAttributes, .setDetails, .deleteSnapshot,
            .finishGroup:
            break
        }
        return Self.record(of: change, vdi: vdi, snapshot: snapshot)
    }

    /// `vdi` and `snapshot` are the names of what the change makes.
    private static func record(
        of change: CatalogChange, vdi new: VDIIdentifier, snapshot: SnapshotIdentifier
    ) -> CatalogRecord {
        switch change {
        case .create(let name, let sizeBytes, let createdAt):
            return .create(
                VDIRecord(
                    identifier: new, name: name, sizeBytes: sizeBytes,
                    createdAtNanoseconds: createdAt))
        case .clone(let origin, let name, let sizeBytes, let createdAt):
            var record = VDIRecord(
                identifier: new, name: name, sizeBytes: sizeBytes,
                createdAtNanoseconds: createdAt)
            record.parent = origin
            return .create(record)
        case .resize(let vdi, let sizeBytes): return .resize(vdi, sizeBytes: sizeBytes)
        case .rename(let vdi, let name): return .rename(vdi, name: name)
        case .delete(let vdi): return .delete(vdi)
        case .setAttributes(let vdi, let attributes): return .setAttributes(vdi, attributes)
        case .snapshot(let vdi, let details, let createdAt, let group):
            return .snapshot(
                snapshot, vdi, createdAt: createdAt, group: group, details: details.encoded)
        case .setDetails(let snapshot, let details):
            return .setDetails(snapshot, details: details.encoded)
        case .deleteSnapshot(let snapshot): return .deleteSnapshot(snapshot)
        case .rollback(let vdi, let target, let keeping, let createdAt):
            return .rollback(
                vdi, to: target, kept: snapshot, createdAt: createdAt,
                isVisible: keeping != nil, details: (keeping ?? detailsOfNothing).encoded)
        case .finishGroup(let group, let commit): return .finishGroup(group, commit: commit)
        }
    }

    private mutating func nextVDI() -> VDIIdentifier {
        defer { catalog.nextNumber += 1 }
        return VDIIdentifier(UInt64(catalog.stream) << 48 | catalog.nextNumber)
    }
}
