// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore

/// One client in the transmission phase, on the shard of its VDI.
///
/// ```
///  socket --> staging --> current request --> operations --> engine
///                              |  (tags; data pieces)          |
///                              v                               | complete
///  socket <-- reply queue <-- commands <-----------------------+
/// ```
///
/// A *command* is a request of the peer; an *operation* is one request to the engine. A long read
/// or write is a command of several operations, each with one piece of the buffer pool. Only the
/// *current* command can be partly issued: while it waits for a place, nothing more is taken from
/// the socket. So memory is bounded and a fast peer is slowed down by its own socket.
///
/// Belongs to the shard's thread. Invariants:
/// I1 Memory that an operation refers to stays until its reply: the value must live until
///    `isFinished`, also when the peer has long gone.
/// I2 `replies.freeCapacity >= operations in flight + commands`: whatever completes can be
///    answered at once.
/// I3 Every turn in which `handleEvent` or `complete` was called ends with `finishBatch`.
/// I4 A command is answered exactly once, unless its connection broke.
package struct NBDConnection: ~Copyable {
    /// Numbers of the descriptors in `EventToken.source`.
    private enum Source {
        static let socket: UInt32 = 0
        static let timer: UInt32 = 1
    }

    enum Phase: Equatable {
        /// Until `start`: nothing is read.
        case waiting
        case serving
        /// The peer said goodbye: what is in flight is answered, then the connection closes.
        case draining
        /// `stop` was called: like draining, but a peer that does not read is waited for no longer
        /// than `NBDLimits.goodbyeNanoseconds`.
        case stopping
        case closed
    }

    /// Why nothing more is taken from the socket's bytes right now.
    enum Pause: Equatable {
        case needsBytes
        /// No command, operation, piece or place for a reply is free.
        case needsRoom
        /// The shard's request queue is full, which may be somebody else's doing.
        case needsQueue
    }

    package let session: UInt32
    package let vdi: UInt32
    package let exportName: String
    var rules: NBDRules
    var phase = Phase.waiting
    /// Its peer had gone when another client came.
    var isPredecessor = false
    var pause = Pause.needsBytes
    /// The peer broke the protocol, or a reply can no longer be told right: hang up.
    var isBroken = false

    var socketFD: Int32
    /// The time that the peer has to read its last replies; -1: there is none.
    private var timer: Int32 = -1
    private var isOutOfTime = false
    var interest: EventInterest = []

    var pool: BufferPool
    var replies = ReplyQueue()
    var staging = Staging()
    var current = Current()

    /// SAFETY: tables of fixed size, freed in `deinit`; indices come from the stacks beside them,
    /// and tags are checked before use.
    let commands: UnsafeMutablePointer<Command>
    let operations: UnsafeMutablePointer<Operation>
    let segments: UnsafeMutablePointer<DataSegment>
    /// The operations of the current round of a simple stream, in the order of their data.
    let round: UnsafeMutablePointer<Int32>
    var freeCommands = SlotStack(capacity: NBDLimits.commandsInFlight)
    var freeOperations = SlotStack(capacity: NBDLimits.operationsInFlight)

    /// Requests that the engine has not answered.
    package internal(set) var inFlight = 0

    /// Takes over the handover's socket, also when it throws. `export` is what the VDI is now.
    package init(
        session: UInt32, vdi: UInt32, handover: consuming NBDHandover, export: NBDExport
    ) throws(NBDError) {
        let pool: BufferPool
        do throws(NBDError) {
            pool = try BufferPool()
        } catch {
            handover.refuse()
            throw error
        }
        self.init(session: session, vdi: vdi, handover: handover, export: export, pool: pool)
    }

    private init(
        session: UInt32, vdi: UInt32, handover: NBDHandover, export: NBDExport,
        pool: consuming BufferPool
    ) {
        self.pool = pool
        self.session = session
        self.vdi = vdi
        exportName = handover.agreement.exportName
        rules = NBDRules(
            exportBytes: export.byteCount, isReadOnly: export.isReadOnly,
            usesStructuredReplies: handover.agreement.usesStructuredReplies,
            reportsAllocation: handover.agreement.reportsAllocation)
        socketFD = handover.socketFD
        commands = .allocate(capacity: NBDLimits.commandsInFlight)
        operations = .allocate(capacity: NBDLimits.operationsInFlight)
        segments = .allocate(capacity: NBDLimits.operationsInFlight)
        round = .allocate(capacity: NBDLimits.simpleReadPieces)
        commands.initialize(repeating: Command(), count: NBDLimits.commandsInFlight)
        operations.initialize(repeating: Operation(), count: NBDLimits.operationsInFlight)
    }

    deinit {
        precondition(inFlight == 0, "NBDConnection I1: thrown away with requests in flight")
        if socketFD >= 0 { _ = parallax_socket_close(socketFD) }
        if timer >= 0 { close(timer) }
        commands.deallocate()
        operations.deallocate()
        segments.deallocate()
        round.deallocate()
    }

    /// The socket is closed and no reply is outstanding: the value may be thrown away.
    package var isFinished: Bool { socketFD < 0 && inFlight == 0 }

    /// The VDI grew or shrank. NBD has no way to tell the peer; it finds out when it reconnects.
    package mutating func resize(byteCount: UInt64) { rules.exportBytes = byteCount }

    package mutating func start<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        precondition(phase == .waiting, "NBDConnection: started twice")
        phase = .serving
        updateInterest(registrar: &registrar)
    }

    /// The socket is ready. Takes requests until there are no more, until something is full, or
    /// until the connection has had its share of the turn.
    package mutating func handleEvent<Registrar: EventRegistrar & ~Copyable>(
        source: UInt32, interest: EventInterest, registrar: inout Registrar,
        requests: inout RequestQueue
    ) {
        if source == Source.timer {
            isOutOfTime = true
            return stopTimer(registrar: &registrar)
        }
        guard interest.contains(.readable), phase == .serving, pause == .needsBytes else { return }
        receive(&requests)
    }

    /// The end of a turn: sends what there is, goes on with requests that had to wait, and says
    /// what the connection waits for now.
    package mutating func finishBatch<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar, requests: inout RequestQueue
    ) {
        guard phase != .closed, phase != .waiting else { return }
        send()
        advance(&requests)
        send()
        if isBroken || hasSaidEverything { return closeSocket(registrar: &registrar) }
        updateInterest(registrar: &registrar)
    }

    /// The VDI is being detached. Nothing more is taken; what is in flight is answered if the
    /// peer reads it soon. The value must be kept until `isFinished`. If the daemon `isLeaving`, a
    /// request that is partly issued gets no answer: the client sends it to the next one again, while an
    /// error would be the guest's.
    package mutating func stop<Registrar: EventRegistrar & ~Copyable>(
        isLeaving: Bool = false, registrar: inout Registrar
    ) {
        guard phase != .stopping, phase != .closed else { return }
        phase = .stopping
        if current.step == .issue && !isLeaving {
            commands[Int(current.command)].error = .shutdown
            endCurrent()
        }
        abandonCurrent()
        startTimer(registrar: &registrar)
        send()
        if isBroken || hasSaidEverything { return closeSocket(registrar: &registrar) }
        updateInterest(registrar: &registrar)
    }

    private var hasSaidEverything: Bool {
        switch phase {
        case .waiting, .serving, .closed: false
        case .draining: inFlight == 0 && current.step == .idle && replies.isEmpty
        case .stopping: inFlight == 0 && (replies.isEmpty || isOutOfTime)
        }
    }

    private func interestWanted() -> EventInterest {
        var wanted: EventInterest = []
        if phase == .serving && pause == .needsBytes { wanted.insert(.readable) }
        if !replies.isEmpty { wanted.insert(.writable) }
        // Nobody will call us again for a place that is free already: a socket with room in its
        // send buffer brings us back in the next turn. Whoever has found the shard's queue full is
        // called when it is not.
        let waits = pause == .needsRoom && inFlight == 0
        if waits && phase == .serving { wanted.insert(.writable) }
        return wanted
    }

    private mutating func updateInterest<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        let wanted = interestWanted()
        guard wanted != interest, socketFD >= 0 else { return }
        interest = wanted
        let token = EventToken(session: session, source: Source.socket)
        // Without an interest a hang-up would still be reported, in every turn.
        if wanted.isEmpty {
            registrar.unwatch(token: token)
        } else {
            registrar.watch(fileDescriptor: socketFD, token: token, interest: wanted)
        }
    }

    private mutating func startTimer<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        timer = parallax_timer_create(NBDLimits.goodbyeNanoseconds)
        isOutOfTime = timer < 0
        guard timer >= 0 else { return }
        registrar.watch(
            fileDescriptor: timer, token: EventToken(session: session, source: Source.timer),
            interest: .readable)
    }

    private mutating func stopTimer<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        guard timer >= 0 else { return }
        registrar.unwatch(token: EventToken(session: session, source: Source.timer))
        close(timer)
        timer = -1
    }

    private mutating func closeSocket<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        if !interest.isEmpty {
            registrar.unwatch(token: EventToken(session: session, source: Source.socket))
            interest = []
        }
        phase = .closed
        abandonCurrent()
        replies.removeAll(pool: &pool)
        stopTimer(registrar: &registrar)
        if socketFD >= 0 { _ = parallax_socket_close(socketFD) }
        socketFD = -1
    }
}
