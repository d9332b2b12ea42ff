// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxNBD
import Testing

/// A folder of its own for each test, removed with what is in it.
final class TemporaryFolder {
    let path: String

    init() {
        var template = Array("/tmp/parallax-nbd-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress, let made = mkdtemp(base) else {
                preconditionFailure("no temporary folder")
            }
            return String(cString: made)
        }
    }

    deinit {
        guard let folder = opendir(path) else { return }
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            unlink(file(name))
        }
        closedir(folder)
        rmdir(path)
    }

    func file(_ name: String) -> String { path + "/" + name }
}

@Suite("NBD listener")
struct NBDListenerTests {
    private let disk = NBDExport(name: "disk", byteCount: 1 << 20)
    private let folder = TemporaryFolder()

    private func error(_ path: String) -> NBDError? {
        do throws(NBDError) {
            _ = try NBDListener(session: 1, path: path)
            return nil
        } catch { return error }
    }

    /// Greeting taken, flags sent.
    private func greet(_ client: NBDTestClient) {
        #expect(client.receive(18) == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
        client.send(big(UInt32(3)))
    }

    private func go(_ client: NBDTestClient, _ name: String) {
        client.send(NegotiationPeer.encode(NBDOption.go.rawValue, named(name) + [0, 0]))
    }

    private let goReplyBytes = 32 + 34 + 20

    @Test("from connect to data through the socket, by name and by default")
    func wholeWay() throws {
        let server = NBDTestServer()
        let path = folder.file("nbd.sock")
        try server.listen(path, exports: [disk], defaultName: "disk")
        for name in ["disk", ""] {
            let client = try NBDTestClient.connect(path, server: server)
            greet(client)
            go(client, name)
            #expect(client.receive(goReplyBytes).count == goReplyBytes)
            client.usesStructuredReplies = false
            client.ask(.read, length: 4096)
            #expect(client.reply(dataBytes: 4096)?.isSimple == true)
        }
        #expect(server.negotiatingCount == 0)
        #expect(server.handoverCount == 2)
    }

    @Test("the socket is for its owner only, and is removed at the end")
    func socketFile() throws {
        let path = folder.file("nbd.sock")
        var status = stat()
        do {
            let server = NBDTestServer()
            try server.listen(path, exports: [])
            #expect(stat(path, &status) == 0)
            #expect(status.st_mode & 0o777 == 0o600)
        }
        #expect(stat(path, &status) != 0)
    }

    @Test("a path that is alive, too long, or no socket is refused in a sentence")
    func badPaths() throws {
        let path = folder.file("nbd.sock")
        let server = NBDTestServer()
        try server.listen(path, exports: [])
        #expect(error(path) == .pathInUse(path: path))
        let long = folder.file(String(repeating: "x", count: 108))
        #expect(error(long) == .pathTooLong(path: long, limit: 107))
        let file = folder.file("file")
        close(creat(file, 0o600))
        #expect(error(file) == .pathNotASocket(path: file))
        let nowhere = folder.file("no/such/folder")
        let missing = NBDError.system(
            action: "create the NBD socket", object: nowhere, errno: ENOENT)
        #expect(error(nowhere) == missing)
        #expect(missing.description.hasSuffix("folder': No such file or directory"))
        #expect(error("")?.description == "cannot create the NBD socket '': Invalid argument")
    }

    @Test("a socket whose server died is replaced")
    func stalePath() throws {
        let path = folder.file("nbd.sock")
        close(parallax_unix_listen(path, 1, 1))
        let server = NBDTestServer()
        try server.listen(path, exports: [disk])
        greet(try NBDTestClient.connect(path, server: server))
    }

    @Test("a live server whose backlog is full is still a live server")
    func fullBacklog() throws {
        let path = folder.file("nbd.sock")
        let busy = parallax_unix_listen(path, 0, 1)
        var waiting: [Int32] = []
        while case let client = parallax_unix_connect(path, 1), client >= 0 {
            waiting.append(client)
        }
        #expect(error(path) == .pathInUse(path: path))
        for descriptor in waiting + [busy] { close(descriptor) }
    }

    @Test("a path that was given to another socket in the meantime is left alone")
    func foreignPath() throws {
        let path = folder.file("nbd.sock")
        var other: Int32 = -1
        do {
            let server = NBDTestServer()
            try server.listen(path, exports: [])
            unlink(path)
            other = parallax_unix_listen(path, 1, 1)
            #expect(other >= 0)
        }
        var status = stat()
        #expect(stat(path, &status) == 0)
        close(other)
    }

