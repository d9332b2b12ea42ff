// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore

/// A registrar over epoll with the promises of `EventRegistrar`, the one about events that are
/// already queued included.
struct EpollRegistrar: EventRegistrar, ~Copyable {
    private let epoll: Int32
    private(set) var watched: [EventToken: Int32] = [:]

    init() {
        epoll = parallax_epoll_create()
        precondition(epoll >= 0, "no epoll")
    }

    deinit { close(epoll) }

    mutating func watch(fileDescriptor: Int32, token: EventToken, interest: EventInterest) {
        unwatch(token: token)
        var events: UInt32 = 0
        if interest.contains(.readable) { events |= PARALLAX_EPOLLIN }
        if interest.contains(.writable) { events |= PARALLAX_EPOLLOUT }
        let data = UInt64(token.session) << 32 | UInt64(token.source)
        let result = parallax_epoll_add(epoll, fileDescriptor, events, data)
        precondition(result >= 0, "cannot watch")
        watched[token] = fileDescriptor
    }

    mutating func unwatch(token: EventToken) {
        guard let number = watched.removeValue(forKey: token) else { return }
        let result = parallax_epoll_remove(epoll, number)
        precondition(result >= 0, "unwatched after the descriptor was closed")
    }

    /// Tokens that are ready now.
    func wait(timeoutMilliseconds: Int64) -> [EventToken] {
        withUnsafeTemporaryAllocation(of: parallax_epoll_event.self, capacity: 32) { events in
            let count = parallax_epoll_wait(
                epoll, events.baseAddress, 32, timeoutMilliseconds * 1_000_000)
            return (0..<max(0, Int(count))).map { index in
                let data = events[index].data
                return EventToken(
                    session: UInt32(truncatingIfNeeded: data >> 32),
                    source: UInt32(truncatingIfNeeded: data))
            }
        }
    }
}
