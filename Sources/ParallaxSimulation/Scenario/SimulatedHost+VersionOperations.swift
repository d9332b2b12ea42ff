// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// The operations of a scenario that make, use and delete versions.
extension SimulatedHost {
    func perform(
        version kind: Operation.Kind, _ profile: Profile
    ) throws(SimulationFailure) {
        switch kind {
        case .snapshot: snapshotSomething(profile)
        case .storm: try storm(profile)
        case .clone: try cloneSomething(profile)
        case .chain: try chain(profile)
        case .deleteSnapshot: deleteSnapshots(1)
        case .deleteMany: deleteSnapshots(random.integer(in: 2...30))
        case .rollback: try rollBackSomething()
        case .group: try group(profile)
        case .details: changeDetails()
        case .template: changeAttributes()
        case .readSnapshot: try readSomething()
        case .closeSnapshot: try closeSomething()
        case .diff: try diffSomething()
        case .wrongVersion: try askSomethingWrong()
        case .retain: try retain()
        default: break
        }
    }

    // MARK: Choices

    /// A snapshot that nothing stands in the way of using.
    func randomSnapshot(
        where isFit: (GuestSnapshot) -> Bool = { _ in true }
    ) -> GuestSnapshot? {
        let all = sortedSnapshots.filter {
            isReadable($0) && !$0.isHidden && !isInGroup($0) && isFit($0)
        }
        return all.isEmpty ? nil : all[random.index(below: all.count)]
    }

    func randomHead(where isFit: (GuestDisk) -> Bool = { _ in true }) -> GuestDisk? {
        let all = sortedDisks.filter {
            !$0.isDeletionPending && !$0.isRollingBack && streams[$0.stream].engine != nil
                && isFit($0)
        }
        return all.isEmpty ? nil : all[random.index(below: all.count)]
    }

    func randomDetails(_ prefix: String) -> SnapshotDetails {
        nextName += 1
        var details = SnapshotDetails(name: "\(prefix)-\(nextName)")
        if random.oneIn(4) {
            details.comment = String(repeating: "c", count: random.integer(in: 0...512))
        }
        if random.oneIn(4) {
            details.labels = (0..<random.integer(in: 1...4)).map {
                SnapshotDetails.Label(key: "key-\($0)", value: "\(random.integer(in: 0...999))")
            }
        }
        if random.oneIn(12) { details.holds = [.init(reason: "held", createdAtSeconds: now)] }
        return details
    }

    // MARK: Snapshots

    private func snapshotSomething(_ profile: Profile) {
        guard snapshots.count < profile.maxSnapshots, let disk = randomHead() else { return }
        snapshot(disk)
    }

    private func snapshot(_ disk: GuestDisk) {
        change(
            .snapshot(
                VDIIdentifier(disk.identifier), randomDetails("snap"), createdAtNanoseconds: now,
                group: 0),
            on: streams[disk.stream])
    }

    /// Many in a row, with a few writes between.
    private func storm(_ profile: Profile) throws(SimulationFailure) {
        guard let disk = randomHead() else { return }
        for _ in 0..<random.integer(in: profile.stormLength) {
            guard snapshots.count < profile.maxSnapshots, !disk.isDeletionPending,
                streams[disk.stream].changes.count < 32
            else {
                try runFor(100)
                continue
            }
            snapshot(disk)
            for _ in 0..<random.integer(in: 0...3) {
                try submit(smallWrite(to: disk), to: disk)
            }
            try runFor(random.integer(in: 0...12))
        }
    }

    func smallWrite(to disk: GuestDisk) -> Wish {
        let blocks = Int(min(disk.sectorCount / UInt64(sectorsPerBlock), 1 << 30))
        let spot = Int(disk.hotSpot.lowerBound / UInt64(sectorsPerBlock))
        let block = UInt64(
            random.chance(percent: 70)
                ? min(blocks - 1, spot + random.index(below: 24)) : random.index(below: blocks))
        let size = UInt64(sectorsPerBlock)
        var wish = Wish(.write, (block * size)..<((block + 1) * size))
        if random.oneIn(10) { wish.operation = .discard }
        if random.oneIn(10) { wish.operation = .writeZeroes }
        return wish
    }

