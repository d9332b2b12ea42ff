// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// A group of snapshots on its way, as the control plane sees it.
///
///     members submitted --cut, cut, cut--> released --answered--> finishing --> acknowledged
struct GroupInFlight {
    var number: UInt64
    var createdAt: UInt64
    var disks: [UInt64]
    /// Streams of the members, one for each member.
    var streams: [Int]
    var cuts = 0
    var failures = 0
    var isReleased = false
    var answered: [UInt64] = []
    /// Streams whose `finishGroup` is not answered.
    var unfinished: Set<Int> = []
    var isFinishing = false
}

/// Atomic cuts across several VDIs: this is what the control plane does for them.
extension SimulatedHost {
    static func groupLabel(_ number: UInt64) -> SnapshotDetails.Label {
        SnapshotDetails.Label(key: "parallax.group", value: String(number, radix: 16))
    }

    static func memberCount(of group: UInt64) -> Int { Int(group & 0xFFFF) }

    /// Unfinished members that are known.
    func members(of group: UInt64, on stream: SimulatedStream) -> [GuestSnapshot] {
        sortedSnapshots.filter { $0.stream == stream.index && $0.groups.contains(group) }
    }

    func beginGroup(of members: [GuestDisk]) -> UInt64 {
        let number = random.next() << 16 | UInt64(members.count)
        groups[number] = GroupInFlight(
            number: number, createdAt: now, disks: members.map(\.identifier),
            streams: members.map(\.stream))
        return number
    }

    func submitMember(_ disk: GuestDisk, of number: UInt64) {
        guard let group = groups[number] else { return }
        nextName += 1
        let details = SnapshotDetails(
            name: "member-\(nextName)", labels: [Self.groupLabel(number)])
        change(
            .snapshot(
                VDIIdentifier(disk.identifier), details, createdAtNanoseconds: group.createdAt,
                group: number),
            on: streams[disk.stream])
    }

    func drainCuts(_ stream: SimulatedStream) {
        while let number = stream.engine?.nextCut() {
            trace.note(.cut, UInt64(stream.index), number, "  stream \(stream.index): cut made")
            groups[number]?.cuts += 1
            // A cut that comes after the group was given up must not hold its stream back.
            if groups[number]?.isReleased ?? true { stream.engine?.releaseGroup(number) }
            advance(number)
        }
    }

    func noteMember(_ snapshot: UInt64, of number: UInt64) {
        guard number != 0 else { return }
        groups[number]?.answered.append(snapshot)
        advance(number)
    }

    func noteFailedMember(of number: UInt64) {
        guard number != 0 else { return }
        groups[number]?.failures += 1
        advance(number)
    }

    private func advance(_ number: UInt64) {
        guard var group = groups[number] else { return }
        let isLost = group.failures > 0
        if !group.isReleased, isLost || group.cuts == group.streams.count {
            group.isReleased = true
            trace.note(.cut, number, "group \(hex(number)) released")
            for index in Set(group.streams).sorted() {
                streams[index].engine?.releaseGroup(number)
            }
        }
        groups[number] = group
        let isAnswered = group.answered.count + group.failures == group.streams.count
        guard isAnswered, !group.isFinishing else { return }
        // The control plane finishes only what is there.
        let involved = Set(group.answered.compactMap { snapshots[$0]?.stream })
        group.isFinishing = true
        group.unfinished = involved
        groups[number] = involved.isEmpty ? nil : group
        for index in involved.sorted() {
            change(.finishGroup(number, commit: !isLost), on: streams[index])
        }
    }

    func settleGroup(_ number: UInt64, commit: Bool, _ stream: SimulatedStream) {
        for member in members(of: number, on: stream) {
            if commit { member.groups = [0] } else { forget(member) }
        }
        guard var group = groups[number] else { return }
        group.unfinished.remove(stream.index)
        groups[number] = group.unfinished.isEmpty ? nil : group
        guard group.unfinished.isEmpty, commit else { return }
        statistics.groups += 1
        uncheckedGroups.append(group.answered)
    }

    /// The device failed under a member, or under the end of a group: after a crash it will be
    /// finished.
    func noteInterrupted(_ change: CatalogChange) {
        switch change {
        case .snapshot(_, _, _, let group): noteFailedMember(of: group)
        case .finishGroup(let group, _): groups[group] = nil
        default: break
        }
    }

    func isInGroup(_ disk: GuestDisk) -> Bool {
        groups.values.contains { $0.disks.contains(disk.identifier) }
    }

    func isInGroup(_ snapshot: GuestSnapshot) -> Bool {
        groups.values.contains { $0.answered.contains(snapshot.identifier) }
    }

    // MARK: After a crash

    /// Members that a crash has left unfinished: all become visible if one is, or none.
    func finishInterruptedGroups() throws(SimulationFailure) {
        groups = [:]
        var pending: [UInt64: [GuestSnapshot]] = [:]
        for snapshot in sortedSnapshots {
            guard let number = snapshot.groups.first, number != 0 else { continue }
            pending[number, default: []].append(snapshot)
        }
        for number in pending.keys.sorted() {
            let label = Self.groupLabel(number)
            let visible = sortedSnapshots.filter {
                $0.groups == [0] && $0.details.contains { $0.labels.contains(label) }
            }
            let found = pending[number] ?? []
            let isWhole =
                !visible.isEmpty && found.count + visible.count == Self.memberCount(of: number)
            if !isWhole && !visible.isEmpty && !hasLostTrust {
                throw SimulationFailure(
                    "group \(hex(number)): \(visible.count) members are visible, "
                        + "\(found.count) are pending")
            }
            for index in Set(found.map(\.stream)).sorted() {
                change(.finishGroup(number, commit: isWhole), on: streams[index])
            }
            if isWhole { uncheckedGroups.append((found + visible).map(\.identifier)) }
        }
    }

    // MARK: The cut

    /// What is in one member's cut was submitted before anything that is missing in another's was
    /// answered; else somebody who writes to one disk after the other could tell.
    func checkGroups() throws(SimulationFailure) {
        let unchecked = uncheckedGroups
        uncheckedGroups = []
        for group in unchecked {
            let members = group.compactMap { snapshots[$0] }.filter { !$0.isDeletionPending }
            for member in members { try decide(member) }
            for first in members {
                for second in members { try compareCuts(first, second) }
            }
        }
    }

    private func compareCuts(
        _ first: GuestSnapshot, _ second: GuestSnapshot
    ) throws(SimulationFailure) {
        guard let one = model(of: first), let other = model(of: second), one !== other,
            one.isDecided, other.isDecided
        else { return }
        let after = streams[first.stream].oracle.moments(of: one).after
        let before = streams[second.stream].oracle.moments(of: other).before
        guard after > before else { return }
        throw SimulationFailure(
            """
            a group's cut is not atomic: snapshot \(hex(first.identifier)) holds a write \
            submitted at \(after), but \(hex(second.identifier)) lacks one answered at \(before)
            """)
    }
}
