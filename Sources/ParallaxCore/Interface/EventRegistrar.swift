// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Where a front-end session says which file descriptors it wants to hear from.
///
/// Semantics are those of level-triggered `epoll`: while a descriptor stays ready the session is
/// called again in each turn of the loop. A token names one descriptor; watching the same token
/// again replaces its descriptor and interest.
package protocol EventRegistrar: ~Copyable {
    mutating func watch(fileDescriptor: Int32, token: EventToken, interest: EventInterest)

    /// After the return no event with this token is delivered, not even one already queued; the
    /// caller may close the descriptor at once.
    mutating func unwatch(token: EventToken)
}

/// Names one descriptor of one session: the session's index and the session's own number.
@frozen
package struct EventToken: BitwiseCopyable, Hashable, Sendable {
    package var session: UInt32
    package var source: UInt32

    @inlinable
    package init(session: UInt32, source: UInt32) {
        self.session = session
        self.source = source
    }
}

/// What a watcher waits for; errors and hang-ups are always reported as both.
@frozen
package struct EventInterest: OptionSet, BitwiseCopyable, Sendable {
    package let rawValue: UInt8

    @inlinable
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable package static var readable: EventInterest { EventInterest(rawValue: 1) }
    @inlinable package static var writable: EventInterest { EventInterest(rawValue: 2) }
}
