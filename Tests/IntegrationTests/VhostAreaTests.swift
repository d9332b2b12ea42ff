// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxGuest
import Testing

/// What the daemon says to a guest that goes on, when this or that is attached at its path.
@Suite struct VhostAreaTests {
    /// The area of a front end, which keeps it from connection to connection.
    private final class Guest {
        private let path: String
        private var description: [UInt8] = []
        private var file: Int32 = -1

        init(_ path: String) { self.path = path }

        deinit { close(file) }

        /// Connects, asks for an area the first time, and brings it. False: it was refused.
        func goesOn() throws -> Bool {
            var connection = try VhostUserConnection(
                path: path, timeoutMilliseconds: ChildProcess.patienceSeconds * 1000)
            // REPLY_ACK, CONFIG, INFLIGHT_SHMFD.
            try connection.commandNumber(.setProtocolFeatures, 1 << 3 | 1 << 9 | 1 << 12)
            connection.wantsAcknowledgements = true
            try connection.command(.setOwner)
            if file < 0 {
                var asked: [UInt8] = []
                asked.append(number: UInt64(0))
                asked.append(number: UInt64(0))
                asked.append(number: UInt16(1))
                asked.append(number: UInt16(128))
                let reply = try connection.ask(.getInflightFD, payload: asked)
                description = reply.payload
                file = try #require(reply.fileDescriptors.first)
            }
            do throws(GuestError) {
                try connection.command(
                    .setInflightFD, payload: description, fileDescriptors: [file])
                return true
            } catch {
                guard error.kind == .refused else { throw error }
                return false
            }
        }
    }

    @Test("it goes on with its own disk, however that is called, and with no other")
    func disks() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let path = try daemon.createVhost("a", size: "4M")
        try daemon.ctl("vdi", "create", "b", "--size", "4M")
        try daemon.ctl("snapshot", "a", "--name", "s")
        try daemon.ctl("clone", "a@s", "c")
        let guest = Guest(path)
        var isTaken = try guest.goesOn()
        #expect(isTaken)

        try daemon.kill()
        try daemon.start()
        isTaken = try guest.goesOn()
        #expect(isTaken, "after a death of the daemon")

        try daemon.ctl("vdi", "rename", "a", "z")
        try daemon.ctl("detach", "z")
        for other in ["b", "z@s", "c"] {
            try daemon.ctl("attach", other, "--vhost-user", path)
            isTaken = try guest.goesOn()
            #expect(!isTaken, "\(other)")
            try daemon.ctl("detach", other)
        }
        let identifier = try daemon.client.vdi("z").identifier
        let uuid = try daemon.status().store.uuid
        #expect(daemon.log.contains("disk \(identifier) of store \(uuid)"))

        try daemon.ctl("snapshot", "rollback", "z@s")
        try daemon.ctl("attach", "z", "--vhost-user", path)
        isTaken = try guest.goesOn()
        #expect(isTaken, "under a new name, after a rollback")
        try daemon.ctl("detach", "z")
        try daemon.ctl("attach", "z", "--vhost-user", path, "--read-only")
        isTaken = try guest.goesOn()
        #expect(isTaken, "read-only")
    }
}
