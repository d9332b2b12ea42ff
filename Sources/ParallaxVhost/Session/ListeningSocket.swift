// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// The Unix socket on which front ends connect; removes its path when it goes away.
///
/// A path left by a daemon that died is taken over. One that somebody listens on, or that is no
/// socket, is left alone.
struct ListeningSocket: ~Copyable {
    let number: Int32
    private let path: String
    /// What was bound, so that a path that somebody else has replaced since is not removed.
    private let device: UInt
    private let inode: UInt

    init(path: String) throws(VhostError) {
        guard path.utf8.count <= Int(PARALLAX_UNIX_PATH_MAX) else {
            throw .socketPathTooLong(path, limit: Int(PARALLAX_UNIX_PATH_MAX))
        }
        guard !path.isEmpty, !path.utf8.contains(0) else { throw .socketPathInvalid }
        try Self.removeStale(path)
        let number = parallax_unix_listen(path, 4, 1)
        guard number >= 0 else { throw .cannotListen(path, errno: -number) }
        let identity = Self.identity(of: path)
        self.number = number
        self.path = path
        device = identity?.device ?? 0
        inode = identity?.inode ?? 0
    }

    deinit {
        parallax_listener_close(number)
        if let now = Self.identity(of: path), now.device == device, now.inode == inode {
            _ = unlink(path)
        }
    }

    /// A socket that refuses connections has no owner any more.
    private static func removeStale(_ path: String) throws(VhostError) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw .pathIsNoSocket(path) }
        let probe = parallax_unix_connect(path, 1)
        if probe >= 0 {
            _ = close(probe)
            throw .socketInUse(path)
        }
        // A listener whose backlog is full is alive as well.
        guard probe == -ECONNREFUSED else {
            throw probe == -EAGAIN ? .socketInUse(path) : .cannotListen(path, errno: -probe)
        }
        guard unlink(path) == 0 else { throw .cannotListen(path, errno: errno) }
    }

    private static func identity(of path: String) -> (device: UInt, inode: UInt)? {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        return (UInt(status.st_dev), UInt(status.st_ino))
    }
}
