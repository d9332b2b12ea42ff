// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxNBD

/// Where the server under test says what it waits for; `poll` in place of a reactor.
struct PollRegistrar: EventRegistrar, ~Copyable {
    private(set) var watched: [EventToken: (fileDescriptor: Int32, interest: EventInterest)] = [:]

    mutating func watch(fileDescriptor: Int32, token: EventToken, interest: EventInterest) {
        precondition(fcntl(fileDescriptor, F_GETFD) >= 0, "watching a closed descriptor")
        watched[token] = (fileDescriptor, interest)
    }

    mutating func unwatch(token: EventToken) {
        precondition(watched[token] != nil, "nobody watches this")
        watched[token] = nil
    }

    /// Waits until something is ready, or `timeout` milliseconds; `also` is only waited for.
    func wait(timeout: Int32, also: [Int32] = []) -> [(EventToken, EventInterest)] {
        let tokens = watched.keys.sorted { ($0.session, $0.source) < ($1.session, $1.source) }
        var polled = tokens.map { token in
            let (descriptor, interest) = watched[token] ?? (-1, [])
            let events =
                (interest.contains(.readable) ? POLLIN : 0)
                | (interest.contains(.writable) ? POLLOUT : 0)
            return pollfd(fd: descriptor, events: Int16(events), revents: 0)
        }
        polled += also.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        guard poll(&polled, nfds_t(polled.count), timeout) > 0 else { return [] }
        return zip(tokens, polled).compactMap { token, result in
            let broken = Int32(result.revents) & (POLLHUP | POLLERR) != 0
            var interest: EventInterest = []
            if broken || Int32(result.revents) & POLLIN != 0 { interest.insert(.readable) }
            if broken || Int32(result.revents) & POLLOUT != 0 { interest.insert(.writable) }
            return interest.isEmpty ? nil : (token, interest)
        }
    }
}

/// A shard in miniature: one loop with a listener, connections and a disk in memory.
final class NBDTestServer {
    static let listenerSession: UInt32 = 0
    let engine: NBDTestEngine
    var registrar = PollRegistrar()
    var requests: RequestQueue
    private(set) var connections: [UInt32: UnsafeMutablePointer<NBDConnection>] = [:]
    private var listener: UnsafeMutablePointer<NBDListener>?
    private var exports: [String: NBDExport] = [:]
    private var nextSession: UInt32 = 1
    /// Which of the waiting requests is answered next; nil: none, now. The default: the oldest.
    var pick: (Int) -> Int? = { $0 > 0 ? 0 : nil }
    private(set) var handoverCount = 0

    init(byteCount: Int = 1 << 20, queueCapacity: Int = 256) {
        engine = NBDTestEngine(byteCount: byteCount)
        requests = RequestQueue(minimumCapacity: queueCapacity)
    }

    deinit {
        stop()
        listener?.deinitialize(count: 1)
        listener?.deallocate()
    }

    // MARK: Set-up

    func listen(_ path: String, exports: [NBDExport], defaultName: String? = nil) throws {
        try listen(
            NBDListener(session: Self.listenerSession, path: path), exports: exports,
            defaultName: defaultName)
    }

    func listen(
        _ made: consuming NBDListener, exports: [NBDExport], defaultName: String? = nil
    ) {
        let place = UnsafeMutablePointer<NBDListener>.allocate(capacity: 1)
        place.initialize(to: made)
        listener = place
        self.exports = Dictionary(uniqueKeysWithValues: exports.map { ($0.name, $0) })
        place.pointee.setExports(NBDExportTable(exports, defaultName: defaultName))
        place.pointee.start(registrar: &registrar)
    }

    var negotiatingCount: Int { listener?.pointee.negotiatingCount ?? 0 }

    /// A connection that is past negotiation; returns its session and the client's end.
    func connect(
        structured: Bool = true, allocation: Bool = true, readOnly: Bool = false
    ) throws -> (UInt32, NBDTestClient) {
        let (near, client) = try NBDTestClient.pair()
        let agreement = NBDAgreement(
            exportName: "disk", usesStructuredReplies: structured, reportsAllocation: allocation)
        let export = NBDExport(
            name: "disk", byteCount: UInt64(engine.byteCount), isReadOnly: readOnly)
        let session = try adopt(NBDHandover(agreement: agreement, socketFD: near), export)
        client.usesStructuredReplies = structured
        client.server = self
        return (session, client)
    }

