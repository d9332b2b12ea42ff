// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import Testing

/// The built daemon and command line, end to end.
@Suite struct ControlIntegrationTests {
    @Test("the verbs of a VDI's life work, and each failure is one line and an exit code")
    func verbs() throws {
        let harness = try DaemonHarness()
        #expect(try harness.ctl("vdi", "create", "a", "--size", "64T").isEmpty)
        #expect(try harness.ctl("vdi", "resize", "a", "64T").isEmpty)
        #expect(try harness.ctl("vdi", "rename", "a", "b").isEmpty)
        let list = try harness.ctl("vdi", "list").split(separator: "\n")
        #expect(list.count == 2)
        #expect(list.last?.hasPrefix("b     64 TiB") == true)
        #expect(try harness.ctl("vdi", "show", "b", "--json").contains("70368744177664"))
        #expect(try harness.ctl("store", "status").contains("state    ready"))
        for (arguments, status, part) in [
            (["vdi", "create", "b", "--size", "1G"], 1, "already a VDI called \"b\""),
            (["vdi", "create", "x", "--size", "huge"], 64, "not a size"),
            (["vdi", "create", "a@b", "--size", "1G"], 64, "'@'"),
            (["vdi", "show", "none"], 1, "no VDI called \"none\""),
            (["vdi", "resize", "b", "1G"], 1, "--shrink"),
            (["detach", "b"], 1, "not attached"),
            (["attach", "b"], 64, "--vhost-user"),
            (["frobnicate"], 64, "frobnicate"),
        ] as [([String], Int32, String)] {
            let result = try harness.run(arguments)
            #expect(result.status == status, "\(arguments)")
            #expect(result.output.isEmpty)
            #expect(result.error.contains(part), "\(result.error)")
            #expect(result.error.split(separator: "\n").count == 1)
        }
        try harness.ctl("vdi", "delete", "b")
        #expect(try harness.client.vdis().isEmpty)
    }

    @Test("VDIs and attachments survive kill -9, and the daemon is ready only with them")
    func kill() throws {
        let harness = try DaemonHarness()
        try harness.ctl("vdi", "create", "v", "--size", "1G")
        try harness.ctl("vdi", "create", "n", "--size", "1G")
        let socket = harness.file("v.sock")
        #expect(try harness.ctl("attach", "v", "--vhost-user", socket) == socket)
        let uri = try harness.ctl("attach", "n", "--nbd", "--read-only")
        #expect(uri == "nbd+unix:///n?socket=\(harness.nbdSocketPath)")
        try harness.restart()
        try harness.client.ready()
        let attachments = try harness.client.vdis().map(\.attachment)
        #expect(attachments.map { $0?.location } == [uri, socket])
        #expect(attachments.first??.readOnly == true)
        try harness.ctl("detach", "v")
        try harness.ctl("detach", "n")
        try harness.restart()
        #expect(try harness.client.status().attachmentCount == 0)
    }

    @Test("SIGTERM ends the daemon cleanly and takes its sockets away")
    func terminate() throws {
        let harness = try DaemonHarness()
        try harness.ctl("vdi", "create", "v", "--size", "1G")
        try harness.ctl("attach", "v", "--vhost-user", harness.file("v.sock"))
        #expect(harness.terminate() == 0)
        for name in ["control.sock", "nbd.sock", "v.sock"] {
            #expect(access(harness.file(name), F_OK) != 0, "\(name)")
        }
        let result = try harness.run(["vdi", "list"])
        #expect(result.status == 1)
        #expect(result.error.contains("is parallax-blockd running"))
        try harness.start()
        #expect(try harness.client.vdi("v").attachment?.serving == true)
    }

    @Test("a second daemon on the store is refused with the pid of the first")
    func secondDaemon() throws {
        let harness = try DaemonHarness()
        let result = try harness.startExpectingFailure(["--control", harness.file("other.sock")])
        #expect(result.status == 1)
        #expect(result.error.contains("process \(harness.processIdentifier)"))
        try harness.client.ready()
    }

    @Test("a path that is no store, or a store cut short, is refused in one sentence")
    func badStores() throws {
        let harness = try DaemonHarness(storeSize: "1G", starts: false)
        #expect(truncate(harness.storePath, 900 << 20) == 0)
        let short = try harness.startExpectingFailure()
        #expect(short.status == 1)
        #expect(short.error.contains("cut off"))
        #expect(truncate(harness.storePath, 0) == 0)
        #expect(truncate(harness.storePath, 1 << 30) == 0)
        let blank = try harness.startExpectingFailure()
        #expect(blank.error.contains("no Parallax store"))
        unlink(harness.storePath)
        let missing = try harness.startExpectingFailure()
        #expect(missing.error.contains("does not exist"))
        #expect(missing.error.split(separator: "\n").count == 1)
    }

    @Test("the control socket is private, and curl speaks to it")
    func curl() throws {
        let harness = try DaemonHarness()
        var information = stat()
        #expect(stat(harness.controlSocketPath, &information) == 0)
        #expect(information.st_mode & 0o777 == 0o600)
        let options = ["-s", "--unix-socket", harness.controlSocketPath]
        let made = try harness.run(
            "/usr/bin/curl",
            options + [
                "-d", #"{"name":"c","size_bytes":1048576}"#, "-w", "%{http_code}",
                "http://localhost/v1/vdis",
            ])
        #expect(made.output.hasSuffix("201"))
        let ready = try harness.run("/usr/bin/curl", options + ["http://localhost/v1/ready"])
        #expect(ready.output == "{\"state\":\"ready\"}\n")
    }
}
