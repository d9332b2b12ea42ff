// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// What the administrator asks for.
extension SimulatedHost {
    /// Asks for a change. With `refusal`, it is wrong in itself, and that must be the answer.
    package func change(
        _ change: CatalogChange, on stream: SimulatedStream, expecting refusal: CatalogError? = nil
    ) {
        guard let engine = stream.engine else { return }
        nextTicket += 1
        let ticket = nextTicket
        var entry = ChangeInFlight(
            change: change, covered: stream.oracle.sequence, refusal: refusal)
        statistics.changes += 1
        if refusal == nil { begin(&entry, stream) }
        stream.changes[ticket] = entry
        trace.note(.change, ticket, UInt64(stream.index), "change \(ticket): \(change)")
        engine.submit(change: change, ticket: ticket)
    }

    private func begin(_ entry: inout ChangeInFlight, _ stream: SimulatedStream) {
        switch entry.change {
        case .create: break
        case .resize(let identifier, let sizeBytes):
            let disk = disks[identifier.rawValue]
            beginShrinking(identifier.rawValue, to: sizeBytes, &entry, stream)
            disk?.sizes.insert(sizeBytes)
            disk?.changesInFlight += 1
        case .rename(let identifier, let name):
            disks[identifier.rawValue]?.names.insert(name)
            disks[identifier.rawValue]?.changesInFlight += 1
        case .delete(let identifier):
            disks[identifier.rawValue]?.isDeletionPending = true
            disks[identifier.rawValue]?.changesInFlight += 1
            for snapshot in snapshots(of: identifier.rawValue) {
                entry.mayBeInUse = entry.mayBeInUse || snapshot.openings > 0
            }
        case .setAttributes(let identifier, let attributes):
            disks[identifier.rawValue]?.attributes.append(attributes)
            if attributes.quotaBytes > 0 { rationed.insert(identifier.rawValue) }
            disks[identifier.rawValue]?.changesInFlight += 1
        case .clone, .snapshot, .setDetails, .deleteSnapshot, .rollback, .finishGroup:
            beginVersionChange(&entry, stream)
        }
    }

    func drainChangeReplies(_ stream: SimulatedStream) throws(SimulationFailure) {
        while let reply = stream.engine?.nextChangeReply() {
            trace.note(.changeReply, reply.ticket, "change \(reply.ticket): \(reply.result)")
            guard let entry = stream.changes.removeValue(forKey: reply.ticket) else {
                throw SimulationFailure("reply to change \(reply.ticket), which was not waiting")
            }
            if let refusal = entry.refusal {
                try checkRefusal(reply.result, refusal, entry, stream)
                continue
            }
            endShrinking(reply.result, entry, stream)
            switch reply.result {
            case .success(let outcome):
                stream.oracle.markSafe(through: entry.covered)
                try settle(entry, outcome, stream)
            case .failure(.ioError):
                guard mayFail(stream) else {
                    throw SimulationFailure("change \(entry.change) failed for no reason")
                }
                // One that a damaged node has stopped has not been made, and the engine goes on.
                guard stream.engine?.failureMessage != nil else {
                    undo(entry, stream)
                    continue
                }
                stream.interrupted.append(entry)
                noteInterrupted(entry.change)
            case .failure(let error):
                try revert(entry, error, stream)
            }
        }
    }

    private func checkRefusal(
        _ result: Result<CatalogOutcome, CatalogError>, _ refusal: CatalogError,
        _ entry: ChangeInFlight, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        statistics.refusals += 1
        if case .failure(let error) = result {
            if error == refusal || error == .ioError && mayFail(stream) { return }
        }
        throw SimulationFailure("change \(entry.change) was answered \(result), not \(refusal)")
    }

    /// What lies behind a smaller end is discarded, as far as the change gets.
    private func beginShrinking(
        _ identifier: UInt64, to sizeBytes: UInt64, _ entry: inout ChangeInFlight,
        _ stream: SimulatedStream
    ) {
        let size = UInt64(sectorBytes)
        guard let old = disks[identifier]?.sizes.min(), sizeBytes < old else { return }
        entry.shrinkStamp = stream.oracle.beginMutation(
            vdi: identifier, sectors: (sizeBytes / size)..<(old / size), isZeroing: true,
            waitsForSync: true)
    }

    private func endShrinking(
        _ result: Result<CatalogOutcome, CatalogError>, _ entry: ChangeInFlight,
        _ stream: SimulatedStream
    ) {
        guard let stamp = entry.shrinkStamp else { return }
        switch result {
        case .success: stream.oracle.endMutation(stamp, outcome: .done, covered: entry.covered)
        case .failure(.noSpace), .failure(.ioError):
            stream.oracle.endMutation(stamp, outcome: .failed)
        case .failure: stream.oracle.endMutation(stamp, outcome: .refused)
        }
    }

    private func settle(
        _ entry: ChangeInFlight, _ outcome: CatalogOutcome, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        switch (entry.change, outcome) {
        case (.create(let name, let sizeBytes, _), .vdi(let identifier)):
            try addDisk(identifier.rawValue, stream, name: name, sizeBytes: sizeBytes, from: nil)
        case (.resize(let target, let sizeBytes), .vdi(let made)) where made == target:
            disks[target.rawValue]?.sizes = [sizeBytes]
            disks[target.rawValue]?.changesInFlight -= 1
        case (.rename(let target, let name), .vdi(let made)) where made == target:
            disks[target.rawValue]?.names = [name]
            disks[target.rawValue]?.changesInFlight -= 1
        case (.setAttributes(let target, let attributes), .vdi(let made)) where made == target:
            disks[target.rawValue]?.attributes = [attributes]
            disks[target.rawValue]?.changesInFlight -= 1
        case (.delete(let target), .vdi(let made)) where made == target:
            forget(target.rawValue, stream)
        default:
            try settleVersionChange(entry, outcome, stream)
        }
    }

