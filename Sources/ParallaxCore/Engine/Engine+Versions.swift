// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Carrying out what the log says about the catalogue, running and in a replay alike. Each change
/// takes a constant time, whatever the size of the disks.
extension Engine {
    typealias Outcome = Result<CatalogOutcome, CatalogError>

    mutating func carryOut(_ record: CatalogRecord) -> Outcome {
        switch record {
        case .create(let record): return create(record)
        case .resize(let identifier, let sizeBytes):
            return changeHead(identifier) { engine, handle in
                engine.catalog.vdis[handle].sizeBlocks = sizeBytes / UInt64(blockBytes)
                engine.catalog.vdis[handle].endWhileShrinking = .max
                engine.catalog.touch(handle)
            }
        case .rename(let identifier, let name):
            return changeHead(identifier) { engine, handle in
                engine.catalog.names[handle] = name
                engine.catalog.resizeRecord(handle)
            }
        case .setAttributes(let identifier, let attributes):
            return changeHead(identifier) { engine, handle in
                engine.catalog.vdis[handle].isTemplate = attributes.isTemplate
                engine.catalog.policies[handle] = attributes.policy
                engine.catalog.vdis[handle].setQuota(attributes.quotaBytes)
                engine.catalog.resizeRecord(handle)
            }
        case .delete(let identifier): return delete(identifier)
        case .snapshot(let snapshot, let vdi, let createdAt, let group, let details):
            return takeSnapshot(
                snapshot, of: vdi, createdAt: createdAt, group: group, details: details)
        case .setDetails(let identifier, let details): return setDetails(identifier, details)
        case .deleteSnapshot(let identifier): return deleteSnapshot(identifier)
        case .rollback(let vdi, let target, let kept, let createdAt, let isVisible, let details):
            return rollBack(
                vdi, to: target, kept: kept, createdAt: createdAt, isVisible: isVisible,
                details: details)
        case .finishGroup(let group, let commit): return finishGroup(group, commit: commit)
        }
    }

    private mutating func changeHead(
        _ identifier: VDIIdentifier, _ change: (inout Engine, Int) -> Void
    ) -> Outcome {
        guard let handle = handle(of: identifier) else { return .failure(.noSuchVDI) }
        change(&self, Int(handle))
        return .success(.vdi(identifier))
    }

    /// A new VDI: empty, or as the snapshot is that its record names.
    private mutating func create(_ record: VDIRecord) -> Outcome {
        var record = record
        guard record.parent.rawValue != 0 else {
            return catalog.insert(record, page: nil) == nil
                ? .failure(.noSuchVDI) : .success(.vdi(record.identifier))
        }
        guard let row = visibleRow(of: record.parent) else { return .failure(.noSuchSnapshot) }
        let origin = catalog.versions[row]
        guard origin.epoch < .max else { return .failure(.tooManyEpochs) }
        record.epoch = origin.epoch + 1
        record.root = origin.root
        record.levels = Int(origin.levels)
        record.allocatedBlocks = origin.allocatedBlocks
        guard let handle = catalog.insert(record, page: nil) else { return .failure(.noSuchVDI) }
        forest.share(origin.root)
        catalog.vdis[handle].mutableStamp = forest.cache.freezeForVersion()
        noteNewChild(row)
        return .success(.vdi(record.identifier))
    }

    private mutating func delete(_ identifier: VDIIdentifier) -> Outcome {
        guard let handle = handle(of: identifier).map(Int.init) else {
            return .failure(.noSuchVDI)
        }
        guard catalog.vdis[handle].heldSnapshots == 0 else { return .failure(.held) }
        catalog.vdis[handle].isDeleting = true
        catalog.touch(handle)
        catalog.reclaim.vdis.append(UInt32(handle))
        return .success(.vdi(identifier))
    }

    private mutating func setDetails(
        _ identifier: SnapshotIdentifier, _ details: [UInt8]
    ) -> Outcome {
        guard let row = visibleRow(of: identifier),
            let handle = catalog.handle(of: catalog.versions[row].vdi).map(Int.init)
        else { return .failure(.noSuchSnapshot) }
        catalog.setDetails(row: row, details)
        let isHeld = catalog.versions.decodedDetails(row).isHeld
        if isHeld != catalog.versions[row].isHeld {
            catalog.versions[row].isHeld = isHeld
            if isHeld {
                catalog.vdis[handle].heldSnapshots += 1
            } else {
                catalog.vdis[handle].heldSnapshots -= 1
            }
        }
        return .success(.snapshot(identifier))
    }

