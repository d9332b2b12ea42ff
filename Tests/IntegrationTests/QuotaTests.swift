// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import Testing

/// What a guest and its administrator see of a quota.
@Suite struct QuotaTests {
    @Test("at its quota a disk refuses new blocks only, until something of it is given back")
    func quota() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.ctl("vdi", "create", "disk", "--size", "64M", "--quota", "4M")
        let uri = try daemon.ctl("attach", "disk", "--nbd")
        try daemon.ctl("vdi", "create", "other", "--size", "64M")
        let otherURI = try daemon.ctl("attach", "other", "--nbd")

        try io(uri, "write -P 1 0 4M")
        try expectNoSpace(uri, "write -P 9 8M 4k")
        try expectCharged(daemon, 4 << 20)
        try io(uri, "write -P 2 0 4M", "read -P 2 0 4M")
        try io(otherURI, "write -P 7 0 8M")

        // A policy set meanwhile leaves the quota as it is, also after a crash.
        try daemon.ctl("retention", "set", "disk", "--keep-last", "3")
        try daemon.kill()
        try daemon.start()
        #expect(try daemon.client.vdi("disk").quotaBytes == 4 << 20)
        try expectNoSpace(uri, "write -P 9 8M 4k")
        try expectCharged(daemon, 4 << 20)

        try io(uri, "discard 0 1M", "write -P 3 8M 1M", "read -P 3 8M 1M")
        try expectNoSpace(uri, "write -P 9 16M 4k")

        // What a snapshot holds is not replaced but added to.
        try daemon.ctl("snapshot", "disk", "--name", "s")
        #expect(try daemon.client.snapshot("disk", "s").bornBytes == 4 << 20)
        try expectNoSpace(uri, "write -P 4 2M 4k")
        try io(uri, "read -P 2 1M 3M", "read -P 3 8M 1M")
        try daemon.ctl("clone", "disk@s", "copy", "--quota", "1M")
        #expect(try daemon.client.vdi("copy").chargedBytes == 0)
        try daemon.ctl("vdi", "delete", "copy")
        try daemon.ctl("snapshot", "delete", "disk@s")
        // Its blocks become the head's in the background.
        try waitUntilItWorks(uri, "write -P 4 2M 64k")
        try io(uri, "read -P 4 2M 64k", "read -P 2 1M 1M")
        try expectCharged(daemon, 4 << 20)
        let spaces = try daemon.client.status().shards.map(\.space)
        let refused = spaces.map(\.refusedRequests).reduce(0, +)
        let byQuota = spaces.map(\.quotaRefusedRequests).reduce(0, +)
        #expect(refused > 0 && byQuota == refused, "the store was never full: \(spaces)")
        #expect(try daemon.terminate() == 0)
    }

    @Test("a quota is moved while the disk is written, below what is charged and away")
    func change() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let uri = try daemon.createNBD("disk", size: "64M")
        try io(uri, "write -P 1 0 4M")
        try daemon.ctl("vdi", "quota", "disk", "1M")
        try expectNoSpace(uri, "write -P 9 8M 4k")
        try io(uri, "write -P 2 0 4M", "read -P 2 0 4M")
        try expectCharged(daemon, 4 << 20)
        let shown = try daemon.ctl("vdi", "show", "disk")
        #expect(shown.contains("charged    4 MiB (4194304 bytes)\n"), "\(shown)")
        #expect(shown.contains("quota      1 MiB (1048576 bytes)\n"), "\(shown)")
        let listed = try daemon.ctl("vdi", "list", "--json")
        let vdis = try ControlJSON.decode(VDIList.self, from: Array(listed.utf8)).vdis
        #expect(vdis.map(\.chargedBytes) == [4 << 20])
        #expect(vdis.map(\.quotaBytes) == [1 << 20])

        try daemon.ctl("vdi", "quota", "disk", "5M")
        try io(uri, "write -P 3 8M 1M")
        try expectNoSpace(uri, "write -P 9 16M 4k")
        try daemon.ctl("vdi", "quota", "disk", "none")
        try io(uri, "write -P 4 16M 4M", "read -P 3 8M 1M", "read -P 4 16M 4M")
        let wrong = try daemon.run("vdi", "quota", "disk", "5000")
        #expect(wrong.code == 64)
        #expect(wrong.errors.contains("the next that fits is 8192"), "\(wrong)")
    }

    private func io(_ uri: String, _ commands: String...) throws {
        try Command.succeed(words(uri, commands))
    }

    private func words(_ uri: String, _ commands: [String]) -> [String] {
        ["qemu-io", "-f", "raw", "-d", "unmap"] + commands.flatMap { ["-c", $0] } + [uri]
    }

    private func expectNoSpace(_ uri: String, _ command: String) throws {
        let refused = try Command.run(words(uri, [command]))
        #expect("\(refused)".contains("No space left on device"), "\(command): \(refused)")
    }

    private func expectCharged(_ daemon: DaemonHarness, _ bytes: UInt64) throws {
        let charged = try daemon.client.vdi("disk").chargedBytes
        #expect(charged == bytes)
    }

    private func waitUntilItWorks(_ uri: String, _ command: String) throws {
        let start = ContinuousClock.now
        while ContinuousClock.now - start < .seconds(ChildProcess.patienceSeconds) {
            if try Command.run(words(uri, [command])).succeeded { return }
            usleep(20_000)
        }
        throw TestFailure("\(command): no space came back")
    }
}