    func addDisk(
        _ identifier: UInt64, _ stream: SimulatedStream, name: String, sizeBytes: UInt64,
        from source: ModelSnapshot?
    ) throws(SimulationFailure) {
        if disks[identifier] != nil || deleted.contains(identifier) {
            throw SimulationFailure("identifier \(hex(identifier)) was given twice")
        }
        let sectors = sizeBytes / UInt64(sectorBytes)
        let spot = UInt64(random.index(below: Int(sectors)))
        let length = UInt64(random.integer(in: 8...256))
        let disk = GuestDisk(
            identifier: identifier, stream: stream.index, name: name, sizeBytes: sizeBytes,
            hotSpot: spot..<min(sectors, spot + length))
        disks[identifier] = disk
        if let source {
            disk.parent = nearest(source.identifier)
            stream.oracle.addDisk(
                ModelDisk(identifier: identifier, sectorCount: sectors, from: source))
        } else {
            stream.oracle.addDisk(identifier, sectorCount: sectors)
        }
    }

    /// The VDI is gone, and its snapshots with it.
    func forget(_ identifier: UInt64, _ stream: SimulatedStream) {
        for snapshot in snapshots(of: identifier) { forget(snapshot) }
        disks[identifier] = nil
        deleted.insert(identifier)
        stream.oracle.removeDisk(identifier)
    }

    private func revert(
        _ entry: ChangeInFlight, _ error: CatalogError, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        statistics.refusals += 1
        let isLegal =
            error == .noSpace
            ? (stream.lastSupplyWasNil || stream.nilSupplies > 0) && !makesRoom(entry.change)
            : isExpectedRefusal(entry, error)
        guard isLegal else {
            throw SimulationFailure("change \(entry.change) was refused without a reason: \(error)")
        }
        undo(entry, stream)
    }

    /// The release of a hold does, too, if it is one whatever else is on its way.
    private func makesRoom(_ change: CatalogChange) -> Bool {
        guard case .setDetails(let identifier, let details) = change, !details.isHeld,
            let before = snapshots[identifier.rawValue]?.details.dropLast()
        else { return change.makesRoom }
        return before.allSatisfy(\.isHeld)
    }

    private func undo(_ entry: ChangeInFlight, _ stream: SimulatedStream) {
        let disk = entry.change.vdi.flatMap { disks[$0] }
        switch entry.change {
        case .create: break
        case .resize(_, let sizeBytes):
            disk?.changesInFlight -= 1
            if let disk, disk.sizes.count > 1 { disk.sizes.remove(sizeBytes) }
        case .rename(_, let name):
            disk?.changesInFlight -= 1
            if let disk, disk.names.count > 1 { disk.names.remove(name) }
        case .setAttributes:
            disk?.changesInFlight -= 1
            disk?.attributes.removeLast()
        case .delete:
            disk?.changesInFlight -= 1
            disk?.isDeletionPending = false
        case .clone, .snapshot, .setDetails, .deleteSnapshot, .rollback, .finishGroup:
            revertVersionChange(entry, stream)
        }
    }

    /// Changes that are wrong in themselves, or come at the wrong time.
    private func isExpectedRefusal(_ entry: ChangeInFlight, _ error: CatalogError) -> Bool {
        switch entry.change {
        case .create(let name, let sizeBytes, _):
            return !Self.isGoodName(name) || !Self.isGoodSize(sizeBytes)
                || disks.values.contains { $0.names.contains(name) }
        case .resize(let identifier, let sizeBytes):
            guard let disk = disks[identifier.rawValue] else { return error == .noSuchVDI }
            return !Self.isGoodSize(sizeBytes) || disk.isDeletionPending
        case .rename(let identifier, let name):
            guard let disk = disks[identifier.rawValue] else { return error == .noSuchVDI }
            return !Self.isGoodName(name) || disk.isDeletionPending
                || disks.values.contains { $0 !== disk && $0.names.contains(name) }
        case .setAttributes(let identifier, _):
            return error == .noSuchVDI && disks[identifier.rawValue]?.isDeletionPending ?? true
        case .delete(let identifier):
            switch error {
            case .noSuchVDI: return disks[identifier.rawValue] == nil
            case .inUse: return entry.mayBeInUse
            case .held: return snapshots(of: identifier.rawValue).contains { $0.mayBeHeld }
            default: return false
            }
        case .clone, .snapshot, .setDetails, .deleteSnapshot, .rollback, .finishGroup:
            return isExpectedVersionRefusal(entry, error)
        }
    }

    static func isGoodName(_ name: String) -> Bool {
        (1...100).contains(name.utf8.count)
            && !name.unicodeScalars.contains { "@/".unicodeScalars.contains($0) || $0.value < 0x20 }
    }

    static func isGoodSize(_ sizeBytes: UInt64) -> Bool {
        sizeBytes >= 1 << 20 && sizeBytes <= 64 << 40 && sizeBytes % UInt64(blockBytes) == 0
    }
}
