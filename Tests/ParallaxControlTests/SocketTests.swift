// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxBlockd
import ParallaxControl
import Testing

@Suite struct SocketTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func listen(_ path: String) throws -> Int32 {
        let listener = try ListeningSocket(path: path, purpose: "the control socket")
        return listener.fileDescriptor
    }

    /// A socket file that nobody listens on.
    private func makeStaleSocket(_ path: String, type: Int32 = Int32(SOCK_STREAM.rawValue)) throws {
        let descriptor = socket(AF_UNIX, type, 0)
        let result = try UnixAddress(path: path).withSocketAddress { bind(descriptor, $0, $1) }
        #expect(result == 0)
        close(descriptor)
    }

    @Test("the socket is private to its owner, and gone afterwards")
    func mode() throws {
        let path = directory.file("s")
        let listener = try ListeningSocket(path: path, purpose: "the control socket")
        #expect(permissions(path) == 0o600)
        _ = consume listener
        #expect(!exists(path))
    }

    @Test("a stale socket is replaced")
    func stale() throws {
        try makeStaleSocket(directory.file("s"))
        _ = try listen(directory.file("s"))
    }

    @Test("a socket that somebody listens on is left alone")
    func alive() throws {
        let path = directory.file("s")
        let first = try ListeningSocket(path: path, purpose: "the control socket")
        let error = try #require(failure { _ = try self.listen(path) })
        #expect(error.message.contains("another process listens"))
        #expect(exists(path))
        _ = consume first
    }

    @Test("what is not a socket is never removed")
    func notASocket() throws {
        try directory.write("precious", to: "file")
        #expect(mkdir(directory.file("dir"), 0o700) == 0)
        #expect(symlink("/nowhere", directory.file("link")) == 0)
        for name in ["file", "dir", "link"] {
            let error = try #require(failure { _ = try self.listen(directory.file(name)) })
            #expect(error.message.contains("not a socket"), "\(error.message)")
        }
        #expect(exists(directory.file("file")))
    }

    @Test("a path of 107 bytes fits and one of 108 does not")
    func length() throws {
        let room = 107 - directory.path.utf8.count - 1
        _ = try listen(directory.file(String(repeating: "x", count: room)))
        let error = try #require(
            failure { _ = try self.listen(directory.file(String(repeating: "x", count: room + 1))) }
        )
        #expect(error.message.contains("108 bytes"))
    }

    @Test("a directory that does not exist is named")
    func noDirectory() throws {
        let error = try #require(failure { _ = try self.listen(directory.file("no/s")) })
        #expect(error.message.contains(directory.file("no")))
    }

    @Test("the path stays when somebody else has put a socket of theirs there")
    func replaced() throws {
        let path = directory.file("s")
        let listener = try ListeningSocket(path: path, purpose: "the control socket")
        unlink(path)
        try makeStaleSocket(path)
        _ = consume listener
        #expect(exists(path))
    }

    @Test("a canonical path is the same however it is spelt")
    func canonical() throws {
        #expect(mkdir(directory.file("d"), 0o700) == 0)
        let expected = SocketPlace.canonicalPath(directory.file("d/s"))
        #expect(SocketPlace.canonicalPath(directory.file("d/../d/./s")) == expected)
        #expect(SocketPlace.canonicalPath(directory.file("d//s")) == expected)
        #expect(SocketPlace.canonicalPath("/s") == "/s")
    }
}

@Suite struct ServiceNotifierTests {
    /// Binds a datagram socket at the raw address, has a message sent to `name`, and receives it.
    private func exchange(_ name: String, boundTo address: [UInt8]) throws -> String {
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(descriptor) }
        let bound = UnixAddress.withSocketAddress(bytes: address) { bind(descriptor, $0, $1) }
        #expect(bound == 0)
        #expect(ServiceNotifier(socketName: name).send("READY=1\nSTATUS=x"))
        var buffer = [UInt8](repeating: 0, count: 100)
        let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    }

    @Test("systemd hears us on a path")
    func path() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("notify")
        #expect(try exchange(path, boundTo: Array(path.utf8) + [0]) == "READY=1\nSTATUS=x")
    }

    @Test("systemd hears us on an abstract name")
    func abstractName() throws {
        let name = "parallax-test-\(getpid())-notify"
        #expect(try exchange("@" + name, boundTo: [0] + Array(name.utf8)) == "READY=1\nSTATUS=x")
    }

    @Test("without systemd, or with nobody there, nothing happens")
    func nobody() {
        #expect(ServiceNotifier(socketName: nil).send("READY=1"))
        #expect(!ServiceNotifier(socketName: "/nonexistent/notify").send("READY=1"))
        #expect(!ServiceNotifier(socketName: "relative").send("READY=1"))
        #expect(!ServiceNotifier(socketName: "/" + String(repeating: "x", count: 200)).send("X"))
    }

    @Test("READY is said only when all serve")
    func messages() {
        #expect(ServiceNotifier.message(for: .ready, summary: "s").hasPrefix("READY=1\n"))
        #expect(ServiceNotifier.message(for: .degraded, summary: "s") == "STATUS=s")
        #expect(ServiceNotifier.message(for: .stopping, summary: "s").hasPrefix("STOPPING=1\n"))
    }
}
