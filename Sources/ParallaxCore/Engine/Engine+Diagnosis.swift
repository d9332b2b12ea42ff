// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Where everything stands, in one line: for the report of a simulated run that hangs.
    package var diagnosis: String {
        var states = [0, 0, 0]
        for index in 0..<forest.extents.count {
            states[Int(forest.extents[index].state.rawValue)] += 1
        }
        var chunks: [String] = []
        for index in 0..<log.inFlight.count {
            let chunk = log.chunks[Int(log.inFlight[index])]
            chunks.append("\(chunk.state) \(chunk.appliedCount)/\(chunk.operationCount)")
        }
        var frames: [String: Int] = [:]
        for index in 0..<forest.cache.frameCount {
            let frame = forest.cache.frames[index]
            let waits = frame.waiters >= 0 ? " awaited" : ""
            let held = frame.references > 0 ? " held" : ""
            frames["\(frame.state)\(waits)\(held)", default: 0] += 1
        }
        let frameStates = frames.keys.sorted().map { "\($0) \(frames[$0] ?? 0)" }
        return """
            requests \(requests.usedCount), parts \(parts.usedCount) (ready \(ready.count), \
            starved \(starved.count), staging \(staging.count), locked \(locked.count), flushing \
            \(flushing.count)), staged operations \(stagedOperations), chunks \(chunks), building \
            \(log.building), applied \(appliedLSN.rawValue), durable \(durableLSN.rawValue); \
            checkpoint \(checkpoint.phase) level \(checkpoint.level) wanted \
            \(checkpoint.isWanted) needed \(checkpoint.isNeeded), changes \(changesSinceFreeze); \
            full \(isStoreFull), asked \(extentsRequested), leases \(log.leases.count), extents \
            leased/open/sealed \(states), empty \(hasEmptyExtents), releasing \(releasing.count) \
            grace \(grace.count), \(spaceDiagnosis); frames \(frameStates), wanted loads \(forest.wantedLoads.count), commands \
            \(commands.count), replay bound \(forest.cache.replayBound), live nodes \(forest.liveNodes); \
            cleaner \(cleaner.phase) busy \(cleaner.isBusy) victims \(cleaner.victims.count) moved \
            \(cleaner.movedCount)/\(cleaner.survivors.count) spares \(cleaner.spares.count) \
            broken \(cleaner.isBroken) \(cleaner.pacing); changes \
            \(catalog.waiting.count)/\(catalog.logged.count)/\(catalog.syncing.count), \
            reclaiming \(catalog.reclaim.job.map { "\($0)" } ?? "nothing"), VDIs \(catalog.vdiCount), \
            versions \(versionStates), deletions \(catalog.reclaim.deletions.count), counts \(catalog.reclaim.counts.count), \
            \(failure.map(\.message) ?? "no failure")
            """
    }

    private var versionStates: [String] {
        var counts: [String: Int] = [:]
        for row in 0..<catalog.versions.count where catalog.versions[row].state != .free {
            counts["\(catalog.versions[row].state)", default: 0] += 1
        }
        return counts.keys.sorted().map { "\($0) \(counts[$0] ?? 0)" }
    }
}
