// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Changes of versions that must be refused, each with its own error.
extension SimulatedHost {
    func askSomethingWrong() throws(SimulationFailure) {
        switch random.index(below: 4) {
        case 0: askForWhatIsNotThere()
        case 1: askWithBadValues()
        case 2: try deleteWhatIsInUse()
        default: try writeWhereNobodyMay()
        }
    }

    private func askForWhatIsNotThere() {
        let stream = streams[random.index(below: streams.count)]
        let noVDI = VDIIdentifier(UInt64(stream.index) << 48 | 0xFFFF_0000)
        let noSnapshot = SnapshotIdentifier(
            1 << 63 | UInt64(stream.index) << 48 | UInt64(random.index(below: 1 << 24)) << 24
                | 0xFF_FFF0)
        let details = randomDetails("wrong")
        let mine = randomHead { $0.stream == stream.index && $0.changesInFlight == 0 }
        switch random.index(below: 8) {
        case 0:
            change(
                .snapshot(noVDI, details, createdAtNanoseconds: now, group: 0), on: stream,
                expecting: .noSuchVDI)
        case 1:
            change(
                .clone(of: noSnapshot, name: "x", sizeBytes: 1 << 20, createdAtNanoseconds: now),
                on: stream, expecting: .noSuchSnapshot)
        case 2: change(.setDetails(noSnapshot, details), on: stream, expecting: .noSuchSnapshot)
        case 3: change(.deleteSnapshot(noSnapshot), on: stream, expecting: .noSuchSnapshot)
        case 4:
            change(
                .rollback(noVDI, to: noSnapshot, keeping: nil, createdAtNanoseconds: now),
                on: stream, expecting: .noSuchVDI)
        case 5:
            guard let mine, mine.requestsInFlight == 0 else { return }
            change(
                .rollback(
                    VDIIdentifier(mine.identifier), to: noSnapshot, keeping: details,
                    createdAtNanoseconds: now),
                on: stream, expecting: .noSuchSnapshot)
        case 6:
            change(
                .finishGroup(random.next() | 1, commit: true), on: stream,
                expecting: .noSuchGroup)
        default: change(.setAttributes(noVDI, VDIAttributes()), on: stream, expecting: .noSuchVDI)
        }
    }

    private func askWithBadValues() {
        var details = randomDetails("wrong")
        details.comment = String(repeating: "x", count: 513)
        if let disk = randomHead(where: { $0.changesInFlight == 0 }), random.oneIn(2) {
            let identifier = VDIIdentifier(disk.identifier)
            let policy = String(repeating: "p", count: Limits.policyBytes + 1)
            let isSnapshot = random.oneIn(2)
            change(
                isSnapshot
                    ? .snapshot(identifier, details, createdAtNanoseconds: now, group: 0)
                    : .setAttributes(identifier, VDIAttributes(policy: policy)),
                on: streams[disk.stream], expecting: .invalidDetails)
            return
        }
        guard let snapshot = randomSnapshot() else { return }
        let identifier = SnapshotIdentifier(snapshot.identifier)
        let stream = streams[snapshot.stream]
        switch random.index(below: 3) {
        case 0: change(.setDetails(identifier, details), on: stream, expecting: .invalidDetails)
        case 1:
            let size = snapshot.sizeBytes - (random.oneIn(2) ? 512 : UInt64(blockBytes))
            change(
                .clone(of: identifier, name: "small", sizeBytes: size, createdAtNanoseconds: now),
                on: stream, expecting: .invalidSize)
        default:
            change(
                .clone(
                    of: identifier, name: "", sizeBytes: snapshot.sizeBytes,
                    createdAtNanoseconds: now),
                on: stream, expecting: .invalidName)
        }
    }

    /// What is held or open stays.
    private func deleteWhatIsInUse() throws(SimulationFailure) {
        let held = randomSnapshot {
            $0.changesInFlight == 0 && $0.openings == 0 && $0.details.allSatisfy { $0.isHeld }
        }
        if let held, let disk = disks[held.disk] {
            change(
                .deleteSnapshot(SnapshotIdentifier(held.identifier)), on: streams[held.stream],
                expecting: .held)
            guard snapshots(of: disk.identifier).allSatisfy({ $0.openings == 0 }),
                disk.changesInFlight == 0, !isInGroup(disk)
            else { return }
            change(
                .delete(VDIIdentifier(disk.identifier)), on: streams[disk.stream],
                expecting: .held)
            return
        }
        guard
            let snapshot = randomSnapshot(where: { $0.changesInFlight == 0 && !$0.mayBeHeld }),
            try open(snapshot)
        else { return }
        change(
            .deleteSnapshot(SnapshotIdentifier(snapshot.identifier)),
            on: streams[snapshot.stream], expecting: .inUse)
        try drain()
        try close(snapshot)
    }

    /// Snapshots are for reading.
    private func writeWhereNobodyMay() throws(SimulationFailure) {
        guard let snapshot = randomSnapshot(), try open(snapshot), let handle = snapshot.handle
        else { return }
        let operations: [BlockRequest.Operation] = [.write, .discard, .writeZeroes]
        let operation = operations[random.index(below: operations.count)]
        var request = BlockRequest(operation: operation, vdi: handle, session: 0, tag: 0)
        request.sectorCount = UInt64(sectorsPerBlock)
        request.segmentCount = operation == .write ? 1 : 0
        submitRefused(request, to: streams[snapshot.stream], expecting: .readOnly)
        try drain()
        try close(snapshot)
    }
}
