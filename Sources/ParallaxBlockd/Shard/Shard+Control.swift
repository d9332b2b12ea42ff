// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxNBD

extension Shard where ShardReactor: ~Copyable {
    mutating func drainMailbox() {
        var batch: [ShardMessage] = []
        swap(&batch, &messages)
        mailbox.drain(into: &batch)
        for message in batch { handle(message) }
        batch.removeAll(keepingCapacity: true)
        swap(&batch, &messages)
    }

    private mutating func handle(_ message: ShardMessage) {
        switch message {
        case .listVDIs(let reply): reply.resume(returning: engine.vdis().map(VDIState.init))
        case .describeVDIs(var list, let reply):
            engine.describe(&list)
            reply.resume(returning: list)
        case .change(let batch, let cut, let reply): submit(batch, cut, reply)
        case .releaseGroup(let group): releaseGroup(group)
        case .listSnapshots(let cursor, let limit, let reply):
            reply.resume(returning: engine.snapshots(from: cursor, limit: limit))
        case .describeSnapshots(var list, let reply):
            engine.describe(&list)
            reply.resume(returning: list)
        case .compare(let query, let reply): compare(query, reply)
        case .attachVhost(let version, let path, let readOnly, let reply):
            answer(reply) { shard throws(ControlError) in
                try shard.attachVhost(version, path: path, readOnly: readOnly)
            }
        case .attachNBD(let version, let path, let readOnly, let reply):
            answer(reply) { shard throws(ControlError) in
                try shard.attachNBD(version, path: path, readOnly: readOnly)
            }
        case .attachXen(let attach, let reply):
            answer(reply) { shard throws(ControlError) in try shard.attachXen(attach) }
        case .endedXen(let reply): reply.resume(returning: endedXen())
        case .detach(let version, let reply): detach(version, reply)
        case .status(let reply): reply.resume(returning: status)
        case .shutdown(let reply): beginShutdown(reply)
        case .listen(let path, let reply):
            answer(reply) { shard throws(ControlError) in try shard.listen(path: path) }
        case .serveShared: serveShared()
        case .setExports(let exports):
            if let sharedListener {
                sessions.nbdListener(sharedListener).pointee.setExports(exports)
            }
        case .handover(let handover, let version): welcome(handover, to: version)
        case .extent(let slot):
            engine.supplyExtent(
                slot, peersAreGaining: slot == nil && peers.areGaining(besides: index))
            if slot == nil { peers.askForSpace(from: index) }
        case .spaceIsShort: engine.giveBackSpace()
        case .grow(let superblock, let reply):
            engine.grow(to: superblock)
            reply.resume()
        case .freeSpace: engine.noteFreeSpace()
        case .fence(let reason): engine.fence(reason)
        case .clean(let goal, let reply):
            engine.requestCleaning(untilFreeSlots: goal)
            reply.resume()
        case .scrub(let scrub, let reply):
            if let scrub {
                engine.startScrub(bytesPerSecond: scrub.bytesPerSecond, from: scrub.from)
            } else {
                engine.stopScrub()
            }
            reply.resume()
        }
    }

    private mutating func answer(
        _ reply: ShardReply<Void>, _ body: (inout Shard) throws(ControlError) -> Void
    ) {
        do throws(ControlError) {
            try body(&self)
            reply.resume()
        } catch {
            reply.resume(throwing: error)
        }
    }

    private var status: ShardStatus {
        let statistics = engine.statistics
        var status = ShardStatus(index: index)
        status.engine = engineKind.rawValue
        status.reads = statistics.reads
        status.readBytes = statistics.readBytes
        status.writes = statistics.writes
        status.writtenBytes = statistics.writtenBytes
        status.flushes = statistics.flushes
        status.discards = statistics.discards
        status.lsn = statistics.lsn
        status.checkpointLSN = statistics.checkpointLSN
        status.extentsUsed = UInt64(statistics.extents - statistics.leasedExtents)
        // A leased extent is empty. The slots that no shard has are told once, by the first.
        let unowned = index > 0 ? 0 : pool.status.freeCount + pool.status.readyCount
        status.extentsFree = UInt64(statistics.leasedExtents + unowned)
        status.cacheBytes = UInt64(statistics.nodeFramesUsed * blockBytes)
        status.cacheLimitBytes = UInt64(statistics.nodeFrames * blockBytes)
        status.deviceErrors = statistics.deviceErrors
        status.checksumErrors = statistics.checksumFailures
        status.readOnlyReason = engine.failure?.message
        status.space = space(statistics)
        status.cleaner = cleaner(statistics)
        status.scrub = ScrubDescription(engine.scrubStatus, statistics)
        return status
    }

    private func cleaner(_ statistics: EngineStatistics) -> CleanerDescription {
        var cleaner = CleanerDescription()
        cleaner.active = statistics.isCleaning
        cleaner.asked = engine.isCleaningToGoal
        cleaner.urgent = statistics.isCleaningUrgent
        cleaner.broken = statistics.isCleanerBroken
        cleaner.rounds = statistics.cleanerRounds
        cleaner.cleanedExtents = statistics.cleanedExtents
        cleaner.movedBytes = statistics.movedBlocks * UInt64(blockBytes)
        cleaner.readBytes = statistics.cleanerReadBytes
        cleaner.writtenBytes = statistics.cleanerWrittenBytes
        cleaner.damagedBlocks = statistics.cleanerDamagedBlocks
        cleaner.forwardedBlocks = UInt64(statistics.forwardedBlocks)
        cleaner.startsBelowBytes = UInt64(engine.cleaningThreshold) * engine.superblock.extentBytes
        return cleaner
    }

    private func space(_ statistics: EngineStatistics) -> SpaceDescription {
        let block = UInt64(blockBytes)
        let inUse = UInt64(statistics.extents - statistics.leasedExtents)
        let written = inUse * engine.superblock.extentBytes - statistics.logRoomBlocks * block
        var space = SpaceDescription()
        space.liveBytes = statistics.liveBlocks * block
        space.deadBytes = written - min(written, space.liveBytes)
        space.reservedBytes = statistics.reservedBlocks * block
        space.reclaiming = statistics.isReclaiming
        space.reclaimsWaiting = UInt64(statistics.reclaimsWaiting)
        space.nodesPassedOver = statistics.nodesPassedOver
        space.refusedRequests = refusedRequests
        space.quotaRefusedRequests = statistics.quotaRefusals
        space.logBytes = statistics.chunkBytes
        return space
    }

    /// LIMIT: time that a shutdown may take before the shard ends without a checkpoint: the log is
    /// replayed at the next start then. With the control plane's second before it an end takes less
    /// than two, as long as the device answers what it has at all.
    private static var shutdownNanoseconds: UInt64 { 800_000_000 }

    private mutating func beginShutdown(_ reply: ShardReply<Void>) {
        shutdownReplies.append(reply)
        guard !isStopping else { return }
        isStopping = true
        engine.windDown()
        shutdownDeadline = monotonicNanoseconds() + Self.shutdownNanoseconds
        for session in sessions.sessions(of: nil) { stop(session) }
        sharedListener = nil
    }

    mutating func advanceShutdown() {
        guard isStopping, sessions.count == 0 else { return }
        engine.requestCheckpoint()
    }

    /// Whether the thread may end.
    var isFinished: Bool {
        guard isStopping else { return false }
        if sessions.count == 0 && (engine.isIdle || engine.failure != nil) { return true }
        return monotonicNanoseconds() >= shutdownDeadline
    }
}
