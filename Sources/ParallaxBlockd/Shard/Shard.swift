// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import Logging
import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxNBD
import ParallaxVhost
import ParallaxXen

/// One shard: a thread that owns one log stream, the VDIs on it, and all that serves them.
///
/// ```
///        reactor.wait            one system call a turn
///             |
///   events:  completions -> engine      readiness -> sessions, mailbox
///             |
///   replies -> sessions -> finishBatch (one notification a batch) -> new requests
///             |
///   engine.turn: seal the batch, move checkpoints on
///             |
///   commands -> reactor
/// ```
/// Nothing here allocates, locks or counts references for a request.
struct Shard<ShardReactor: Reactor & ~Copyable>: ~Copyable {
    let index: Int
    let engineKind: IOEngineKind
    let mailbox: ShardMailbox
    let pool: ExtentPreparer
    let directory: NBDDirectory
    let peers: ShardPeers
    let log: Logger

    var reactor: ShardReactor
    var engine: Engine
    var sessions = SessionTable()
    /// LIMIT: requests on their way from front ends to the engine.
    var requests = RequestQueue(minimumCapacity: 1024)
    var requestsWereFull = false
    var messages: [ShardMessage] = []
    var attachments: [VersionReference: Attachment] = [:]
    var sharedListener: UInt32?
    /// Versions whose new NBD clients wait for what an earlier one has left.
    var heldVersions: Set<UInt64> = []
    /// What the other shards believe of this one.
    private var hasToldGaining = false
    var changes: [UInt64: PendingChange] = [:]
    var batches: [UInt64: ChangeBatch] = [:]
    var groups: [UInt64: OpenGroup] = [:]
    var comparisons: [UInt64: ShardReply<DiffAnswer>] = [:]
    var nextTicket: UInt64 = 1
    var shutdownReplies: [ShardReply<Void>] = []
    var shutdownDeadline: UInt64 = 0
    var isStopping = false
    var hasReportedFailure = false
    var reportedChecksumFailures: UInt64 = 0
    /// Requests that the engine had no space for.
    var refusedRequests: UInt64 = 0

    init(
        _ description: ShardDescriptor, engine: consuming Engine, reactor: consuming ShardReactor
    ) {
        index = description.index
        engineKind = description.engineKind
        mailbox = description.mailbox
        pool = description.pool
        directory = description.directory
        peers = description.peers
        log = description.log
        self.engine = engine
        self.reactor = reactor
    }
}

/// What a shard's thread is told when it starts.
struct ShardDescriptor: Sendable {
    var index: Int
    var engineKind: IOEngineKind
    var mailbox: ShardMailbox
    var pool: ExtentPreparer
    var directory: NBDDirectory
    var peers: ShardPeers
    var log: Logger
}

/// The monotonic clock, in nanoseconds.
func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

extension Shard where ShardReactor: ~Copyable {
    /// LIMIT: rounds of "answer, take what the guests have put in since" in one turn.
    private static var roundsPerTurn: Int { 4 }

    /// Serves until it is told to shut down.
    mutating func run() {
        engine.logBuffers.withUnsafeBufferPointer { _ = reactor.registerBuffers($0) }
        reactor.watch(
            fileDescriptor: mailbox.fileDescriptor,
            token: EventToken(session: SessionTable.mailbox, source: 0), interest: .readable)
        turn()
        while !isFinished {
            reactor.wait(timeoutNanoseconds: timeout)
            engine.wake(
                nowNanoseconds: monotonicNanoseconds(), freeSlots: pool.freeSlotCount)
            while let event = reactor.nextEvent() {
                switch event {
                case .completion(let completion): engine.complete(completion)
                case .readiness(let token, let interest): dispatch(token, interest)
                }
            }
            turn()
        }
        for reply in shutdownReplies { reply.resume() }
    }

    /// How long to sleep when nothing happens: for ever when there is nothing to do.
    private var timeout: Int64 {
        if engine.wantsTurn { return 0 }
        if engine.isWaitingForPeers { return 1_000_000 }
        if engine.isIdle && !isStopping && requests.isEmpty && sessions.touchedCount == 0 {
            return -1
        }
        let hasRequests = !requests.isEmpty && engine.freeRequestSlots > 0
        return sessions.touchedCount > 0 || hasRequests ? 0 : 20_000_000
    }