    @Test("an inherited socket serves, and its path stays")
    func inherited() throws {
        let path = folder.file("nbd.sock")
        do {
            let server = NBDTestServer()
            server.listen(
                try NBDListener(session: 0, inheritedFD: parallax_unix_listen(path, 8, 0)),
                exports: [disk])
            greet(try NBDTestClient.connect(path, server: server))
        }
        var status = stat()
        #expect(stat(path, &status) == 0)
        let file = open("/dev/null", O_RDONLY)
        #expect(throws: NBDError.socketNotListening(fileDescriptor: file)) {
            _ = try NBDListener(session: 1, inheritedFD: file)
        }
        close(file)
    }

    @Test("clients that never finish cannot keep others out")
    func idleClients() throws {
        let server = NBDTestServer()
        let path = folder.file("nbd.sock")
        try server.listen(path, exports: [disk])
        let idle = try (0..<NBDLimits.negotiatingClients + 20).map { _ in
            let client = try NBDTestClient.connect(path, server: server)
            server.settle()
            return client
        }
        #expect(server.negotiatingCount == NBDLimits.negotiatingClients)
        // The oldest had to go: a greeting, then the end.
        #expect(idle[0].receive(100).count == 18)
        #expect(idle[0].isHungUpOn)
        let client = try NBDTestClient.connect(path, server: server)
        greet(client)
        go(client, "disk")
        #expect(client.receive(goReplyBytes).count == goReplyBytes)
    }

    @Test("a process without file descriptors turns newcomers away and serves on")
    func noDescriptors() async {
        // In a process of its own: the limit holds for all of it.
        await #expect(processExitsWith: .success) {
            let folder = TemporaryFolder()
            let server = NBDTestServer()
            let path = folder.file("nbd.sock")
            try server.listen(path, exports: [NBDExport(name: "disk", byteCount: 4096)])
            let clients = try (0..<20).map { _ in
                try NBDTestClient.connect(path, server: server)
            }
            // From here on six more can be opened.
            let ceiling = rlim_t((clients.map(\.socketFD).max() ?? 0) + 7)
            var limit = rlimit(rlim_cur: ceiling, rlim_max: ceiling)
            let isLimited = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
            precondition(isLimited)
            server.settle()
            let greeted = clients.filter { $0.receive(18).count == 18 }.count
            precondition(greeted > 0 && greeted < 20, "some are served, some are turned away")
            for client in clients { client.hangUp() }
            server.settle()
            let client = try NBDTestClient.connect(path, server: server)
            precondition(client.receive(18).count == 18, "there is room again")
        }
    }

    @Test("a client may vanish after any byte of its negotiation")
    func vanishAnywhere() throws {
        let server = NBDTestServer()
        let path = folder.file("nbd.sock")
        try server.listen(path, exports: [disk])
        let script =
            big(UInt32(3)) + NegotiationPeer.encode(8) + NegotiationPeer.encode(3)
            + NegotiationPeer.encode(7, named("disk") + [0, 0])
        for length in 0...script.count {
            let client = try NBDTestClient.connect(path, server: server)
            client.send(Array(script[..<length]))
            if length % 2 == 0 { server.settle() }
            client.hangUp()
            server.settle()
            #expect(server.negotiatingCount == 0)
            #expect(server.connections.isEmpty)
        }
    }

    @Test("a client that does not read its replies is not listened to either")
    func silentClient() throws {
        let server = NBDTestServer()
        let path = folder.file("nbd.sock")
        let exports = (0..<3000).map {
            NBDExport(name: "vdi-\($0)", byteCount: 512, description: pattern(40).description)
        }
        try server.listen(path, exports: exports)
        let client = try NBDTestClient.connect(path, server: server)
        client.send(big(UInt32(3)) + NegotiationPeer.encode(3) + NegotiationPeer.encode(3))
        server.settle()
        #expect(!server.turn(), "the loop must not spin")
        var names = 0
        for _ in 0..<2 {
            if names == 0 { _ = client.receive(18) }
            var type: UInt32 = 0
            while type != NBDOptionReply.acknowledged.rawValue {
                var header = ByteReader(Array(client.receive(20).dropFirst(12)))
                type = header.integer(UInt32.self) ?? NBDOptionReply.acknowledged.rawValue
                _ = client.receive(Int(header.integer(UInt32.self) ?? 0))
                if type == NBDOptionReply.server.rawValue { names += 1 }
            }
        }
        #expect(names == 6000)
    }

    @Test("exports can come and go while the socket serves")
    func changingExports() throws {
        var listener = try NBDListener(session: 0, path: folder.file("nbd.sock"))
        var registrar = PollRegistrar()
        listener.start(registrar: &registrar)
        let descriptor = parallax_unix_connect(folder.file("nbd.sock"), 1)
        let client = NBDTestClient(socketFD: descriptor)
        func turn() {
            for (token, interest) in registrar.wait(timeout: 100) {
                listener.handleEvent(
                    source: token.source, interest: interest, registrar: &registrar)
            }
        }
        turn()
        client.send(big(UInt32(3)))
        _ = client.receive(18)
        for (exports, type) in [([], NBDOptionReply.unknown), ([disk], .info), ([], .unknown)] {
            listener.setExports(NBDExportTable(exports))
            client.send(NegotiationPeer.encode(6, named("disk") + [0, 0]))
            turn()
            #expect(split(client.receive(4096)).first?.type == type)
        }
        listener.stop(registrar: &registrar)
        #expect(registrar.watched.isEmpty)
        #expect(client.receive(1).isEmpty)
    }
}
