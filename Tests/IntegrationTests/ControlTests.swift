// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import ParallaxControl
import ParallaxGuest
import Testing

/// `parallax-ctl` and the daemon together: verbs, shapes, exit codes.
@Suite struct ControlTests {
    /// JSON as anybody else would read it: not through the project's own types.
    private func json(_ text: String) throws -> [String: Any] {
        let value = try JSONSerialization.jsonObject(with: Data(text.utf8))
        return try #require(value as? [String: Any], "no JSON object: \(text)")
    }

    @Test("a VDI's life: create, list, show, rename, resize, delete")
    func life() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        #expect(try daemon.ctl("vdi", "create", "root disk", "--size", "20G") == "")
        try daemon.ctl("vdi", "create", "zwei \u{1F4BE}", "--size", "1M")
        let list = try daemon.ctl("vdi", "list").split(separator: "\n")
        #expect(list.count == 3)
        #expect(list[0].hasPrefix("NAME"))
        #expect(list[1].hasPrefix("root disk") && list[1].contains("20 GiB"))
        let before = try daemon.client.vdi("root disk")
        try daemon.ctl("vdi", "rename", "root disk", "boot")
        try daemon.ctl("vdi", "resize", "boot", "30G")
        let after = try daemon.client.vdi("boot")
        #expect(after.identifier == before.identifier && after.createdAt == before.createdAt)
        #expect(after.sizeBytes == 30 << 30)
        let shown = try daemon.ctl("vdi", "show", "boot")
        #expect(shown.contains("30 GiB (32212254720 bytes)"), "\(shown)")
        try daemon.ctl("vdi", "delete", "boot")
        #expect(try daemon.client.vdis().map(\.name) == ["zwei \u{1F4BE}"])
        #expect(try daemon.run("vdi", "show", "boot").code == 1)
    }

    @Test("--json has the documented fields, with sizes in bytes")
    func shapes() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let made = try json(daemon.ctl("vdi", "create", "a", "--size", "2M", "--json"))
        #expect(made["name"] as? String == "a")
        #expect(made["size_bytes"] as? Int == 2 << 20)
        #expect(made["allocated_bytes"] as? Int == 0)
        #expect((made["id"] as? String)?.count == 16)
        let socket = daemon.directory.file("a.vhost")
        let attached = try json(daemon.ctl("attach", "a", "--vhost-user", socket, "--json"))
        #expect(attached["kind"] as? String == "vhost-user")
        #expect(attached["socket"] as? String == socket)
        #expect(attached["serving"] as? Bool == true)
        try daemon.ctl("vdi", "create", "b", "--size", "2M")
        let nbd = try json(daemon.ctl("attach", "b", "--nbd", "--read-only", "--json"))
        #expect(nbd["uri"] as? String == "nbd+unix:///b?socket=\(daemon.nbdSocket)")
        #expect(nbd["read_only"] as? Bool == true)
        let list = try json(daemon.ctl("vdi", "list", "--json"))
        #expect((list["vdis"] as? [Any])?.count == 2)
        let shown = try json(daemon.ctl("vdi", "show", "b", "--json"))
        #expect((shown["attachment"] as? [String: Any])?["kind"] as? String == "nbd")
        let status = try json(daemon.ctl("store", "status", "--json"))
        let store = try #require(status["store"] as? [String: Any])
        #expect(store["path"] as? String == daemon.store)
        #expect(store["extent_bytes"] as? Int == 4 << 20)
        #expect(status["state"] as? String == "ready")
        #expect((status["shards"] as? [Any])?.count == 2)
        #expect(try daemon.ctl("store", "status").contains("vdis"))
    }

    @Test("the control socket speaks plain HTTP: curl is enough")
    func curl() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let options = ["curl", "-s", "--unix-socket", daemon.controlSocket]
        let made = try Command.succeed(
            options + [
                "-d", #"{"name":"c","size_bytes":1048576}"#, "-w", "%{http_code}",
                "http://localhost/v1/vdis",
            ])
        #expect(made.hasSuffix("201"), "\(made)")
        let ready = try Command.succeed(options + ["http://localhost/v1/ready"])
        #expect(ready == "{\"state\":\"ready\"}\n")
    }

    @Test("deleting a VDI gives its space back, also across a restart")
    func deletion() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let empty = try daemon.status().store.extentsUsed
        let socket = try daemon.createVhost("disk", size: "64M")
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            let piece = [UInt8](repeating: 3, count: 128 << 10)
            for number in 0..<256 { try disk.writeBlocking(sector: UInt64(number) * 256, piece) }
        }
        #expect(try daemon.client.vdi("disk").allocatedBytes == 32 << 20)
        #expect(try daemon.status().store.usedBytes >= 32 << 20)
        let refused = try daemon.run("vdi", "delete", "disk")
        #expect(refused.code == 1 && refused.errors.contains("detach it first"), "\(refused)")
        try daemon.ctl("detach", "disk")
        try daemon.ctl("vdi", "delete", "disk")
        try daemon.restart()
        try daemon.restart()
        let left = try daemon.status().store.extentsUsed
        #expect(left <= empty + 2, "\(left) extents are used, \(empty) were when it was empty")
    }

    @Test(
        "exit code 64 and one line for what makes no sense",
        arguments: [
            ["vdi", "create", "a"],
            ["vdi", "create", "a", "--size", "lots"],
            ["vdi", "create", "a", "--size", "10GB"],
            ["vdi", "create", "a", "--size", "-1"],
            ["vdi", "create", "a", "--size", "0"],
            ["vdi", "create", "a", "--size", "1023K"],
            ["vdi", "create", "a", "--size", "65T"],
            ["vdi", "create", "a", "--size", "99999999999999999999T"],
            ["vdi", "create", "a", "--size", "1048577"],
            ["vdi", "create", "", "--size", "1M"],
            ["vdi", "create", "a@b", "--size", "1M"],
            ["vdi", "create", "a/b", "--size", "1M"],
            ["vdi", "create", "a\nb", "--size", "1M"],
            ["vdi", "create", "a\u{7}", "--size", "1M"],
            ["vdi", "create", String(repeating: "x", count: 101), "--size", "1M"],
            ["vdi", "rename", "a", "b@c"],
            ["vdi", "resize", "a", "1.5G"],
            ["attach", "a"],
            ["attach", "a", "--nbd", "--vhost-user", "/tmp/x"],
            ["attach", "a", "--vhost-user", "/tmp/" + String(repeating: "y", count: 120)],
            ["frobnicate"],
            ["vdi", "list", "--colour"],
            ["store", "init", "/tmp/x", "--size", "ten"],
            ["store", "init", "/tmp/x", "--size", "1G", "--shards", "0"],
        ])
    func usage(arguments: [String]) throws {
        let outcome = try Command.run([Programs.control, "--socket", "/nonexistent"] + arguments)
        #expect(outcome.code == 64, "\(outcome)")
        #expect(outcome.output.isEmpty, "\(outcome)")
        #expect(outcome.errors.hasPrefix("parallax-ctl: "), "\(outcome)")
        #expect(outcome.errors.filter(\.isNewline).count == 1, "\(outcome)")
    }

    @Test("exit code 1 and one line that names the object for what cannot be done")
    func failures() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let live = try daemon.createVhost("live", size: "1M")
        try daemon.ctl("vdi", "create", "idle", "--size", "1M")
        let stranger = daemon.directory.file("file")
        try writeFile(stranger, [1])
        let cases: [([String], String)] = [
            (["vdi", "create", "idle", "--size", "1M"], "already a VDI called \"idle\""),
            (["vdi", "show", "nobody"], "no VDI called \"nobody\""),
            (["vdi", "delete", "nobody"], "no VDI called \"nobody\""),
            (["vdi", "rename", "live", "idle"], "already a VDI called \"idle\""),
            (["vdi", "delete", "live"], "detach it first"),
            (["attach", "live", "--nbd"], "already attached"),
            (["attach", "nobody", "--nbd"], "no VDI called \"nobody\""),
            (["detach", "idle"], "not attached"),
            (["attach", "idle", "--vhost-user", live], "in use by VDI \"live\""),
            (["attach", "idle", "--vhost-user", daemon.controlSocket], "the control socket"),
            (["attach", "idle", "--nbd", daemon.nbdSocket], "the shared NBD socket"),
            (["attach", "idle", "--vhost-user", stranger], "not a socket"),
            (["attach", "idle", "--vhost-user", "/nonexistent/s"], "no directory /nonexistent"),
        ]
        for (arguments, words) in cases {
            let outcome = try daemon.run(arguments)
            #expect(outcome.code == 1, "\(arguments): \(outcome)")
            #expect(outcome.output.isEmpty, "\(arguments): \(outcome)")
            #expect(outcome.errors.contains(words), "\(arguments): \(outcome)")
            #expect(outcome.errors.filter(\.isNewline).count == 1, "\(arguments): \(outcome)")
        }
        let nobody = try Command.run([Programs.control, "--socket", stranger, "vdi", "list"])
        #expect(nobody.code == 1 && nobody.errors.contains(stranger), "\(nobody)")
        #expect(try daemon.client.vdis().map(\.name) == ["idle", "live"])
    }

    @Test("a stale socket in the way of an attachment is replaced, a live one is not")
    func attachmentSocket() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.ctl("vdi", "create", "disk", "--size", "1M")
        let other = try DaemonHarness()
        try other.start()
        let socket = try other.createVhost("theirs", size: "1M")
        var theirs = try BlockDriver(connectingTo: socket, options: patientOptions())
        let refused = try daemon.run("attach", "disk", "--vhost-user", socket)
        #expect(refused.code == 1, "\(refused)")
        #expect(refused.errors.contains("another process listens on it"), "\(refused)")
        // It was only tried: the other daemon goes on serving it.
        try theirs.flush()
        try other.kill()
        #expect(exists(socket))
        // The kernel takes the dead daemon's ring apart, and with it its sockets, a moment later.
        var attached = try daemon.run("attach", "disk", "--vhost-user", socket)
        for _ in 0..<1000 where attached.code != 0 {
            attached = try daemon.run("attach", "disk", "--vhost-user", socket)
        }
        #expect(attached.code == 0 && attached.output == socket + "\n", "\(attached)")
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        try disk.flush()
        #expect(try disk.identifier() == "disk")
    }
}
