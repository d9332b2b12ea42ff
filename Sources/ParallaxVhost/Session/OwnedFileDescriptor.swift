// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// A file descriptor that is closed when its owner goes away.
struct OwnedFileDescriptor: ~Copyable {
    let number: Int32

    init(adopting number: Int32) { self.number = number }

    deinit { _ = close(number) }
}

/// An eventfd that the front end shares with us: a kick, a call or an error.
///
/// The front end keeps its end, so its flags and its count can change at any time; reading uses
/// a call that never waits. Writing waits only when the front end has both cleared `O_NONBLOCK`
/// and filled the counter, which a guest cannot do.
struct SharedEvent: ~Copyable {
    let file: OwnedFileDescriptor

    /// Refuses everything but an eventfd: a read from a pipe, a terminal or a file of some slow
    /// file system could stop the shard.
    init?(adopting received: consuming OwnedFileDescriptor) {
        guard Self.isEventFD(received.number),
            parallax_set_nonblocking(received.number, 1) >= 0
        else { return nil }
        file = received
    }

    /// Takes the count; what was counted does not matter.
    func drain() {
        var count: UInt64 = 0
        _ = parallax_eventfd_take(file.number, &count)
    }

    func signal() { _ = parallax_eventfd_write(file.number, 1) }

    private static func isEventFD(_ number: Int32) -> Bool {
        let expected: StaticString = "anon_inode:[eventfd]"
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { target in
            guard let base = target.baseAddress else { return false }
            let count = readlink("/proc/self/fd/\(number)", base, target.count)
            return count == expected.utf8CodeUnitCount
                && memcmp(base, expected.utf8Start, count) == 0
        }
    }
}
