// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import ParallaxControl

/// A listening Unix socket with mode 0600; its path goes away with it.
package struct ListeningSocket: ~Copyable {
    package let fileDescriptor: Int32
    private let address: UnixAddress
    /// Whether the path is still the socket we made: device and inode.
    private let identity: (dev_t, ino_t)

    deinit {
        removePath()
        _ = close(fileDescriptor)
    }

    /// Removes the path, unless somebody else has put something in its place.
    package func removePath() {
        var information = stat()
        if lstat(address.path, &information) == 0,
            (information.st_dev, information.st_ino) == identity
        {
            _ = unlink(address.path)
        }
    }

    /// Makes the socket at `path`, in the place of a stale one if need be.
    package init(path: String, purpose: String) throws(ControlError) {
        let address = try UnixAddress(path: path)
        let lock = Self.lockDirectory(of: path)
        defer { if lock >= 0 { _ = close(lock) } }
        if try SocketPlace.inspect(address, purpose: purpose) == .staleSocket {
            _ = unlink(path)
        }
        let descriptor = Self.open(address)
        var information = stat()
        guard descriptor >= 0, lstat(path, &information) == 0 else {
            let number = errno
            if descriptor >= 0 { _ = close(descriptor) }
            throw ControlError(
                .socketUnusable, "cannot make \(purpose) \(path): \(errnoText(number))")
        }
        fileDescriptor = descriptor
        self.address = address
        identity = (information.st_dev, information.st_ino)
    }

    /// The listening descriptor, or -1 with the reason in `errno`.
    private static func open(_ address: UnixAddress) -> Int32 {
        let flags = Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | flags, 0)
        guard descriptor >= 0 else { return -1 }
        // The mode of the socket's descriptor becomes that of the path, less the umask: so the
        // path is never open to others, not even between bind and a chmod, and the process's
        // umask, which other threads use too, is left alone.
        guard fchmod(descriptor, 0o600) == 0,
            address.withSocketAddress({ bind(descriptor, $0, $1) }) == 0,
            listen(descriptor, 128) == 0
        else {
            let number = errno
            _ = close(descriptor)
            errno = number
            return -1
        }
        return descriptor
    }

    /// Holds off other Parallax daemons that make a socket in the same directory, between looking
    /// at a stale one and replacing it; closing the descriptor lets them in. Advisory, and skipped
    /// where the directory cannot be opened: the bind then fails with a better reason.
    private static func lockDirectory(of path: String) -> Int32 {
        let directory = SmallFile.directory(of: path)
        let descriptor = Glibc.open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if descriptor >= 0 { while flock(descriptor, LOCK_EX) != 0, errno == EINTR {} }
        return descriptor
    }
}
