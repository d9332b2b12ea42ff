// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxControl

/// The datagram socket in the place of systemd's: how a test learns that the daemon is ready.
final class NotifySocket {
    let path: String
    private let descriptor: Int32

    init(path: String) throws {
        self.path = path
        unlink(path)
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let bound = try UnixAddress(path: path).withSocketAddress { [descriptor] in
            bind(descriptor, $0, $1)
        }
        guard bound == 0 else { throw TestFailure("cannot make \(path)") }
    }

    deinit {
        close(descriptor)
        unlink(path)
    }

    /// The next message; nil when `process` ends first.
    func next(
        orEndOf process: ChildProcess, seconds: Int = ChildProcess.patienceSeconds
    ) throws -> String? {
        var watched = [
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: process.endDescriptor, events: Int16(POLLIN), revents: 0),
        ]
        guard poll(&watched, 2, Int32(seconds * 1000)) > 0 else {
            throw TestFailure("the daemon said nothing for \(seconds) s")
        }
        guard watched[0].revents != 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 1000)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    }
}
