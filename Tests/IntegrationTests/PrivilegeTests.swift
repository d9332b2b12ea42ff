// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import Glibc
import ParallaxGuest
import Testing

/// The daemon needs no privilege, and opens nothing to the network.
@Suite struct PrivilegeTests {
    @Test("it serves every front end without a single capability", arguments: bothEngines)
    func withoutCapabilities(engine: String) throws {
        var options = DaemonHarness.Options()
        options.engine = engine
        // Root's user id without root's powers; another account has none anyway.
        if geteuid() == 0 {
            options.wrapper = [
                "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--securebits=+noroot",
                "--no-new-privs",
            ]
        }
        let daemon = try DaemonHarness(options)
        try daemon.start()
        let process = try #require(daemon.process)
        let status = try text("/proc/\(process.processID)/status")
        #expect(status.contains("CapEff:\t0000000000000000"))
        let socket = try daemon.createVhost("disk", size: "4M")
        do {
            var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
            try disk.writeBlocking(sector: 3, [UInt8](repeating: 7, count: 4096))
            try disk.flush()
            let read = try disk.readBlocking(sector: 3, byteCount: 4096)
            #expect(read == [UInt8](repeating: 7, count: 4096))
            try disk.stop()
        }
        let uri = try daemon.createNBD("other", size: "4M")
        #expect(try Command.succeed(["nbdinfo", "--size", uri]) == "4194304\n")
        try daemon.ctl("snapshot", "disk")
        #expect(try networkSockets(of: process.processID) == 0)
        try daemon.restart()
        var disk = try BlockDriver(connectingTo: socket, options: patientOptions())
        let read = try disk.readBlocking(sector: 3, byteCount: 512)
        #expect(read == [UInt8](repeating: 7, count: 512))
    }

    @Test(
        "the units leave next to nothing to attack",
        .enabled("there is no systemd-analyze") {
            access("/usr/bin/systemd-analyze", X_OK) == 0
        }, arguments: ["parallax-blockd", "parallax-snapshot"])
    func units(name: String) throws {
        // In tenths of systemd's scale of exposure; a plain service of root has 96.
        let limit = 15
        try Command.succeed([
            "systemd-analyze", "security", "--no-pager", "--offline=true",
            "--threshold=\(limit)", "\(Programs.sourceDirectory)/packaging/\(name).service",
        ])
    }

    private func text(_ path: String) throws -> String {
        String(decoding: try readFile(path), as: UTF8.self)
    }

    /// How many of the process's sockets are of an Internet family; those that it was started with,
    /// for whoever runs the tests may leave some open, are not its own.
    private func networkSockets(of process: Int32) throws -> Int {
        var inodes: Set<Substring> = []
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let lines = (try? text("/proc/\(process)/net/\(table)")) ?? ""
            for line in lines.split(separator: "\n").dropFirst() {
                let fields = line.split(separator: " ")
                if fields.count > 9 { inodes.insert(fields[9]) }
            }
        }
        return try sockets(of: "\(process)").subtracting(sockets(of: "self"))
            .intersection(inodes).count
    }

    private func sockets(of process: String) throws -> Set<Substring> {
        let folder = "/proc/\(process)/fd"
        var inodes: Set<Substring> = []
        for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
            let target = try? FileManager.default.destinationOfSymbolicLink(
                atPath: "\(folder)/\(name)")
            guard let target, target.hasPrefix("socket:[") else { continue }
            inodes.insert(target.dropFirst(8).dropLast())
        }
        return inodes
    }
}
