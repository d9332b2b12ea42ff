// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// SIGTERM and SIGINT, taken from a thread that waits for them and not in a signal handler.
package struct TerminationSignals: Sendable {
    /// Blocks the signals in this thread and in all that it will start; so call it first of all.
    package init() {
        signal(SIGPIPE, SIG_IGN)
        var set = Self.set
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Waits for the next of the signals.
    package func wait() -> Int32 {
        var set = Self.set
        var received: Int32 = 0
        while sigwait(&set, &received) != 0 {}
        return received
    }

    private static var set: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGTERM)
        sigaddset(&set, SIGINT)
        return set
    }
}
