// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl

/// The space of a store.
extension Descriptions {
    static func addSpace(_ status: DaemonStatus, to table: inout Table) {
        let store = status.store
        table.add(["used", ByteSize.formatExact(store.usedBytes)])
        table.add(["  live", ByteSize.formatExact(store.liveBytes)])
        table.add(["  dead", ByteSize.formatExact(store.deadBytes)])
        table.add(["free", ByteSize.formatExact(store.freeBytes)])
        table.add(["  reserved", ByteSize.formatExact(store.reservedBytes)])
        table.add(["full", "\(store.fullPercent) % (live and reserved)"])
        table.add([
            "extents",
            "\(store.extentCount) of \(ByteSize.format(store.extentBytes)), "
                + "\(store.extentsUsed) used, \(store.extentsFree) free",
        ])
        if let host = store.host {
            table.add([
                "file",
                "\(ByteSize.format(host.allocatedBytes)) allocated, "
                    + "\(ByteSize.format(host.punchedBytes)) given back",
            ])
            if let problem = host.problem { table.add(["problem", problem]) }
        }
        table.add(["deleting", deletions(status.shards.map(\.space))])
        table.add(["scrub", status.scrub.map(scrub) ?? "never"])
    }

    static func scrub(_ scrub: ScrubSummary) -> String {
        let done = "\(ByteSize.format(scrub.verifiedBytes)) of \(ByteSize.format(scrub.totalBytes))"
        let damage =
            scrub.damagedBlocks == 0 ? "no damage" : "\(scrub.damagedBlocks) damaged blocks"
        switch scrub.state {
        case .running:
            return "\(done), at most \(ByteSize.format(scrub.rateBytesPerSecond))/s, \(damage)"
        case .paused: return "paused at \(done), \(damage)"
        case .finished:
            return "finished \(scrub.finishedAt ?? ""), \(damage)"
        }
    }

    private static func deletions(_ spaces: [SpaceDescription]) -> String {
        let running = spaces.count { $0.reclaiming }
        let waiting = spaces.reduce(0) { $0 + $1.reclaimsWaiting }
        let lost = spaces.reduce(0) { $0 + $1.nodesPassedOver }
        var text = running + Int(waiting) == 0 ? "-" : "\(running) under way, \(waiting) waiting"
        if lost > 0 { text += "; \(lost) nodes could not be read" }
        return text
    }

    /// One row for each shard.
    static func spaces(_ status: DaemonStatus) -> String {
        let header = [
            "SHARD", "EXTENTS", "LIVE", "DEAD", "RESERVED", "DELETING", "UNREADABLE", "REFUSED",
            "BY QUOTA",
        ]
        var table = Table(header: header, rightAligned: Set(0..<header.count))
        for shard in status.shards {
            let space = shard.space
            table.add([
                String(shard.index), String(shard.extentsUsed), ByteSize.format(space.liveBytes),
                ByteSize.format(space.deadBytes), ByteSize.format(space.reservedBytes),
                String(space.reclaimsWaiting + (space.reclaiming ? 1 : 0)),
                String(space.nodesPassedOver), String(space.refusedRequests),
                String(space.quotaRefusedRequests),
            ])
        }
        return table.text
    }

    /// What the cleaner does and why, and what it has done.
    static func cleaners(_ status: DaemonStatus) -> String {
        let header = ["SHARD", "CLEANED", "MOVED", "READ", "WRITTEN", "FORWARDED", "CLEANER"]
        var table = Table(header: header, rightAligned: Set(0..<header.count - 1))
        for shard in status.shards {
            let cleaner = shard.cleaner
            table.add([
                String(shard.index), String(cleaner.cleanedExtents),
                ByteSize.format(cleaner.movedBytes), ByteSize.format(cleaner.readBytes),
                ByteSize.format(cleaner.writtenBytes), String(cleaner.forwardedBlocks),
                state(cleaner, freeBytes: status.store.freeBytes),
            ])
        }
        return table.text
    }

    private static func state(_ cleaner: CleanerDescription, freeBytes: UInt64) -> String {
        if cleaner.broken { return "rests: its I/O failed, see the daemon's log" }
        if cleaner.urgent { return "works: writes wait for space" }
        if cleaner.asked { return "works: it was asked to" }
        let threshold = ByteSize.format(cleaner.startsBelowBytes)
        if cleaner.active { return "works: less than \(threshold) is free" }
        return freeBytes < cleaner.startsBelowBytes
            ? "rests: nothing to gain, or nothing is written"
            : "rests: \(threshold) or more is free"
    }
}
