// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// A connected Unix stream socket with blocking calls that give up after a time; closed once, when
/// it goes out of scope.
package struct StreamSocket: ~Copyable {
    package let fileDescriptor: Int32

    /// Takes over a connected descriptor.
    package init(adopting fileDescriptor: Int32) { self.fileDescriptor = fileDescriptor }

    deinit { _ = close(fileDescriptor) }

    /// How a connection attempt ended.
    package enum ConnectOutcome: ~Copyable {
        case connected(StreamSocket)
        case failed(errno: Int32)
    }

    /// With `isProbe` it never waits for a listener that has no time (EAGAIN).
    package static func connect(
        to address: UnixAddress, isProbe: Bool = false
    ) -> ConnectOutcome {
        let flags = isProbe ? SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue : SOCK_CLOEXEC.rawValue
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | flags), 0)
        guard descriptor >= 0 else { return .failed(errno: errno) }
        let stream = StreamSocket(adopting: descriptor)
        let result = address.withSocketAddress { Glibc.connect(descriptor, $0, $1) }
        guard result == 0 else { return .failed(errno: errno) }
        return .connected(stream)
    }

    /// Bounds each later `receive` and `send`.
    package func setTimeouts(seconds: Int) {
        var time = timeval(tv_sec: seconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        _ = setsockopt(fileDescriptor, SOL_SOCKET, SO_RCVTIMEO, &time, size)
        _ = setsockopt(fileDescriptor, SOL_SOCKET, SO_SNDTIMEO, &time, size)
    }

    /// Whether nobody is there any more to read what is sent.
    package var hasPeerHungUp: Bool { Self.hasPeerHungUp(fileDescriptor) }

    /// The same of a socket that somebody else keeps open meanwhile.
    package static func hasPeerHungUp(_ fileDescriptor: Int32) -> Bool {
        // Without POLLRDHUP: a peer that has shut down its sending side may still read an answer.
        var peer = pollfd(fd: fileDescriptor, events: 0, revents: 0)
        return poll(&peer, 1, 0) == 1 && Int32(peer.revents) & POLLHUP != 0
    }

    /// Bytes that have come, at most `limit`; empty at the end of the stream; nil for an error,
    /// with the reason in `errno` (EAGAIN when the time is up).
    package func receive(limit: Int) -> [UInt8]? {
        var received = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            repeat {
                received = recv(fileDescriptor, buffer.baseAddress, limit, 0)
            } while received < 0 && errno == EINTR
            count = max(0, received)
        }
        return received < 0 ? nil : bytes
    }

    /// Sends all of `bytes`; false when the peer has gone or does not read.
    package func send(_ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { bytes in
            var sent = 0
            while sent < bytes.count {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[sent...])
                let count = Glibc.send(
                    fileDescriptor, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { return false }
                sent += count
            }
            return true
        }
    }
}
