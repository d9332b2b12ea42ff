// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import Testing

@Suite("Linux shims")
struct LinuxShimTests {
    @Test("an eventfd counts writes and is empty after a read")
    func eventFD() {
        let fd = parallax_eventfd_create(0, 1)
        defer { close(fd) }
        var value: UInt64 = 0
        #expect(parallax_eventfd_read(fd, &value) == -EAGAIN)
        #expect(parallax_eventfd_write(fd, 3) == 0)
        #expect(parallax_eventfd_write(fd, 4) == 0)
        #expect(parallax_eventfd_read(fd, &value) == 0)
        #expect(value == 7)
        #expect(parallax_eventfd_read(fd, &value) == -EAGAIN)
    }

    @Test(
        "file descriptors travel with a message, and the peer's copies work",
        arguments: [0, 1, 8, 32])
    func descriptorPassing(count: Int) {
        withSocketPair { left, right in
            let sent = (0..<count).map { parallax_eventfd_create(UInt32($0 + 1), 1) }
            defer { for fd in sent { close(fd) } }
            #expect(parallax_send_with_fds(left, "x", 1, sent, count) == 1)
            let (bytes, fds, isTruncated) = receive(right, capacity: 32)
            defer { for fd in fds { close(fd) } }
            #expect(bytes == 1)
            #expect(fds.count == count)
            #expect(!isTruncated)
            for (index, fd) in fds.enumerated() {
                var value: UInt64 = 0
                #expect(parallax_eventfd_read(fd, &value) == 0)
                #expect(value == UInt64(index + 1))
                #expect(fcntl(fd, F_GETFD) & FD_CLOEXEC != 0)
            }
        }
    }

    @Test("more file descriptors than fit are reported and none leaks", arguments: [0, 1, 2, 7, 8])
    func truncatedPassing(capacity: Int) {
        withSocketPair { left, right in
            var pipe: [Int32] = [-1, -1]
            #expect(parallax_pipe(&pipe, 1) == 0)
            defer { close(pipe[0]) }
            let sent = [Int32](repeating: pipe[1], count: 9)
            #expect(parallax_send_with_fds(left, "x", 1, sent, 9) == 1)
            let (bytes, fds, isTruncated) = receive(right, capacity: capacity)
            #expect(bytes == 1)
            #expect(fds.count == capacity)
            #expect(isTruncated)
            for fd in fds { close(fd) }
            close(pipe[1])
            // End of file only when no copy of the writing end is left anywhere; those that did not fit
            // are closed by another thread.
            var end = pollfd(fd: pipe[0], events: Int16(POLLIN), revents: 0)
            #expect(poll(&end, 1, 60_000) == 1)
            var byte: UInt8 = 0
            #expect(read(pipe[0], &byte, 1) == 0)
        }
    }

    @Test("a send to a closed peer is an error and no signal")
    func brokenPipe() {
        withSocketPair { left, right in
            shutdown(right, Int32(SHUT_RDWR))
            #expect(parallax_send(left, "x", 1) == -Int(EPIPE))
        }
    }

    @Test("the peer of a socket pair in one process is this process")
    func peerCredentials() {
        withSocketPair { left, _ in
            var pid: Int32 = 0
            var uid: UInt32 = 0
            var gid: UInt32 = 0
            #expect(parallax_peer_credentials(left, &pid, &uid, &gid) == 0)
            #expect(pid == getpid())
            #expect(uid == getuid())
        }
    }

    @Test("a socket path that is too long is refused, a stale one says so")
    func socketPaths() {
        let tooLong = String(repeating: "x", count: PARALLAX_UNIX_PATH_MAX + 1)
        #expect(parallax_unix_listen(tooLong, 1, 1) == -ENAMETOOLONG)
        let path = "/tmp/io-\(getpid())-stale.sock"
        let listener = parallax_unix_listen(path, 1, 1)
        #expect(listener >= 0)
        defer { unlink(path) }
        let client = parallax_unix_connect(path, 1)
        #expect(client >= 0)
        close(client)
        #expect(parallax_unix_listen(path, 1, 1) == -EADDRINUSE)
        close(listener)
        #expect(parallax_unix_connect(path, 1) == -ECONNREFUSED)
    }

    @Test("a sealed memory file cannot shrink")
    func seals() {
        let fd = parallax_memfd_create("test", 8192)
        #expect(fd >= 0)
        defer { close(fd) }
        #expect(parallax_memfd_add_seals(fd, PARALLAX_SEAL_SHRINK | PARALLAX_SEAL_SEAL) == 0)
        #expect(parallax_memfd_get_seals(fd) == Int32(PARALLAX_SEAL_SHRINK | PARALLAX_SEAL_SEAL))
        #expect(ftruncate(fd, 4096) == -1)
    }

    private func withSocketPair(_ body: (Int32, Int32) -> Void) {
        var fds: [Int32] = [-1, -1]
        #expect(parallax_socket_pair(&fds, 1) == 0)
        body(fds[0], fds[1])
        close(fds[0])
        close(fds[1])
    }

    private func receive(_ fd: Int32, capacity: Int) -> (Int, [Int32], Bool) {
        var bytes = [UInt8](repeating: 0, count: 16)
        var fds = [Int32](repeating: -1, count: 33)
        var count = 0
        var isTruncated: Int32 = 0
        let received = parallax_receive_with_fds(
            fd, &bytes, bytes.count, &fds, capacity, &count, &isTruncated)
        return (received, Array(fds[0..<count]), isTruncated != 0)
    }
}