    private func adopt(_ handover: NBDHandover, _ export: NBDExport) throws -> UInt32 {
        let session = nextSession
        nextSession += 1
        handoverCount += 1
        let place = UnsafeMutablePointer<NBDConnection>.allocate(capacity: 1)
        place.initialize(
            to: try NBDConnection(session: session, vdi: 7, handover: handover, export: export))
        for other in connections.values where other.pointee.noteSuccessor() {
            other.pointee.stop(registrar: &registrar)
        }
        connections[session] = place
        startWaiting()
        return session
    }

    private func startWaiting() {
        guard !connections.values.contains(where: { $0.pointee.holdsUpSuccessors }) else { return }
        for place in connections.values where place.pointee.isWaiting {
            place.pointee.start(registrar: &registrar)
        }
    }

    // MARK: The loop

    /// One turn: events, engine, replies, batch ends. Returns whether anything happened.
    @discardableResult
    func turn(timeout: Int32 = 0, also: [Int32] = []) -> Bool {
        let events = registrar.wait(timeout: timeout, also: also)
        for (token, interest) in events { deliver(token, interest) }
        let hasAnswered = runEngine()
        for place in connections.values {
            place.pointee.finishBatch(registrar: &registrar, requests: &requests)
        }
        startWaiting()
        removeFinished()
        return !events.isEmpty || hasAnswered || !requests.isEmpty
    }

    /// Turns until nothing moves any more.
    func settle() {
        var quiet = 0
        var turns = 0
        while quiet < 2 {
            quiet = turn() ? 0 : quiet + 1
            turns += 1
            precondition(turns < 100_000, "the loop spins")
        }
    }

    private func deliver(_ token: EventToken, _ interest: EventInterest) {
        // An event that was unwatched earlier in this turn is not delivered.
        guard registrar.watched[token] != nil else { return }
        if token.session == Self.listenerSession {
            listener?.pointee.handleEvent(
                source: token.source, interest: interest, registrar: &registrar)
            while let handover = listener?.pointee.takeHandover() {
                guard let export = exports[handover.agreement.exportName],
                    (try? adopt(handover, export)) != nil
                else { preconditionFailure("handed over to nobody") }
            }
        } else {
            connections[token.session]?.pointee.handleEvent(
                source: token.source, interest: interest, registrar: &registrar,
                requests: &requests)
        }
    }

    private func runEngine() -> Bool {
        while let request = requests.popFirst() { engine.submit(request) }
        var hasAnswered = false
        while let index = pick(engine.pending.count) {
            let reply = engine.answer(index)
            guard let place = connections[reply.session] else {
                preconditionFailure("I1: a session went away with requests in flight")
            }
            place.pointee.complete(tag: reply.tag, status: reply.status)
            hasAnswered = true
        }
        return hasAnswered
    }

    private func removeFinished() {
        for (session, place) in connections where place.pointee.isFinished {
            precondition(place.pointee.hasNothingTaken, "a finished connection leaks")
            place.deinitialize(count: 1)
            place.deallocate()
            connections[session] = nil
        }
    }

    func stopConnection(_ session: UInt32, isLeaving: Bool = false) {
        connections[session]?.pointee.stop(isLeaving: isLeaving, registrar: &registrar)
        removeFinished()
    }

    func stop() {
        pick = { $0 > 0 ? 0 : nil }
        listener?.pointee.stop(registrar: &registrar)
        for place in connections.values { place.pointee.stop(registrar: &registrar) }
        settle()
        // A client that does not read is waited for, not for long.
        for _ in 0..<100 where !connections.isEmpty { turn(timeout: 100) }
        precondition(connections.isEmpty, "a connection did not end")
        precondition(registrar.watched.isEmpty, "something is still watched")
    }
}
