// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Dispatch
import Glibc
package import Logging
package import ParallaxControl
import Synchronization

/// Serves HTTP/1.1 on a listening Unix socket: one thread accepts, one blocking thread serves each
/// connection, and the answers come from the control plane's actor.
///
/// A thread a connection, because there are few (an operator, a scraper), because time limits are
/// then one socket option, and because a peer that stalls holds a thread of its own and nothing
/// that others need. Invariants: I1 at most `connectionLimit` connections are open, later ones
/// wait in the socket's queue; I2 a descriptor in `connections` is open; I3 nothing is begun while
/// `unawaitedLimit` requests or more are under way whose clients have gone.
package final class HTTPServer: Sendable {
    package typealias Respond = @Sendable (HTTPMessage) async -> HTTPMessage

    package static let connectionLimit = 64
    /// LIMIT: requests under way that nobody waits for any more. Their connections are free for
    /// others (`HTTPConnection.wait`), so that nothing else bounds how many there are.
    package static let unawaitedLimit = 4 * connectionLimit

    private struct State {
        /// Open connections; with a slot for the answer while a request is being answered.
        var connections: [Int32: AnswerSlot?] = [:]
        var isStopping = false
    }

    private let listener: ListeningSocket
    private let log: Logger
    private let respond: Respond
    private let isAlwaysServed: @Sendable (HTTPMessage) -> Bool
    private let unawaited = UnawaitedRequests()
    private let state = Mutex(State())
    private let wakeUp: WakeUpPipe
    /// The accepting thread and every connection.
    private let threads = DispatchGroup()

    /// Takes over `listener`; serves after `start`. `isAlwaysServed`: requests whose answers wait
    /// for nothing, and are given however many others do not come.
    package init(
        listener: consuming ListeningSocket, log: Logger,
        isAlwaysServed: @escaping @Sendable (HTTPMessage) -> Bool = { _ in false },
        respond: @escaping Respond
    ) throws(ControlError) {
        guard let wakeUp = WakeUpPipe() else {
            throw ControlError(.internalError, "cannot make a pipe: \(errnoText(errno))")
        }
        self.wakeUp = wakeUp
        self.listener = listener
        self.log = log
        self.isAlwaysServed = isAlwaysServed
        self.respond = respond
    }

    package var unawaitedCount: Int { unawaited.count }

    package func start() throws(ControlError) {
        threads.enter()
        let started = startDetachedThread {
            self.acceptConnections()
            self.threads.leave()
        }
        guard started else {
            threads.leave()
            throw ControlError(.internalError, "cannot start a thread: \(errnoText(errno))")
        }
    }

    /// LIMIT: time for answers that are there to be sent, at the end.
    private static let sendingTime = Duration.milliseconds(200)

    /// Accepts no more, removes the socket's path, and gives requests that are being answered until
    /// `deadline` to finish; those that do not are answered that nobody waited for them.
    package func stop(until deadline: ContinuousClock.Instant = .now + .seconds(5)) async {
        state.withLock { state in
            state.isStopping = true
            for (descriptor, slot) in state.connections where slot == nil {
                _ = shutdown(descriptor, Int32(SHUT_RDWR))
            }
        }
        listener.removePath()
        wakeUp.signal()
        if await areThreadsGone(within: ContinuousClock.now.duration(to: deadline)) { return }
        let late = state.withLock { $0.connections.values.compactMap(\.self) }
        let answer = HTTPMessage.json(
            status: 503,
            ErrorBody(
                ControlError(
                    .stopping,
                    "the daemon is stopping and did not wait for the end of this; "
                        + "when it is back, look whether it was done")))
        for slot in late { slot.fill(answer) }
        _ = await areThreadsGone(within: Self.sendingTime)
    }

    /// The requests need the threads of the pool, so waiting for them must not hold one.
    private func areThreadsGone(within time: Duration) async -> Bool {
        let (seconds, attoseconds) = time.components
        let nanoseconds = max(0, Int(seconds) * 1_000_000_000 + Int(attoseconds / 1_000_000_000))
        return await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                let result = self.threads.wait(timeout: .now() + .nanoseconds(nanoseconds))
                continuation.resume(returning: result == .success)
            }
        }
    }

    private func acceptConnections() {
        var isStarved = false
        while true {
            let (isStopping, count) = state.withLock { ($0.isStopping, $0.connections.count) }
            guard !isStopping else { return }
            // Out of descriptors: pause instead of spinning on a queue that cannot be emptied.
            let isOpen = count < Self.connectionLimit && !isStarved
            let descriptor = isOpen ? listener.fileDescriptor : -1
            wakeUp.wait(or: descriptor, timeoutMilliseconds: isStarved ? 100 : -1)
            isStarved = false
            guard isOpen else { continue }
            let accepted = accept(listener.fileDescriptor, nil, nil)
            if accepted >= 0 {
                serve(accepted)
            } else if errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM {
                log.warning("cannot accept: \(errnoText(errno))")
                isStarved = true
            }
        }
    }

    private func serve(_ descriptor: Int32) {
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        let isAdmitted = state.withLock { state in
            if !state.isStopping { state.connections[descriptor] = .some(nil) }
            return !state.isStopping
        }
        guard isAdmitted else {
            _ = close(descriptor)
            return
        }
        threads.enter()
        let started = startDetachedThread {
            let connection = HTTPConnection(
                StreamSocket(adopting: descriptor), unawaited: self.unawaited)
            connection.serve(
                mark: { slot in self.mark(descriptor, slot) },
                respond: { await self.answer($0) })
            self.forget(descriptor)
            // The descriptor is closed with `connection`, after nobody else knows it (I2).
            _ = consume connection
            self.wakeUp.signal()
            self.threads.leave()
        }
        guard started else {
            forget(descriptor)
            _ = close(descriptor)
            threads.leave()
            return
        }
    }

    /// Refusing leaves the connection to others, so that a store which hangs for ever keeps nobody
    /// from asking whether the daemon is ready, nor the daemon from stopping.
    private func answer(_ request: HTTPMessage) async -> HTTPMessage {
        guard unawaited.count < Self.unawaitedLimit || isAlwaysServed(request) else {
            return .json(
                status: 503,
                ErrorBody(
                    ControlError(
                        .notReady,
                        "too many requests whose clients have gone are still under way; "
                            + "see whether the store's device hangs, and try again when it does not"
                    )))
        }
        return await respond(request)
    }

    /// False when the server is stopping, so that the connection ends after this answer.
    private func mark(_ descriptor: Int32, _ slot: AnswerSlot?) -> Bool {
        state.withLock { state in
            state.connections[descriptor] = .some(slot)
            return !state.isStopping
        }
    }

    private func forget(_ descriptor: Int32) {
        state.withLock { state in state.connections[descriptor] = nil }
    }
}
