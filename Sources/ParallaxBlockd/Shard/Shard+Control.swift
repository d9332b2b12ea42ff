// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxNBD

/// A change of the catalogue whose answer has not come.
struct PendingChange {
    var change: CatalogChange
    var reply: ShardReply<UInt64>
}

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
        case .change(let change, let reply): submit(change, reply)
        case .describe(let vdi, let reply): describe(vdi, reply)
        case .attachVhost(let vdi, let path, let readOnly, let reply):
            answer(reply) { shard throws(ControlError) in
                try shard.attachVhost(vdi: vdi, path: path, readOnly: readOnly)
            }
        case .attachNBD(let vdi, let path, let readOnly, let reply):
            answer(reply) { shard throws(ControlError) in
                try shard.attachNBD(vdi: vdi, path: path, readOnly: readOnly)
            }
        case .attachXen(let attach, let reply):
            answer(reply) { shard throws(ControlError) in try shard.attachXen(attach) }
        case .endedXen(let reply): reply.resume(returning: endedXen())
        case .detach(let vdi, let reply): detach(vdi: vdi, reply)
        case .status(let reply): reply.resume(returning: status)
        case .shutdown(let reply): beginShutdown(reply)
        case .listen(let path, let reply):
            answer(reply) { shard throws(ControlError) in try shard.listen(path: path) }
        case .setExports(let exports):
            if let sharedListener {
                sessions.nbdListener(sharedListener).pointee.setExports(exports)
            }
        case .handover(let handover, let vdi): welcome(handover, vdi: vdi)
        case .extent(let slot):
            engine.supplyExtent(slot)
            if slot == nil { peers.askForSpace(from: index) }
        case .spaceIsShort: engine.giveBackSpace()
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

    private func describe(_ vdi: UInt64, _ reply: ShardReply<VDIState>) {
        guard let summary = engine.summary(of: VDIIdentifier(vdi)) else {
            reply.resume(throwing: ControlError(.notFound, "There is no such VDI."))
            return
        }
        reply.resume(returning: VDIState(summary))
    }

    private mutating func submit(_ change: CatalogChange, _ reply: ShardReply<UInt64>) {
        let ticket = nextTicket
        nextTicket += 1
        changes[ticket] = PendingChange(change: change, reply: reply)
        engine.submit(change: change, ticket: ticket)
    }

    /// Passes the engine's answers on, now that the changes are durable.
    mutating func answerChanges() {
        while let answer = engine.nextChangeReply() {
            guard let pending = changes.removeValue(forKey: answer.ticket) else { continue }
            switch answer.result {
            case .success(let identifier):
                noteChanged(identifier.rawValue)
                pending.reply.resume(returning: identifier.rawValue)
            case .failure(let error):
                pending.reply.resume(throwing: Self.explain(error))
            }
        }
    }

    private static func explain(_ error: CatalogError) -> ControlError {
        switch error {
        case .noSuchVDI: ControlError(.notFound, "There is no such VDI.")
        case .invalidSize:
            ControlError(
                .invalid, "The size is not possible; use a multiple of 4K from 1M to 64T.")
        case .invalidName: ControlError(.invalid, "The name is empty or too long.")
        case .tooManyVDIs:
            ControlError(.noSpace, "The shard has too many VDIs; delete some first.")
        case .noSpace:
            ControlError(.noSpace, "The store is full; delete a VDI or grow the store.")
        case .ioError:
            ControlError(
                .ioError, "The store cannot be written any more; see the daemon's log.")
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
        return status
    }

    /// Time that a shutdown may take before the shard ends without a checkpoint: the log is
    /// replayed at the next start then.
    private static var shutdownNanoseconds: UInt64 { 10_000_000_000 }

    private mutating func beginShutdown(_ reply: ShardReply<Void>) {
        shutdownReplies.append(reply)
        guard !isStopping else { return }
        isStopping = true
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