    private func deleteSnapshots(_ count: Int) {
        for _ in 0..<count {
            guard let snapshot = randomSnapshot(), streams[snapshot.stream].changes.count < 40
            else { return }
            change(
                .deleteSnapshot(SnapshotIdentifier(snapshot.identifier)),
                on: streams[snapshot.stream])
        }
    }

    private func changeDetails() {
        guard let snapshot = randomSnapshot(where: { $0.changesInFlight == 0 }),
            let before = snapshot.details.first
        else { return }
        var details = randomDetails("named")
        details.labels += before.labels
        // Mostly holds are released, so that deletions get through.
        details.holds = random.chance(percent: 25) ? details.holds + before.holds : []
        guard details.isValid else { return }
        change(
            .setDetails(SnapshotIdentifier(snapshot.identifier), details),
            on: streams[snapshot.stream])
    }

    // MARK: Clones and rollbacks

    private func cloneSomething(_ profile: Profile) throws(SimulationFailure) {
        guard let snapshot = randomSnapshot() else { return }
        try clone(snapshot, profile)
    }

    private func clone(
        _ snapshot: GuestSnapshot, _ profile: Profile
    ) throws(SimulationFailure) {
        guard disks.count < profile.maxDisks else { return }
        try decide(snapshot)
        guard isReadable(snapshot), model(of: snapshot) != nil else { return }
        nextName += 1
        var size = snapshot.sizeBytes
        if random.oneIn(3) { size += UInt64(random.integer(in: 0...1024)) * UInt64(blockBytes) }
        size = min(size, Limits.vdiBytes.upperBound)
        change(
            .clone(
                of: SnapshotIdentifier(snapshot.identifier), name: "clone-\(nextName)",
                sizeBytes: size, createdAtNanoseconds: now),
            on: streams[snapshot.stream])
    }

    /// Clones of snapshots of clones, each with a write of its own.
    private func chain(_ profile: Profile) throws(SimulationFailure) {
        guard var snapshot = randomSnapshot() else { return }
        for _ in 0..<random.integer(in: 2...8) {
            let before = Set(disks.keys)
            try clone(snapshot, profile)
            try drain()
            guard let identifier = disks.keys.filter({ !before.contains($0) }).min(),
                let disk = disks[identifier], !disk.isDeletionPending
            else { return }
            for _ in 0..<random.integer(in: 0...6) {
                try submit(smallWrite(to: disk), to: disk)
            }
            let known = Set(snapshots.keys)
            self.snapshot(disk)
            try drain()
            guard let next = snapshots.keys.filter({ !known.contains($0) }).min(),
                let made = snapshots[next]
            else { return }
            snapshot = made
        }
    }

    private func rollBackSomething() throws(SimulationFailure) {
        func isQuiet(_ disk: GuestDisk) -> Bool {
            disk.changesInFlight == 0 && disk.snapshotsInFlight == 0 && !isInGroup(disk)
                && !disk.isDeletionPending && !disk.isRollingBack
        }
        guard let disk = randomHead(where: isQuiet),
            let snapshot = randomSnapshot(where: {
                $0.disk == disk.identifier && $0.changesInFlight == 0
            })
        else { return }
        let keeps = random.chance(percent: 60)
        // Sometimes nobody waits for the guest to be detached.
        if !keeps || random.chance(percent: 80) {
            try run("the guest to be detached") { disk.requestsInFlight == 0 }
        }
        if !keeps {
            while try !submit(Wish(.flush), to: disk) { try step() }
            try run("the flush") { disk.requestsInFlight == 0 }
        }
        try decide(snapshot)
        guard isQuiet(disk), isReadable(snapshot), model(of: snapshot)?.isDecided == true,
            streams[disk.stream].engine?.failureMessage == nil
        else { return }
        var details = randomDetails("before")
        details.origin = .automatic
        change(
            .rollback(
                VDIIdentifier(disk.identifier), to: SnapshotIdentifier(snapshot.identifier),
                keeping: keeps ? details : nil, createdAtNanoseconds: now),
            on: streams[disk.stream])
    }

    private func changeAttributes() {
        guard let disk = randomHead(where: { $0.changesInFlight == 0 }) else { return }
        let isTemplate = !disk.mayBeTemplate && random.chance(percent: 40)
        let policy = String(repeating: "p", count: random.integer(in: 0...64))
        change(
            .setAttributes(
                VDIIdentifier(disk.identifier),
                VDIAttributes(isTemplate: isTemplate, policy: policy)),
            on: streams[disk.stream])
    }

