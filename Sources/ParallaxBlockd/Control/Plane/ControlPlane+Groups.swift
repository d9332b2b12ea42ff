// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// LIMIT: time that the members may take to be cut. Guests of the shards that are cut already
    /// wait for the others, so it is short: a shard that is held up, by a disk being made smaller
    /// for instance, costs the group another try and not the guests.
    package static var groupLimit: Duration { .milliseconds(500) }
    /// LIMIT: times that it is tried.
    private static var groupTries: Int { 8 }
    /// A lock that no VDI's name can be: groups are cut one after the other.
    private static var groupLock: String { "\u{0}group" }

    /// One atomic cut through several VDIs, on any shards: all snapshots are made, or none.
    ///
    /// ```
    ///  every shard   cut its members, make them durable          answers
    ///  then          finishGroup(commit) on one shard after the other
    ///  a crash       before the first is durable: all are taken back at the start; after it all are
    ///                shown (`SnapshotLoader.isComplete`)
    /// ```
    package func createGroup(
        _ request: CreateSnapshotRequest
    ) async throws(ControlError) -> SnapshotGroup {
        try Self.validate(request)
        let vdis = request.vdis ?? []
        guard 1...GroupCut.memberLimit ~= vdis.count else {
            throw ControlError(
                .invalid, "a group has from 1 to \(GroupCut.memberLimit) VDIs in \"vdis\"")
        }
        // Two spellings of one name are one VDI.
        var seen: Set<String> = []
        for vdi in vdis where !seen.insert(vdi).inserted {
            throw ControlError(.invalid, "VDI \(quoted(vdi)) is named twice in the group")
        }
        return try await changing(vdis + [Self.groupLock]) {
            var entries: [Entry] = []
            for vdi in vdis { entries.append(try entry(vdi)) }
            let createdAt = now()
            let name = try snapshotName(request.name, at: createdAt, of: entries)
            let (made, details) = try await cut(entries, request, name, createdAt)
            counters.groupsMade += 1
            log.info(
                "group snapshot made",
                metadata: ["vdis": "\(vdis.count)", "snapshot": "\(name)"])
            // All are there, whatever comes of describing one.
            let snapshots = zip(entries, made).map { entry, identifier in
                register(identifier, details, createdAt, of: entry)
            }
            var descriptions: [SnapshotDescription] = []
            for (entry, snapshot) in zip(entries, snapshots) {
                descriptions.append(try await description(of: snapshot, entry))
            }
            return SnapshotGroup(snapshots: descriptions)
        }
    }

    /// Makes the members, in the order of `entries`, trying again when some are not cut in time.
    private func cut(
        _ entries: [Entry], _ request: CreateSnapshotRequest, _ name: String, _ createdAt: UInt64
    ) async throws(ControlError) -> ([SnapshotIdentifier], SnapshotDetails) {
        for _ in 0..<Self.groupTries {
            // The try before was taken back as a whole.
            try requireRunning()
            let group = GroupCut.makeNumber(members: entries.count)
            let details = try Self.details(name, request, group: group)
            if let made = try await cut(entries, group, details, createdAt) {
                return (made, details)
            }
        }
        counters.groupsFailed += 1
        throw ControlError(
            .ioError,
            "the VDIs were not cut within \(groupLimit) in \(Self.groupTries) tries, and no "
                + "snapshot was made: the store is too slow; try again when it has less to do")
    }

    /// nil: some were not cut in time, and all are taken back.
    private func cut(
        _ entries: [Entry], _ group: UInt64, _ details: SnapshotDetails, _ createdAt: UInt64
    ) async throws(ControlError) -> [SnapshotIdentifier]? {
        let byShard = Dictionary(grouping: entries, by: \.shard)
        let cut = GroupCut(
            group: group, members: entries.count, shards: byShard.keys.map { runtime.shards[$0] })
        let watchdog = Task { [groupLimit] in
            try await Task.sleep(for: groupLimit)
            cut.giveUp()
        }
        let results = await cutAll(byShard, cut, details, createdAt)
        watchdog.cancel()
        var made: [VDIIdentifier: SnapshotIdentifier] = [:]
        var failure: ControlError?
        for (identifier, result) in results {
            switch result {
            case .success(.snapshot(let snapshot)): made[identifier] = snapshot
            case .success:
                failure = ControlError(.internalError, "a shard answered something else")
            case .failure(let error): failure = failure ?? error
            }
        }
        let holders = Set(
            entries.filter { made[$0.identifier] != nil }.map(\.shard))
        if failure == nil && cut.wasGivenUp {
            try await finish(group, on: holders, commit: false)
            return nil
        }
        if let failure {
            counters.groupsFailed += 1
            try await finish(group, on: holders, commit: false)
            throw failure
        }
        var shown: Set<Int> = []
        do throws(ControlError) {
            for position in holders.sorted() {
                try await finish(group, on: [position], commit: true)
                shown.insert(position)
            }
        } catch {
            counters.groupsFailed += 1
            for entry in entries {
                guard let snapshot = made[entry.identifier] else { continue }
                if shown.contains(entry.shard) {
                    register(snapshot, details, createdAt, of: entry)
                } else {
                    // It may be there after the next start, and must have its name for itself.
                    logs[entry.identifier, default: SnapshotLog()].reserve(details.name)
                }
            }
            throw error
        }
        return entries.compactMap { made[$0.identifier] }
    }

    /// What became of each member.
    private func cutAll(
        _ byShard: [Int: [Entry]], _ cut: GroupCut, _ details: SnapshotDetails,
        _ createdAt: UInt64
    ) async -> [(VDIIdentifier, CatalogResult)] {
        let shards = runtime.shards
        return await withTaskGroup(of: [(VDIIdentifier, CatalogResult)].self) { tasks in
            for (position, members) in byShard {
                let identifiers = members.map(\.identifier)
                tasks.addTask {
                    let changes = identifiers.map {
                        CatalogChange.snapshot(
                            $0, details, createdAtNanoseconds: createdAt, group: cut.group)
                    }
                    do {
                        let results = try await shards[position].snapshot(changes, in: cut)
                        return Array(zip(identifiers, results))
                    } catch {
                        cut.giveUp()
                        let reason =
                            error as? ControlError ?? ControlError(.internalError, "\(error)")
                        return identifiers.map { ($0, .failure(reason)) }
                    }
                }
            }
            var all: [(VDIIdentifier, CatalogResult)] = []
            for await results in tasks { all += results }
            return all
        }
    }

    private func finish(
        _ group: UInt64, on positions: Set<Int>, commit: Bool
    ) async throws(ControlError) {
        for position in positions.sorted() {
            let shard = runtime.shards[position]
            do throws(ControlError) {
                _ = try await translatingErrors {
                    try await shard.change(.finishGroup(group, commit: commit))
                }
            } catch {
                // Only a store that cannot be written fails here. What the group becomes is
                // decided at the next start, for all members alike: by whether the first was shown.
                throw ControlError(
                    error.kind,
                    "the group snapshot was not finished (\(error.message)); "
                        + (commit
                            ? "list the snapshots after the daemon's next start: it is there then as a "
                                + "whole, or not at all"
                            : "it is gone after the daemon's next start"))
            }
        }
    }
}
