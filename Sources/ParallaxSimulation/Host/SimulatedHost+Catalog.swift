// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What the administrator asks for.
extension SimulatedHost {
    package func change(_ change: DiskChange, on stream: SimulatedStream) {
        guard let engine = stream.engine else { return }
        nextTicket += 1
        let ticket = nextTicket
        stream.changes[ticket] = change
        stream.changeCovers[ticket] = stream.oracle.sequence
        statistics.changes += 1
        switch change {
        case .create: break
        case .resize(let identifier, let sizeBytes):
            beginShrinking(identifier, to: sizeBytes, ticket, stream)
            disks[identifier]?.sizes.insert(sizeBytes)
            disks[identifier]?.changesInFlight += 1
        case .rename(let identifier, let name):
            disks[identifier]?.names.insert(name)
            disks[identifier]?.changesInFlight += 1
        case .delete(let identifier):
            disks[identifier]?.isDeletionPending = true
            disks[identifier]?.changesInFlight += 1
        }
        trace.note(.change, ticket, UInt64(stream.index), "change \(ticket): \(change)")
        engine.submit(change: change, ticket: ticket)
    }

    func drainChangeReplies(_ stream: SimulatedStream) throws(SimulationFailure) {
        while let reply = stream.engine?.nextChangeReply() {
            trace.note(.changeReply, reply.ticket, "change \(reply.ticket): \(reply.outcome)")
            guard let change = stream.changes.removeValue(forKey: reply.ticket),
                let covered = stream.changeCovers.removeValue(forKey: reply.ticket)
            else {
                throw SimulationFailure("reply to change \(reply.ticket), which was not waiting")
            }
            endShrinking(reply, covered, stream)
            switch reply.outcome {
            case .done(let identifier):
                stream.oracle.markSafe(through: covered)
                try settle(change, identifier, stream)
            case .refused(let reason):
                try revert(change, isLegal: isExpectedRefusal(change), reason)
            case .noSpace:
                try revert(
                    change, isLegal: stream.lastSupplyWasNil || stream.nilSupplies > 0, "no space")
            case .failed(let reason):
                guard device.statistics.errors > stream.errorsAtOpen else {
                    throw SimulationFailure("change \(change) failed for no reason: \(reason)")
                }
                leaveOpen(change, stream)
            }
        }
    }

    /// What lies behind a smaller end is discarded, as far as the change gets.
    private func beginShrinking(
        _ identifier: UInt64, to sizeBytes: UInt64, _ ticket: UInt64, _ stream: SimulatedStream
    ) {
        let size = UInt64(sectorBytes)
        guard let old = disks[identifier]?.sizes.min(), sizeBytes < old else { return }
        stream.shrinkStamps[ticket] = stream.oracle.beginMutation(
            vdi: identifier, sectors: (sizeBytes / size)..<(old / size), isZeroing: true,
            waitsForSync: true)
    }

    private func endShrinking(
        _ reply: DiskChangeReply, _ covered: Int, _ stream: SimulatedStream
    ) {
        guard let stamp = stream.shrinkStamps.removeValue(forKey: reply.ticket) else { return }
        switch reply.outcome {
        case .done: stream.oracle.endMutation(stamp, outcome: .done, covered: covered)
        case .refused: stream.oracle.endMutation(stamp, outcome: .refused)
        case .noSpace, .failed: stream.oracle.endMutation(stamp, outcome: .failed)
        }
    }

    private func settle(
        _ change: DiskChange, _ identifier: UInt64, _ stream: SimulatedStream
    ) throws(SimulationFailure) {
        switch change {
        case .create(let name, let sizeBytes, _):
            if disks[identifier] != nil || deleted.contains(identifier) {
                throw SimulationFailure("identifier \(hex(identifier)) was given twice")
            }
            addDisk(identifier, stream, name: name, sizeBytes: sizeBytes)
        case .resize(let target, let sizeBytes):
            disks[target]?.sizes = [sizeBytes]
            disks[target]?.changesInFlight -= 1
        case .rename(let target, let name):
            disks[target]?.names = [name]
            disks[target]?.changesInFlight -= 1
        case .delete(let target):
            forget(target, stream)
        }
    }

    func addDisk(
        _ identifier: UInt64, _ stream: SimulatedStream, name: String, sizeBytes: UInt64
    ) {
        let sectors = sizeBytes / UInt64(sectorBytes)
        let spot = UInt64(random.index(below: Int(sectors)))
        let length = UInt64(random.integer(in: 8...256))
        disks[identifier] = GuestDisk(
            identifier: identifier, stream: stream.index, name: name, sizeBytes: sizeBytes,
            hotSpot: spot..<min(sectors, spot + length))
        stream.oracle.addDisk(identifier, sectorCount: sectors)
    }

    func forget(_ identifier: UInt64, _ stream: SimulatedStream) {
        disks[identifier] = nil
        deleted.insert(identifier)
        stream.oracle.removeDisk(identifier)
    }

    private func revert(
        _ change: DiskChange, isLegal: Bool, _ reason: String
    ) throws(SimulationFailure) {
        statistics.refusals += 1
        guard isLegal else {
            throw SimulationFailure("change \(change) was refused without a reason: \(reason)")
        }
        switch change {
        case .create: break
        case .resize(let identifier, let sizeBytes):
            disks[identifier]?.changesInFlight -= 1
            if let disk = disks[identifier], disk.sizes.count > 1 { disk.sizes.remove(sizeBytes) }
        case .rename(let identifier, let name):
            disks[identifier]?.changesInFlight -= 1
            if let disk = disks[identifier], disk.names.count > 1 { disk.names.remove(name) }
        case .delete(let identifier):
            disks[identifier]?.changesInFlight -= 1
            disks[identifier]?.isDeletionPending = false
        }
    }

    /// The device failed under a change: it has happened or not.
    private func leaveOpen(_ change: DiskChange, _ stream: SimulatedStream) {
        if case .create = change { stream.interruptedCreations.append(change) }
        if case .delete(let identifier) = change {
            stream.interruptedDeletions.insert(identifier)
        }
    }

    /// Changes that are wrong in themselves.
    private func isExpectedRefusal(_ change: DiskChange) -> Bool {
        switch change {
        case .create(let name, let sizeBytes, _):
            return !Self.isGoodName(name) || !Self.isGoodSize(sizeBytes)
                || disks.values.contains { $0.names.contains(name) }
        case .resize(let identifier, let sizeBytes):
            guard let disk = disks[identifier] else { return true }
            return !Self.isGoodSize(sizeBytes) || disk.isDeletionPending
        case .rename(let identifier, let name):
            guard let disk = disks[identifier] else { return true }
            return !Self.isGoodName(name) || disk.isDeletionPending
                || disks.values.contains { $0 !== disk && $0.names.contains(name) }
        case .delete(let identifier):
            return disks[identifier] == nil
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