    // MARK: Groups

    /// Snapshots of several disks at once, while somebody writes to one after the other, each
    /// time only when the last write is answered.
    private func group(_ profile: Profile) throws(SimulationFailure) {
        var members: [GuestDisk] = []
        for _ in 0..<random.integer(in: 2...4) {
            let next = randomHead { disk in
                !members.contains { $0 === disk } && !isInGroup(disk) && !disk.mayBeTemplate
            }
            if let next { members.append(next) }
        }
        guard members.count > 1, groups.count < 3, snapshots.count < profile.maxSnapshots else {
            return
        }
        let number = beginGroup(of: members)
        var left = members
        for round in 0..<random.integer(in: members.count...16) {
            let disk = members[round % members.count]
            guard try relay(to: disk, isPatient: left.isEmpty) else { break }
            if let next = left.first, random.chance(percent: 60) || left.count == members.count {
                left.removeFirst()
                submitMember(next, of: number)
                try runFor(random.integer(in: 0...10))
            }
        }
        for disk in left { submitMember(disk, of: number) }
        if random.oneIn(2) { try runFor(random.integer(in: 1...100)) }
    }

    /// A write, and its answer. As long as a member has not even been asked for, another's stream
    /// may hold the answer back for ever: false then.
    private func relay(
        to disk: GuestDisk, isPatient: Bool
    ) throws(SimulationFailure) -> Bool {
        guard !disk.isDeletionPending, !disk.isRollingBack else { return true }
        let tag = nextTag
        var wish = smallWrite(to: disk)
        wish.operation = .write
        guard try submit(wish, to: disk) else { return true }
        let stream = streams[disk.stream]
        if isPatient {
            _ = try waitForReply(to: tag, on: stream)
            return true
        }
        for _ in 0..<400 where stream.requests[tag] != nil { try step() }
        return stream.requests[tag] == nil
    }

    // MARK: Reading

    /// A snapshot is attached and read, while its head goes on and its neighbours come and go.
    private func readSomething() throws(SimulationFailure) {
        guard let snapshot = randomSnapshot() else { return }
        guard try open(snapshot) else { return }
        let limit = Int(min(snapshot.sectorCount, 1 << 40))
        for _ in 0..<random.integer(in: 1...12) {
            let length = random.chance(percent: 60) ? 8 * random.integer(in: 1...32) : 1
            var first = random.index(below: limit)
            if let tracked = model(of: snapshot)?.trackedBlocks.randomElement(using: &random) {
                first = Int(tracked) * sectorsPerBlock
            }
            if random.oneIn(5) { first += random.index(below: 8) }
            first = min(first, limit - 1)
            let end = min(first + length, limit)
            _ = submit(
                random.oneIn(6) ? .allocation : .read, UInt64(first)..<UInt64(end), of: snapshot,
                layout: RequestMemory.Layout.allCases[random.weightedIndex([60, 25, 15])])
            if random.oneIn(3) { try runFor(random.integer(in: 1...10)) }
        }
        let openCount = snapshots.values.reduce(0) { $0 + $1.openings }
        if openCount > 6 || random.oneIn(3) { try close(snapshot) }
    }

    private func closeSomething() throws(SimulationFailure) {
        let all = sortedSnapshots.filter { $0.openings > 0 }
        guard !all.isEmpty else { return }
        try close(all[random.index(below: all.count)])
    }

    func closeAll() throws(SimulationFailure) {
        for snapshot in sortedSnapshots {
            while snapshot.openings > 0 { try close(snapshot) }
        }
    }

    private func diffSomething() throws(SimulationFailure) {
        guard let new = randomSnapshot() else { return }
        let old = random.oneIn(8) ? nil : randomSnapshot { $0.stream == new.stream }
        try decide(new)
        if let old { try decide(old) }
        let isDecided = [new, old].allSatisfy { snapshot in
            snapshot.map { model(of: $0)?.isDecided == true } ?? true
        }
        guard isDecided, isReadable(new), old.map(isReadable) ?? true else { return }
        var blocks: Range<UInt64>?
        if random.oneIn(3) {
            let first = UInt64(random.index(below: 600))
            blocks = first..<(first + UInt64(random.integer(in: 1...2000)))
        }
        submitDiff(old, new, blocks: blocks)
    }
}
