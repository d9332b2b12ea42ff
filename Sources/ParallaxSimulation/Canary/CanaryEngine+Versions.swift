// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What the faults of versions have to remember.
struct VersionFaults {
    /// Session of requests that only a fault has asked for.
    static let session: UInt32 = 0xFFFF_FF00

    /// Changes that the engine is asked for in the place of others.
    var replaced: [UInt64: CatalogChange] = [:]
    var ownReplies: [ChangeReply] = []
    var cuts: [UInt64] = []
    /// Opened heads that pass for snapshots: how often.
    var aliases: [UInt32: Int] = [:]
    /// Clones by the VDI whose snapshot they were made of.
    var clones: [VDIIdentifier: VDIIdentifier] = [:]
    /// For each handle, the block that was written last.
    var lastWrites: [UInt32: UInt64] = [:]
    var miscounted = 0
}

extension CanaryEngine {
    func submit(change: CatalogChange, ticket: UInt64) {
        switch (fault, change) {
        case (.forgetsRollbacks, .rollback(let vdi, _, let keeping, let createdAt)):
            versions.replaced[ticket] = change
            engine.submit(change: insteadOfRollback(vdi, keeping, createdAt), ticket: ticket)
        case (.cutsApart, .snapshot(let vdi, let details, let createdAt, let group))
        where group != 0:
            versions.cuts.append(group)
            engine.submit(
                change: .snapshot(vdi, details, createdAtNanoseconds: createdAt, group: 0),
                ticket: ticket)
        case (.cutsApart, .finishGroup(let group, _)):
            answer(ticket, .group(group))
        case (.keepsDeleted, .deleteSnapshot(let snapshot))
        where engine.summary(of: snapshot.rawValue).map { !$0.details.isHeld && !$0.isOpen }
            ?? false:
            answer(ticket, .snapshot(snapshot))
        case (.freesShared, .deleteSnapshot(let snapshot)):
            if let vdi = engine.summary(of: snapshot.rawValue)?.vdi { discardLastWrite(to: vdi) }
            engine.submit(change: change, ticket: ticket)
        case (.confusesBranches, .clone), (.miscounts, .deleteSnapshot):
            versions.replaced[ticket] = change
            engine.submit(change: change, ticket: ticket)
        default: engine.submit(change: change, ticket: ticket)
        }
    }

    func nextChangeReply() -> ChangeReply? {
        if !versions.ownReplies.isEmpty { return versions.ownReplies.removeFirst() }
        guard var reply = engine.nextChangeReply() else { return nil }
        guard let change = versions.replaced.removeValue(forKey: reply.ticket),
            case .success(let outcome) = reply.result
        else { return reply }
        switch (change, outcome) {
        case (.rollback(let vdi, _, _, _), .snapshot(let kept)):
            reply.result = .success(.rollback(vdi, kept: kept))
        case (.rollback(let vdi, _, _, _), _):
            reply.result = .success(.rollback(vdi, kept: nil))
        case (.clone(let snapshot, _, _, _), .vdi(let clone)):
            if let origin = engine.summary(of: snapshot.rawValue)?.vdi {
                versions.clones[origin] = clone
            }
        case (.deleteSnapshot, _): versions.miscounted += 1
        default: break
        }
        return reply
    }

    private func answer(_ ticket: UInt64, _ outcome: CatalogOutcome) {
        versions.ownReplies.append((ticket, .success(outcome)))
    }

    private func insteadOfRollback(
        _ vdi: VDIIdentifier, _ keeping: SnapshotDetails?, _ createdAt: UInt64
    ) -> CatalogChange {
        if let keeping {
            return .snapshot(vdi, keeping, createdAtNanoseconds: createdAt, group: 0)
        }
        let attributes = engine.disks().first { $0.identifier == vdi }?.attributes
        return .setAttributes(vdi, attributes ?? VDIAttributes())
    }

    func nextCut() -> UInt64? {
        versions.cuts.isEmpty ? engine.nextCut() : versions.cuts.removeFirst()
    }

    // MARK: Requests

    /// Sends a write to the clone of its VDI.
    func confuse(_ request: inout BlockRequest) {
        guard request.operation == .write else { return }
        for origin in versions.clones.keys.sorted(by: { $0.rawValue < $1.rawValue }) {
            guard engine.handle(of: origin.rawValue) == request.vdi,
                let clone = versions.clones[origin],
                let handle = engine.handle(of: clone.rawValue), isTime(everyNth: 3)
            else { continue }
            request.vdi = handle
        }
    }

    func noteWrite(_ request: BlockRequest) {
        guard request.operation == .write else { return }
        versions.lastWrites[request.vdi] = request.firstSector / UInt64(sectorsPerBlock)
    }

    private func discardLastWrite(to vdi: VDIIdentifier) {
        guard let handle = engine.handle(of: vdi.rawValue),
            let block = versions.lastWrites[handle], engine.freeRequestSlots > 0
        else { return }
        engine.submit(
            BlockRequest(
                operation: .discard, vdi: handle, session: VersionFaults.session, tag: 0,
                firstSector: block * UInt64(sectorsPerBlock),
                sectorCount: UInt64(sectorsPerBlock)))
    }

    // MARK: Snapshots

    func openSnapshot(_ identifier: UInt64) -> UInt32? {
        if fault == .sharesSnapshots, let summary = engine.summary(of: identifier),
            let handle = engine.handle(of: summary.vdi.rawValue), isTime(everyNth: 2)
        {
            versions.aliases[handle, default: 0] += 1
            return handle
        }
        return engine.openSnapshot(identifier)
    }

    func closeSnapshot(_ handle: UInt32) {
        if let count = versions.aliases[handle], count > 0 {
            versions.aliases[handle] = count - 1
        } else {
            engine.closeSnapshot(handle)
        }
    }

    func census(load: @escaping NodeLoader) -> StreamCensus? {
        guard var census = engine.census(load: load) else { return nil }
        if versions.miscounted > 0, let extent = census.counted.keys.min() {
            census.counted[extent, default: 0] += versions.miscounted
        }
        return census
    }
}
