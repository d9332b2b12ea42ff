// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What must hold at the end of every scenario, on a device that is healthy again.
extension SimulatedHost {
    func finish(_ profile: Profile) throws(SimulationFailure) {
        trace.note(.operation, .max, "-- the end")
        device.faults = .none
        random = SeededRandom(seed: random.next())
        device.random = random.fork()
        if streams.contains(where: { $0.engine?.failureMessage != nil }) {
            crash(.processLoss)
            guard try reopen() else { return }
        }
        try closeAll()
        try verify()
        try flushAll()
        crash(.powerLoss)
        guard try reopen(), !hasLostTrust else { return }
        try verify(budget: 60_000)
        if !mayBeDamaged { try becomeEmpty(profile) }
    }

    private func flushAll() throws(SimulationFailure) {
        for disk in sortedDisks where !disk.isDeletionPending && !disk.isRollingBack {
            while try !submit(Wish(.flush), to: disk) { try step() }
        }
        try drain()
    }

    /// Space comes back: with all VDIs deleted, nearly all slots are free, and there is room for a
    /// new VDI.
    private func becomeEmpty(_ profile: Profile) throws(SimulationFailure) {
        try closeAll()
        try releaseHolds()
        for disk in sortedDisks {
            change(.delete(VDIIdentifier(disk.identifier)), on: streams[disk.stream])
        }
        try drain()
        // What a stream has leased in advance comes back when somebody else is short.
        for _ in 0..<4 {
            try settle()
            for stream in streams { stream.engine?.giveBackSpace() }
            try runFor(200)
        }
        try settle()
        let expected = store.slotCount - streams.count * Self.slotsKeptByStream(profile)
        guard freeSlots.count >= expected else {
            throw SimulationFailure(
                "with all VDIs deleted only \(freeSlots.count) of \(store.slotCount) slots are free; "
                    + streams.map { $0.engine?.diagnosis ?? "" }.joined(separator: "; "))
        }
        // A stream that was told that the store is full asks again after a while.
        now += 1_000_000_000
        try settle()
        for stream in streams {
            change(
                .create(name: "last", sizeBytes: 1 << 20, createdAtNanoseconds: now), on: stream)
            try drain()
        }
        let acknowledged = streams.map(\.oracle.sequence)
        for disk in sortedDisks {
            var wish = Wish(.write, 0..<256)
            wish.forceUnitAccess = true
            try submit(wish, to: disk)
        }
        try drain()
        guard acknowledged.map({ $0 + 1 }) == streams.map(\.oracle.sequence) else {
            throw SimulationFailure("an empty store takes no write")
        }
        try verify()
    }

    private func releaseHolds() throws(SimulationFailure) {
        for snapshot in sortedSnapshots where snapshot.mayBeHeld {
            guard var details = snapshot.details.first else { continue }
            details.holds = []
            change(
                .setDetails(SnapshotIdentifier(snapshot.identifier), details),
                on: streams[snapshot.stream])
        }
        try drain()
    }

    /// The open extent, those leased ahead of the log so that a checkpoint has room in any case,
    /// the cleaner's two, and what the last checkpoint still needs: more where there were many
    /// records to write.
    private static func slotsKeptByStream(_ profile: Profile) -> Int {
        profile.character == .storming ? 18 : 10
    }
}
