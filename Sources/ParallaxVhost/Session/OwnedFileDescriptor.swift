// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// A file descriptor that is closed when its owner goes away. `Connection` lets none in whose closing
/// could wait for the front end.
struct OwnedFileDescriptor: ~Copyable {
    let number: Int32

    init(adopting number: Int32) { self.number = number }

    deinit { _ = close(number) }
}

/// An eventfd that the front end shares with us: a kick, a call or an error.
///
/// The front end keeps its end, so its flags and its count can change at any time. Reading uses a
/// call that never waits. Writing waits when the front end has both cleared `O_NONBLOCK` and filled
/// the counter, which a guest cannot do; the watchdog ends that.
struct SharedEvent: ~Copyable {
    let file: OwnedFileDescriptor

    /// Refuses everything but an eventfd: a read from a socket could take what is not ours. nil as
    /// well if there can be no watchdog.
    init?(adopting received: consuming OwnedFileDescriptor) {
        guard parallax_peer_file_kind(received.number) == PARALLAX_PEER_FILE_EVENT,
            parallax_set_nonblocking(received.number, 1) >= 0, parallax_watchdog_start() == 0
        else { return nil }
        file = received
    }

    /// Takes the count; what was counted does not matter.
    func drain() {
        var count: UInt64 = 0
        _ = parallax_eventfd_take(file.number, &count)
    }

    /// A front end that makes us wait gets nothing more, so that it holds up the shard once.
    func signal(_ device: inout DeviceState) {
        guard !device.hasHeldUp else { return }
        device.hasHeldUp = parallax_watched_signal(file.number) == -EINTR
    }
}
