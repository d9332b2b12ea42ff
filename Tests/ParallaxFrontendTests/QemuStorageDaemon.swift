// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxGuest
import Testing

/// A qemu-storage-daemon that serves a raw file of its own on a vhost-user-blk socket; gone, with
/// its files, when the value is.
struct QemuStorageDaemon: ~Copyable {
    let pid: pid_t
    let socketPath: String
    private let folder: String

    private static let program = "/usr/bin/qemu-storage-daemon"

    static var isInstalled: Bool { access(program, X_OK) == 0 }

    init(diskBytes: Int, queueCount: Int = 1) throws {
        var template = Array("/tmp/parallax-guest-XXXXXX".utf8CString)
        let made = mkdtemp(&template)
        let folder = String(cString: try #require(made))
        let file = folder + "/disk"
        let fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(fd >= 0)
        try #require(ftruncate(fd, off_t(diskBytes)) == 0)
        close(fd)
        let socketPath = folder + "/socket"
        // With --daemonize the process that we start exits when the device serves.
        let pidFile = folder + "/pid"
        try Self.run([
            Self.program, "--daemonize", "--pidfile", pidFile, "--blockdev",
            "driver=file,node-name=n,discard=unmap,filename=" + file, "--export",
            "type=vhost-user-blk,id=e,node-name=n,writable=on,num-queues=\(queueCount),"
                + "addr.type=unix,addr.path=" + socketPath,
        ])
        let pid = try Self.readNumber(pidFile)
        self.folder = folder
        self.socketPath = socketPath
        self.pid = pid
    }

    deinit {
        kill(pid, SIGKILL)
        for name in ["/disk", "/socket", "/pid"] { unlink(folder + name) }
        rmdir(folder)
    }

    private static func run(_ arguments: [String]) throws {
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        words.append(nil)
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        try #require(posix_spawn(&child, arguments[0], nil, nil, words, environ) == 0)
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 { try #require(errno == EINTR) }
        try #require(status == 0, "qemu-storage-daemon did not start")
    }

    private static func readNumber(_ path: String) throws -> pid_t {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        try #require(fd >= 0)
        defer { close(fd) }
        var bytes = [UInt8](repeating: 0, count: 32)
        let count = read(fd, &bytes, bytes.count)
        let text = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
        return try #require(pid_t(text.filter(\.isNumber)))
    }
}
