// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// Wakes a thread that waits in `poll`.
struct WakeUpPipe: ~Copyable, Sendable {
    private let readEnd: Int32
    private let writeEnd: Int32

    init?() {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        readEnd = ends[0]
        writeEnd = ends[1]
    }

    deinit {
        _ = close(readEnd)
        _ = close(writeEnd)
    }

    /// From any thread. A full pipe is as good as one more byte in it.
    func signal() {
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)
    }

    /// Returns when signalled, when `descriptor` (unless -1) is readable, or after the time.
    func wait(or descriptor: Int32, timeoutMilliseconds: Int32) {
        var polled = [
            pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0),
            // A negative descriptor is ignored by poll.
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
        ]
        _ = poll(&polled, 2, timeoutMilliseconds)
        var bytes = [UInt8](repeating: 0, count: 64)
        while read(readEnd, &bytes, bytes.count) > 0 {}
    }
}
