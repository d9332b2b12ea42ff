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
/// wait in the socket's queue; I2 a descriptor in `connections` is open.
package final class HTTPServer: Sendable {
    package typealias Respond = @Sendable (HTTPMessage) async -> HTTPMessage

    package static let connectionLimit = 64

    private struct State {
        /// Open connections; true while a request is being answered.
        var connections: [Int32: Bool] = [:]
        var isStopping = false
    }

    private let listener: ListeningSocket
    private let log: Logger
    private let respond: Respond
    private let state = Mutex(State())
    private let wakeUp: WakeUpPipe
    /// The accepting thread and every connection.
    private let threads = DispatchGroup()

    /// Takes over `listener`; serves after `start`.
    package init(
        listener: consuming ListeningSocket, log: Logger, respond: @escaping Respond
    ) throws(ControlError) {
        guard let wakeUp = WakeUpPipe() else {
            throw ControlError(.internalError, "cannot make a pipe: \(errnoText(errno))")
        }
        self.wakeUp = wakeUp
        self.listener = listener
        self.log = log
        self.respond = respond
    }

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

    /// Accepts no more, removes the socket's path, and gives requests that are being answered
    /// `graceSeconds` to finish.
    package func stop(graceSeconds: Int = 5) async {
        state.withLock { state in
            state.isStopping = true
            for (descriptor, isBusy) in state.connections where !isBusy {
                _ = shutdown(descriptor, Int32(SHUT_RDWR))
            }
        }
        listener.removePath()
        wakeUp.signal()
        // The requests need the threads of the pool, so waiting for them must not hold one.
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                _ = self.threads.wait(timeout: .now() + .seconds(graceSeconds))
                continuation.resume()
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
            if !state.isStopping { state.connections[descriptor] = false }
            return !state.isStopping
        }
        guard isAdmitted else {
            _ = close(descriptor)
            return
        }
        threads.enter()
        let started = startDetachedThread {
            let connection = HTTPConnection(StreamSocket(adopting: descriptor))
            connection.serve(
                markBusy: { isBusy in self.mark(descriptor, isBusy: isBusy) }, respond: self.respond
            )
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

    /// False when the server is stopping, so that the connection ends after this answer.
    private func mark(_ descriptor: Int32, isBusy: Bool) -> Bool {
        state.withLock { state in
            state.connections[descriptor] = isBusy
            return !state.isStopping
        }
    }

    private func forget(_ descriptor: Int32) {
        state.withLock { state in state.connections[descriptor] = nil }
    }
}
