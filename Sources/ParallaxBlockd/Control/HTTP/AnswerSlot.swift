// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Dispatch
import ParallaxControl
import Synchronization

/// A request that is being answered: carries the answer from a task to the connection's thread,
/// and tells the task whether anybody still waits for it.
///
/// The first answer counts; one that nobody waits for any more goes with the task. Invariant: the
/// thread waits, and keeps the socket open, until there is an answer or it has abandoned the
/// request. So whoever holds the lock and finds neither may look at the socket.
final class AnswerSlot: Sendable {
    /// Of the request that the task answers; nil for what the daemon does by itself.
    @TaskLocal static var current: AnswerSlot?

    private struct State {
        var answer: HTTPMessage?
        var isAbandoned = false
        /// A change was begun.
        var hasBegun = false
        /// The task is done with it.
        var hasEnded = false
    }

    private let state = Mutex(State())
    private let isFilled = DispatchSemaphore(value: 0)
    private let socket: Int32
    private let unawaited: UnawaitedRequests

    init(socket: Int32, unawaited: UnawaitedRequests) {
        self.socket = socket
        self.unawaited = unawaited
    }

    func fill(_ answer: HTTPMessage) {
        state.withLock { $0.answer = $0.answer ?? answer }
        isFilled.signal()
    }

    /// By the task, as the last that it does.
    func end(with answer: HTTPMessage) {
        let wasAbandoned = state.withLock { state in
            state.hasEnded = true
            return state.isAbandoned
        }
        fill(answer)
        if wasAbandoned { unawaited.remove() }
    }

    /// By the thread, which waits no more.
    func abandon() {
        state.withLock { state in
            state.isAbandoned = true
            // With the lock held: the end of the task, which takes it off again, comes after.
            if !state.hasEnded { unawaited.add() }
        }
    }

    /// nil: it has not come in this time.
    func wait(milliseconds: Int) -> HTTPMessage? {
        guard isFilled.wait(timeout: .now() + .milliseconds(milliseconds)) == .success else {
            return nil
        }
        return state.withLock { $0.answer } ?? HTTPMessage(startLine: .response(status: 500))
    }

    /// Whether the request may change something now: somebody waits for it, or it has begun to
    /// already, and what is left of it are the steps of one whole.
    func mayChange() -> Bool {
        state.withLock { state in
            guard !state.hasBegun else { return true }
            state.hasBegun =
                !state.isAbandoned && state.answer == nil && !StreamSocket.hasPeerHungUp(socket)
            return state.hasBegun
        }
    }
}

/// How many requests are under way that nobody waits for any more.
final class UnawaitedRequests: Sendable {
    private let number = Mutex(0)

    var count: Int { number.withLock { $0 } }

    func add() { number.withLock { $0 += 1 } }

    func remove() { number.withLock { $0 -= 1 } }
}
