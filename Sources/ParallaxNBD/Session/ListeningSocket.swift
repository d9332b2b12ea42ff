// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// A nonblocking listening Unix socket, and its name in the file system if that is ours.
///
/// Owned by the listener. I1 The path is unlinked only while it is still the socket that we
/// made: an administrator, or a second daemon, may have put another in its place.
struct ListeningSocket: ~Copyable {
    let fileDescriptor: Int32
    private let path: String?
    private let device: dev_t
    private let inode: ino_t

    /// Mode 0600. A socket that nobody listens on any more is replaced.
    init(path: String, backlog: Int32) throws(NBDError) {
        guard path.utf8.count <= PARALLAX_UNIX_PATH_MAX else {
            throw .pathTooLong(path: path, limit: PARALLAX_UNIX_PATH_MAX)
        }
        try Self.removeStaleSocket(path)
        let descriptor = parallax_unix_listen(path, backlog, 1)
        if descriptor == -EADDRINUSE { throw .pathInUse(path: path) }
        guard descriptor >= 0 else {
            throw .system(action: "create the NBD socket", object: path, errno: -descriptor)
        }
        var status = stat()
        guard lstat(path, &status) == 0 else {
            let code = errno
            close(descriptor)
            throw .system(action: "look at the NBD socket", object: path, errno: code)
        }
        // Older kernels do not know how.
        _ = parallax_refuse_fds(descriptor)
        fileDescriptor = descriptor
        self.path = path
        device = status.st_dev
        inode = status.st_ino
    }

    /// A socket that the service manager made; its path stays when we stop.
    init(inherited descriptor: Int32) throws(NBDError) {
        var isListening: Int32 = 0
        var domain: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &isListening, &size) == 0,
            getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0,
            isListening != 0, domain == AF_UNIX
        else { throw .socketNotListening(fileDescriptor: descriptor) }
        let result = parallax_set_nonblocking(descriptor, 1)
        guard result == 0 else {
            throw .system(
                action: "use inherited file descriptor", object: "\(descriptor)", errno: -result)
        }
        _ = parallax_refuse_fds(descriptor)
        fileDescriptor = descriptor
        path = nil
        device = 0
        inode = 0
    }

    deinit {
        guard let path else {
            // The service manager has it too, and whoever waits there waits for our successor.
            close(fileDescriptor)
            return
        }
        parallax_listener_close(fileDescriptor)
        var status = stat()
        if lstat(path, &status) == 0, status.st_dev == device, status.st_ino == inode {
            unlink(path)
        }
    }

    private static func removeStaleSocket(_ path: String) throws(NBDError) {
        var status = stat()
        // If there is nothing, or nothing that can be seen, listening says what is wrong.
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw .pathNotASocket(path: path) }
        // Nonblocking: a live server whose backlog is full must not make us wait.
        let probe = parallax_unix_connect(path, 1)
        if probe >= 0 { close(probe) }
        guard probe == -ECONNREFUSED || probe == -ENOENT else { throw .pathInUse(path: path) }
        guard unlink(path) == 0 || errno == ENOENT else {
            throw .system(action: "replace the stale socket", object: path, errno: errno)
        }
    }
}
