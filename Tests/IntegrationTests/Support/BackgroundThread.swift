// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import Synchronization

/// Blocking work beside a test's own.
final class BackgroundThread: Sendable {
    private struct State {
        var isFinished = false
        var failure: (any Error)?
    }

    private final class Shared: Sendable {
        let state = Mutex(State())
    }

    private let shared = Shared()
    private let thread: Mutex<pthread_t>

    init(_ body: @escaping @Sendable () throws -> Void) {
        let shared = shared
        let work = Unmanaged.passRetained(
            Work {
                do {
                    try body()
                    shared.state.withLock { $0.isFinished = true }
                } catch {
                    shared.state.withLock { $0 = State(isFinished: true, failure: error) }
                }
            })
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                if let argument {
                    Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body()
                }
                return nil
            }, work.toOpaque())
        precondition(result == 0, "BackgroundThread: no thread")
        self.thread = Mutex(thread)
    }

    private final class Work: Sendable {
        let body: @Sendable () -> Void

        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    var isFinished: Bool { shared.state.withLock { $0.isFinished } }

    /// Lets it go on, for a caller that waits for something that it does.
    func breathe() { sched_yield() }

    /// Waits for its end and passes its error on.
    func join() throws {
        _ = pthread_join(thread.withLock { $0 }, nil)
        if let failure = shared.state.withLock({ $0.failure }) { throw failure }
    }
}
