// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

@Suite("vhost-user sockets")
struct VhostSocketTests {
    private func failure(_ path: String) -> VhostError? {
        let export = VhostExport(name: "d", sectors: 8, readOnly: false, socketPath: path)
        do throws(VhostError) {
            _ = try VhostDevice(session: 0, vdi: 0, export: export)
            return nil
        } catch { return error }
    }

    @Test("the socket is for its owner alone, and goes with the device")
    func modeAndRemoval() throws {
        var fixture: VhostFixture? = try VhostFixture()
        let path = fixture?.path ?? ""
        var status = stat()
        #expect(lstat(path, &status) == 0)
        #expect(status.st_mode & S_IFMT == S_IFSOCK)
        #expect(status.st_mode & 0o777 == 0o600)
        fixture = nil
        #expect(lstat(path, &status) != 0)
    }

    @Test("a socket that nobody listens on any more is taken over")
    func stale() throws {
        let folder = VhostFixture.makeFolder()
        defer { VhostFixture.removeFolder(folder) }
        let path = folder + "/disk.sock"
        let dead = parallax_unix_listen(path, 1, 1)
        close(dead)
        #expect(failure(path) == nil)
    }

    @Test(
        "a path in use, no socket, empty, with NUL, too long or nowhere is refused in one sentence")
    func refusals() throws {
        let folder = VhostFixture.makeFolder()
        defer { VhostFixture.removeFolder(folder) }
        let path = folder + "/disk.sock"
        let live = parallax_unix_listen(path, 1, 1)
        #expect(failure(path) == .socketInUse(path))
        close(live)
        unlink(path)

        let file = open(path, O_CREAT | O_WRONLY, 0o600)
        close(file)
        #expect(failure(path) == .pathIsNoSocket(path))
        var status = stat()
        #expect(lstat(path, &status) == 0)

        #expect(failure("") == .socketPathInvalid)
        #expect(failure("a\0b") == .socketPathInvalid)
        let long = "/tmp/" + String(repeating: "x", count: 103)
        #expect(failure(long) == .socketPathTooLong(long, limit: 107))
        let nowhere = folder + "/no/such.sock"
        #expect(failure(nowhere) == .cannotListen(nowhere, errno: ENOENT))
        for error in [
            VhostError.socketInUse("p"), .pathIsNoSocket("p"), .socketPathInvalid,
            .socketPathTooLong("p", limit: 1), .cannotListen("p", errno: EACCES),
        ] {
            #expect(!error.description.isEmpty)
            #expect(!error.description.contains("\n"))
        }
    }

    @Test("a device leaves alone a path that somebody else has taken since")
    func replacedPath() throws {
        var fixture: VhostFixture? = try VhostFixture()
        let path = fixture?.path ?? ""
        let folder = fixture?.folder ?? ""
        unlink(path)
        let other = parallax_unix_listen(path, 1, 1)
        defer { close(other) }
        let hold = open(folder, O_RDONLY | O_DIRECTORY)
        defer { close(hold) }
        var before = stat()
        #expect(lstat(path, &before) == 0)
        let rig = try #require(fixture?.rig)
        rig.device.pointee.stop(registrar: &rig.registrar)
        var after = stat()
        #expect(lstat(path, &after) == 0)
        #expect(before.st_ino == after.st_ino)
        fixture = nil
    }

    @Test("a process without file descriptors turns a front end away in the same turn")
    func noDescriptors() async {
        // In a process of its own: the limit holds for all of it.
        await #expect(processExitsWith: .success) {
            let fixture = try VhostFixture()
            let second = PretendedFrontEnd.connect(fixture.path)
            // From here on none can be opened: the highest is the last, and what is free below is taken.
            var limit = rlimit(rlim_cur: rlim_t(second + 1), rlim_max: rlim_t(second + 1))
            let isLimited = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
            precondition(isLimited)
            while dup(second) >= 0 {}
            fixture.rig.turn()
            var byte: UInt8 = 0
            precondition(parallax_receive(second, &byte, 1) == 0, "left in the queue")
            let isTold = fixture.hasNotice {
                if case .outOfFileDescriptors = $0 { true } else { false }
            }
            precondition(isTold)
            precondition(fixture.frontEnd.ask(.getFeatures) != nil, "the first is served on")
        }
    }

    @Test("a second front end is turned away while the first is there, and served afterwards")
    func secondFrontEnd() throws {
        let fixture = try VhostFixture()
        fixture.frontEnd.negotiate()
        let second = PretendedFrontEnd.connect(fixture.path)
        defer { close(second) }
        fixture.rig.settle()
        var byte: UInt8 = 0
        #expect(parallax_receive(second, &byte, 1) == 0)
        #expect(fixture.frontEnd.ask(.getFeatures) != nil)

        fixture.frontEnd.hangUp()
        fixture.rig.settle()
        #expect(!fixture.rig.isConnected)
        let third = PretendedFrontEnd(fixture.rig, path: fixture.path)
        #expect(third.ask(.getFeatures) != nil)
        #expect(fixture.rig.counters.connections == 2)
    }

    /// The message waits for a request, so that nothing is read from the socket that has been closed.
    @Test("a front end that dies while a message of it waits does not keep its successor out")
    func successor() throws {
        let fixture = try VhostFixture()
        let queue = fixture.start()
        fixture.rig.isHolding = true
        _ = queue.add(VhostRequestTests.read, read: 512)
        queue.run()
        #expect(queue.stop() == nil)
        fixture.frontEnd.send(.getQueueCount)
        fixture.rig.settle()
        fixture.frontEnd.hangUp()
        fixture.rig.settle()
        let second = PretendedFrontEnd(fixture.rig, path: fixture.path)
        fixture.rig.settle()
        fixture.rig.isHolding = false
        fixture.rig.release()
        #expect(second.ask(.getFeatures) != nil)
        #expect(fixture.rig.counters.connections == 2)
        let hasRefused = fixture.hasNotice {
            if case .refusedSecondFrontEnd = $0 { true } else { false }
        }
        #expect(!hasRefused)
    }
}