    private mutating func deleteSnapshot(_ identifier: SnapshotIdentifier) -> Outcome {
        guard let row = visibleRow(of: identifier), catalog.versions[row].state == .visible else {
            return .failure(.noSuchSnapshot)
        }
        guard !catalog.versions[row].isHeld else { return .failure(.held) }
        markDeleted(row)
        return .success(.snapshot(identifier))
    }

    private mutating func finishGroup(_ group: UInt64, commit: Bool) -> Outcome {
        let members = catalog.pendingRows.filter { catalog.versions[Int($0)].group == group }
        guard !members.isEmpty else { return .failure(.noSuchGroup) }
        catalog.pendingRows.removeAll { members.contains($0) }
        for row in members.map(Int.init) {
            catalog.versions[row].group = 0
            if commit {
                catalog.versions[row].state = .visible
                catalog.touch(row: row)
            } else {
                markDeleted(row)
            }
        }
        return .success(.group(group))
    }
}

extension Engine {
    /// Freezes the head as a version: from now on a change of it copies first. The version takes
    /// the head's place in the tree, and the head continues it.
    private mutating func takeSnapshot(
        _ identifier: SnapshotIdentifier, of vdi: VDIIdentifier, createdAt: UInt64,
        group: UInt64, details: [UInt8]
    ) -> Outcome {
        noteCut(group)
        guard let handle = handle(of: vdi).map(Int.init) else {
            return giveUp(identifier, .noSuchVDI)
        }
        guard catalog.vdis[handle].epoch < .max else { return giveUp(identifier, .tooManyEpochs) }
        guard
            let row = freezeHead(
                handle, as: identifier, createdAt: createdAt,
                state: group == 0 ? .visible : .pending, details: details)
        else { return .failure(.noSuchSnapshot) }
        if group != 0 {
            catalog.versions[row].group = group
            catalog.pendingRows.append(UInt32(row))
        }
        forest.share(catalog.vdis[handle].root)
        catalog.versions[row].isCounted = true
        catalog.vdis[handle].epoch += 1
        catalog.addChild(.head(handle), to: Int32(row))
        return .success(.snapshot(identifier))
    }

    /// The version that was named is not made.
    private mutating func giveUp(
        _ identifier: SnapshotIdentifier, _ error: CatalogError
    ) -> Outcome {
        catalog.versions.giveUp(identifier)
        return .failure(error)
    }

    /// The head begins again as the snapshot is; what it was stays as a version.
    private mutating func rollBack(
        _ vdi: VDIIdentifier, to target: SnapshotIdentifier, kept: SnapshotIdentifier,
        createdAt: UInt64, isVisible: Bool, details: [UInt8]
    ) -> Outcome {
        guard let handle = handle(of: vdi).map(Int.init) else { return giveUp(kept, .noSuchVDI) }
        guard let origin = visibleRow(of: target) else { return giveUp(kept, .noSuchSnapshot) }
        guard catalog.versions[origin].epoch < .max else { return giveUp(kept, .tooManyEpochs) }
        guard
            let row = freezeHead(
                handle, as: kept, createdAt: createdAt, state: isVisible ? .visible : .deleted,
                details: details)
        else { return .failure(.noSuchSnapshot) }
        queue(row)
        let version = catalog.versions[origin]
        forest.share(version.root)
        catalog.vdis[handle].root = version.root
        catalog.vdis[handle].levels = Int(version.levels)
        catalog.vdis[handle].sizeBlocks = version.sizeBlocks
        catalog.vdis[handle].allocatedBlocks = version.allocatedBlocks
        catalog.vdis[handle].epoch = version.epoch + 1
        catalog.addChild(.head(handle), to: Int32(origin))
        noteNewChild(origin)
        return .success(.rollback(vdi, kept: isVisible ? kept : nil))
    }

    /// Puts a version with the head's tree into the head's place. The head is under nobody then,
    /// and its root is the version's; whoever goes on with it shares the root, or sets another.
    private mutating func freezeHead(
        _ handle: Int, as identifier: SnapshotIdentifier, createdAt: UInt64,
        state: Version.State, details: [UInt8]
    ) -> Int? {
        let head = catalog.vdis[handle]
        var version = Version()
        version.identifier = identifier
        version.vdi = head.identifier
        version.root = head.root
        version.levels = UInt8(head.levels)
        version.sizeBlocks = head.sizeBlocks
        version.allocatedBlocks = head.allocatedBlocks
        version.createdAtNanoseconds = createdAt
        version.epoch = head.epoch
        version.state = state
        version.recordBytes = UInt16(VersionRecord.fixedBytes + details.count)
        version.isRecordDirty = true
        guard catalog.versions.insert(version, details: details) else { return nil }
        let row = identifier.row
        catalog.versions[row].page = catalog.pages.place(
            .version(row), bytes: Int(version.recordBytes))
        catalog.versions[row].isHeld = catalog.versions.decodedDetails(row).isHeld
        settleLosses(handle)
        catalog.moveBirths(from: handle, to: row)
        catalog.replaceChild(.head(handle), with: .snapshot(row))
        if state != .deleted { catalog.appendSnapshot(row, to: handle) }
        catalog.vdis[handle].mutableStamp = forest.cache.freezeForVersion()
        catalog.touch(handle)
        return row
    }