    private mutating func turn() {
        var round = 0
        repeat {
            deliverReplies()
            finishBatches()
            submitRequests()
            engine.turn(nowNanoseconds: monotonicNanoseconds())
            deliverReplies()
            moveCommands()
            round += 1
        } while round < Self.roundsPerTurn && !requests.isEmpty && engine.freeRequestSlots > 0
        finishBatches()
        exchangeExtents()
        moveCommands()
        answerChanges()
        reportTroubles()
        advanceShutdown()
    }

    private mutating func dispatch(_ token: EventToken, _ interest: EventInterest) {
        if token.session == SessionTable.mailbox {
            drainMailbox()
            return
        }
        switch sessions.kind(token.session) {
        case .free: return
        case .vhost:
            sessions.vhost(token.session).pointee.handleEvent(
                source: token.source, interest: interest, registrar: &reactor,
                requests: &requests)
        case .nbdConnection:
            sessions.nbdConnection(token.session).pointee.handleEvent(
                source: token.source, interest: interest, registrar: &reactor,
                requests: &requests)
        case .nbdListener:
            handleListener(token, interest)
        case .xen:
            sessions.xen(token.session).pointee.handleEvent(
                source: token.source, interest: interest, registrar: &reactor,
                requests: &requests)
        }
        sessions.touch(token.session)
    }

    private mutating func deliverReplies() {
        while let reply = engine.nextReply() {
            if reply.status == .noSpace { refusedRequests += 1 }
            switch sessions.kind(reply.session) {
            case .vhost:
                sessions.vhost(reply.session).pointee.complete(
                    tag: reply.tag, status: reply.status)
            case .nbdConnection:
                sessions.nbdConnection(reply.session).pointee.complete(
                    tag: reply.tag, status: reply.status)
            case .xen:
                sessions.xen(reply.session).pointee.complete(tag: reply.tag, status: reply.status)
            case .free, .nbdListener: continue
            }
            sessions.touch(reply.session)
        }
    }

    /// Lets every session that was touched notify its guest, once, and take more requests.
    private mutating func finishBatches() {
        // Who found the queue full has work and no event that would tell.
        if requestsWereFull && !requests.isFull { sessions.touchAll() }
        requestsWereFull = false
        for _ in 0..<sessions.touchedCount {
            guard let session = sessions.nextTouched() else { break }
            switch sessions.kind(session) {
            case .free, .nbdListener: break
            case .vhost: finishBatch(vhost: session)
            case .nbdConnection: finishBatch(nbd: session)
            case .xen: finishBatch(xen: session)
            }
        }
        if requests.isFull { requestsWereFull = true }
    }

    private mutating func submitRequests() {
        if requests.isFull { requestsWereFull = true }
        var room = engine.freeRequestSlots
        while room > 0, let request = requests.popFirst() {
            engine.submit(request)
            room -= 1
        }
    }

    private mutating func moveCommands() {
        while reactor.freeCommandSlots > 0, let command = engine.nextCommand() {
            reactor.enqueue(command)
        }
    }

    private mutating func exchangeExtents() {
        while let slot = engine.takeReleasedSlot() { pool.releaseSlot(slot) }
        if engine.isAskedForSpace { tellPeers(isGaining: engine.isGainingSpace) }
        engine.noteFreeSlots(pool.freeSlotCount)
        while engine.wantedExtents > 0 {
            engine.noteExtentRequested()
            pool.requestSlot(canWait: !engine.needsExtentNow) { [mailbox] slot in
                mailbox.post(.extent(slot))
            }
        }
        if engine.needsExtentNow && engine.extentsRequested > 0 { pool.hurry() }
    }

    private mutating func tellPeers(isGaining: Bool) {
        guard isGaining != hasToldGaining else { return }
        hasToldGaining = isGaining
        peers.note(index, isGaining: isGaining)
    }

    private mutating func reportTroubles() {
        let failures = engine.checksumFailures
        if failures != reportedChecksumFailures {
            reportedChecksumFailures = failures
            log.error(
                "shard \(index): a block failed its checksum and was not given out (\(failures) in all); run `parallax-ctl store check`"
            )
        }
        while let finding = engine.nextScrubFinding() {
            log.error("shard \(index): the scrub has found damage: \(finding)")
        }
        if let failure = engine.failure, !hasReportedFailure {
            hasReportedFailure = true
            log.critical("shard \(index): \(failure.message)")
        }
    }
}
