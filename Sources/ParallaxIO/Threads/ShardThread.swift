// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import Synchronization

/// One named operating-system thread that runs one closure to its end.
///
/// Signals stay with the threads that expect them: this thread blocks all but those that report
/// its own faults.
package final class ShardThread: Sendable {
    package let name: String
    private let handle: Mutex<pthread_t?>

    /// Starts the thread, bound to `cpu` if one is given; longer names are cut to 15 bytes.
    package init(
        name: String, cpu: Int? = nil, body: @escaping @Sendable () -> Void
    ) throws(ShardThreadError) {
        self.name = name
        let start = ThreadStart {
            _ = parallax_thread_set_name(name)
            // A CPU that is not there costs the binding, not the shard.
            if let cpu { _ = parallax_thread_set_affinity(Int32(clamping: cpu)) }
            body()
        }
        let argument = Unmanaged.passRetained(start)
        var thread = pthread_t()
        let result = withSignalsBlocked {
            pthread_create(
                &thread, nil,
                { argument in
                    guard let argument else { return nil }
                    Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue().body()
                    return nil
                }, argument.toOpaque())
        }
        guard result == 0 else {
            argument.release()
            throw ShardThreadError(name: name, errno: result)
        }
        handle = Mutex(thread)
    }

    /// Waits for the closure's end. Any number of times, but not from the thread itself.
    package func join() {
        handle.withLock { thread in
            guard let running = thread else { return }
            let result = pthread_join(running, nil)
            precondition(result == 0, "ShardThread: joined from itself")
            thread = nil
        }
    }

    deinit {
        handle.withLock { thread in
            if let running = thread { pthread_detach(running) }
        }
    }
}

/// The closure on its way through the `void *` of `pthread_create`.
private final class ThreadStart: Sendable {
    let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) {
        self.body = body
    }
}

/// A new thread inherits the mask of the thread that makes it.
private func withSignalsBlocked(_ body: () -> Int32) -> Int32 {
    var blocked = sigset_t()
    var previous = sigset_t()
    sigfillset(&blocked)
    for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT] { sigdelset(&blocked, fault) }
    pthread_sigmask(SIG_SETMASK, &blocked, &previous)
    defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }
    return body()
}

package struct ShardThreadError: Error, Equatable, CustomStringConvertible {
    package var name: String
    package var errno: Int32

    package var description: String {
        "cannot start thread \(name): \(String(cString: strerror(errno)))"
    }
}