    /// The parent takes over what the head has counted for it.
    private mutating func settleLosses(_ handle: Int) {
        let lost = catalog.vdis[handle].lostBlocks
        let parent = Int(catalog.vdis[handle].version)
        guard parent >= 0 else { return }
        catalog.settleFreed(head: handle, parent: parent)
        guard lost > 0 else { return }
        catalog.vdis[handle].lostBlocks = 0
        if let job = catalog.reclaim.job, job.purpose == .count, job.target == .version(parent) {
            catalog.reclaim.job?.counted += lost
        } else {
            catalog.versions[parent].exclusiveBlocks += lost
            catalog.touch(row: parent)
        }
    }
}

extension Engine {
    /// Opens a snapshot for reading; the handle goes into `BlockRequest.vdi`. One handle may serve
    /// many sessions. Each call is paired with one of `closeSnapshot`. nil: no such snapshot.
    package mutating func openSnapshot(_ identifier: SnapshotIdentifier) -> UInt32? {
        guard let row = visibleRow(of: identifier), !isBeingDeleted(row),
            let vdi = catalog.handle(of: catalog.versions[row].vdi).map(Int.init)
        else { return nil }
        if catalog.versions[row].openCount == 0 {
            catalog.versions[row].handle = Int32(catalog.openHandle(row: row))
            forest.share(catalog.versions[row].root)
        }
        catalog.versions[row].openCount += 1
        catalog.vdis[vdi].openSnapshots += 1
        return UInt32(catalog.versions[row].handle)
    }

    /// Whether the log is about to delete it.
    private func isBeingDeleted(_ row: Int) -> Bool {
        let version = catalog.versions[row]
        return catalog.logged.contains(where: { change in
            switch change.record {
            case .deleteSnapshot(version.identifier), .delete(version.vdi): true
            default: false
            }
        })
    }

    /// No request of this opening is under way any more.
    package mutating func closeSnapshot(_ handle: UInt32) {
        let row = Int(catalog.vdis[Int(handle)].version)
        precondition(
            catalog.vdis[Int(handle)].kind == .snapshot && catalog.versions[row].openCount > 0,
            "Engine: closing a snapshot that is not open")
        catalog.versions[row].openCount -= 1
        if let vdi = catalog.handle(of: catalog.versions[row].vdi).map(Int.init) {
            catalog.vdis[vdi].openSnapshots -= 1
        }
        guard catalog.versions[row].openCount == 0 else { return }
        forest.unshare(catalog.vdis[Int(handle)].root)
        catalog.versions[row].handle = -1
        catalog.closeHandle(Int(handle))
    }
}

/// A group's cut is atomic because nobody learns of any write behind it before every member's cut
/// is made: so no write that a cut contains can depend on one that another cut has missed.
extension Engine {
    /// The group whose cut this stream has just made, once for each member here; from then on it
    /// answers nothing until `releaseGroup`.
    package mutating func nextCut() -> UInt64? {
        cuts.isEmpty ? nil : cuts.removeFirst()
    }

    /// All members' cuts are made, or the group is given up: the stream goes on.
    /// A cut of it that is made later holds nothing back.
    package mutating func releaseGroup(_ group: UInt64) {
        heldGroups.removeAll { $0 == group }
        releasedGroups.append(group)
        if releasedGroups.count > Self.releasedGroupsKept { releasedGroups.removeFirst() }
        guard heldGroups.isEmpty else { return }
        while let reply = heldReplies.popFirst() { replies.append(reply) }
    }

    /// LIMIT: groups that are remembered as released; more are never under way.
    private static let releasedGroupsKept = 64

    private mutating func noteCut(_ group: UInt64) {
        guard group != 0, !isReplaying else { return }
        cuts.append(group)
        if !heldGroups.contains(group) && !releasedGroups.contains(group) {
            heldGroups.append(group)
        }
    }
}
