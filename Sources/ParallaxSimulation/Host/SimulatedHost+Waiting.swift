// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Running until something has happened. On a healthy device it must happen: each of these has a
/// bound, and reaching it is a failure.
extension SimulatedHost {
    /// Steps without any answer after which an engine is said to hang. Most steps do nothing, and
    /// the clock is pushed on long before, so that no timer can be the reason.
    private static let patience = 30_000
    private static let clockPush = 3_000
    /// Steps after which even an engine that keeps the device busy is said to hang.
    private static let totalPatience = 5_000_000

    func run(
        _ what: String, until isDone: () -> Bool
    ) throws(SimulationFailure) {
        var idle = 0
        var total = 0
        var before = progress
        while !isDone() {
            try step()
            idle += 1
            total += 1
            if progress != before {
                before = progress
                idle = 0
            }
            if idle > Self.clockPush { now += 50_000_000 }
            guard idle < Self.patience, total < Self.totalPatience else {
                let waiting = streams.map {
                    "stream \($0.index): \($0.requests.keys.sorted().prefix(8)), "
                        + "changes \($0.changes.keys.sorted()), "
                        + "engine: \($0.engine?.diagnosis ?? "none")"
                }
                throw SimulationFailure(
                    "no progress while waiting for \(what); \(waiting), "
                        + "\(device.inFlightCount) commands in flight, free slots \(freeSlots.count)"
                )
            }
        }
    }

    /// Something that grows whenever the device or an engine does anything.
    private var progress: Int {
        device.statistics.reads + device.statistics.writes + device.statistics.syncs
            - streams.reduce(0) { $0 + $1.requests.count + $1.changes.count + $1.diffs.count }
            - groups.count
    }

    /// Runs until every request and every change is answered.
    package func drain() throws(SimulationFailure) {
        try run("all answers") {
            groups.isEmpty
                && streams.allSatisfy {
                    $0.requests.isEmpty && $0.changes.isEmpty && $0.diffs.isEmpty
                }
        }
    }

    /// Runs until the engines have nothing left to do, checkpoints included.
    package func settle() throws(SimulationFailure) {
        try drain()
        stopScrubs()
        for stream in streams { stream.engine?.requestCheckpoint() }
        try run("the engines to be idle") {
            streams.allSatisfy { $0.engine?.isIdle ?? true } && device.inFlightCount == 0
        }
        try takeCensus()
    }

    func waitForReply(
        to tag: UInt32, on stream: SimulatedStream
    ) throws(SimulationFailure) -> BlockStatus {
        lastStatus[tag] = nil
        awaited = tag
        defer { awaited = nil }
        try run("the answer to request \(tag)") { stream.requests[tag] == nil }
        return lastStatus.removeValue(forKey: tag) ?? .ioError
    }

    /// Reads every block of every head that was ever written, and of the snapshots up to `budget`
    /// blocks (nil: all), and checks them against the oracle; then the engine's books.
    package func verify(budget: Int? = 4096) throws(SimulationFailure) {
        try drain()
        try verifyHeads()
        try verifySnapshots(budget: budget)
        try drain()
        try checkGroups()
        try checkLists()
        try takeCensus()
    }

    private func verifyHeads() throws(SimulationFailure) {
        for disk in sortedDisks where !disk.isDeletionPending && !disk.isRollingBack {
            let stream = streams[disk.stream]
            let end = disk.sectorCount / UInt64(sectorsPerBlock)
            let tracked = (stream.oracle.disks[disk.identifier]?.trackedBlocks ?? [])
                .filter { $0 < end }
            var index = 0
            while index < tracked.count {
                var end = index + 1
                while end < tracked.count, end - index < 64,
                    tracked[end] == tracked[end - 1] + 1
                {
                    end += 1
                }
                let size = UInt64(sectorsPerBlock)
                let wish = Wish(
                    .read, (tracked[index] * size)..<((tracked[end - 1] + 1) * size))
                statistics.verifiedBlocks += end - index
                if try submit(wish, to: disk) { index = end } else { try step() }
            }
        }
        try drain()
    }
}
