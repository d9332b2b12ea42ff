// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import Glibc
import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

@testable import parallax_ctl

/// What the command line does without a daemon.
@Suite struct CommandTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    @Test("the lock of a cron line can be taken by any account, whoever made it")
    func lockMode() throws {
        let socket = directory.file("c.sock")
        func take() throws -> Bool {
            guard let lock = try RunLock.take(beside: socket, key: ["--all"]) else { return false }
            _ = consume lock
            return true
        }
        #expect(try take())
        let lock = try #require(
            try lines(of: directory.path).first { $0.hasSuffix(".lock") })
        #expect(permissions(directory.file(lock)) == 0o644)
        // As an account sees it that may only read.
        #expect(chmod(directory.file(lock), 0o444) == 0)
        #expect(try take())
    }

    private func lines(of path: String) throws -> [String] {
        var names: [String] = []
        let opened = opendir(path)
        let stream = try #require(opened)
        defer { closedir(stream) }
        while let entry = readdir(stream) {
            names.append(
                withUnsafePointer(to: entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                })
        }
        return names
    }

    private func plan(
        _ path: String, size: UInt64?, extent: UInt64? = nil, shards: Int? = nil,
        preallocates: Bool = false
    ) -> FormatPlan {
        FormatPlan(
            path: path, sizeBytes: size, extentBytes: extent, shards: shards, mayOverwrite: true,
            preallocates: preallocates)
    }

    @Test(
        "a store that cannot be made leaves what is there as it was, whatever the numbers",
        arguments: [
            (64 << 20, 64 << 40), (64 << 20, 0), (64 << 20, 3 << 20), (4096, nil), (0, nil),
            (64 << 20, .max), (.max & ~4095, nil), (.max & ~4095, 1), (.max & ~4095, 1 << 63),
            (5000, 4 << 20), (nil, 64 << 40), (nil, nil),
        ] as [(UInt64?, UInt64?)], [false, true])
    func refusedStore(numbers: (size: UInt64?, extent: UInt64?), preallocates: Bool) throws {
        try directory.write("somebody's store", to: "store")
        let path = directory.file("store")
        for shards in [nil, 1, 64] {
            let plan = plan(
                path, size: numbers.size, extent: numbers.extent, shards: shards,
                preallocates: preallocates)
            let error = failure { _ = try plan.run() }
            #expect(error != nil)
            var status = stat()
            #expect(stat(path, &status) == 0 && status.st_size == 16)
        }
    }

    @Test("no file is left where none was")
    func noNewFile() throws {
        let path = directory.file("store")
        let error = failure { _ = try plan(path, size: 64 << 20, extent: 64 << 40).run() }
        #expect(error?.kind == .invalid && error?.message.contains("power of two") == true)
        #expect(!exists(path))
        let made = try plan(path, size: 256 << 20, extent: 4 << 20, preallocates: true).run()
        #expect(made.extentCount == 63)
    }

    @Test("a loss can be found by its bytes")
    func losses() throws {
        var outcome = CheckOutcome(path: "s", report: CheckReport(), verifiesData: true)
        outcome.lost = [
            CheckOutcome.Loss(
                vdi: "web", snapshot: "mon", offsetBytes: 5_368_713_216, lengthBytes: 12_288,
                reason: "data")
        ]
        let lines = outcome.text.split(separator: "\n")
        #expect(
            lines.contains {
                $0.split(separator: " ").prefix(5) == [
                    "web@mon", "5368713216", "12288", "12", "KiB",
                ]
            },
            "\(outcome.text)")
        #expect(!outcome.text.contains(" more "))
        outcome.lostLeftOut = 7
        #expect(outcome.text.contains("\nand 7 more runs of blocks\n"))
    }

    @Test("the question of a repair is asked where it is seen, whatever becomes of the output")
    func question() throws {
        let store = directory.file("store")
        _ = try plan(store, size: 256 << 20, extent: 4 << 20, shards: 1).run()
        let file = open(store, O_RDWR | O_CLOEXEC)
        // A byte of one of the two superblocks.
        #expect(pwrite(file, [0xFF] as [UInt8], 1, 17) == 1)
        close(file)
        let output = directory.file("output")
        let command = "'\(program)' store check '\(store)' --repair >'\(output)'"
        // A terminal for the other two streams.
        let asked = try lines(saidBy: "echo n | script -qec \"\(command)\" /dev/null 2>&1")
        #expect(asked.contains { $0.contains("[y/N]") }, "\(asked)")
        let result = try lines(saidBy: "cat '\(output)'")
        #expect(!result.isEmpty && !result.contains { $0.contains("[y/N]") }, "\(result)")
        // And where it would not be seen it is not asked.
        let unseen = "'\(program)' store check '\(store)' --repair 2>'\(output)'"
        _ = try lines(saidBy: "echo n | script -qec \"\(unseen)\" /dev/null 2>&1")
        #expect(try lines(saidBy: "cat '\(output)'").contains { $0.contains("--yes") })
    }

    /// The one of the same build.
    private var program: String {
        let path = realpath("/proc/self/exe", nil)
        defer { free(path) }
        let parts = path.map { String(cString: $0) }?.split(separator: "/").dropLast() ?? []
        return "/" + parts.joined(separator: "/") + "/parallax-ctl"
    }

    private func lines(saidBy command: String) throws -> [String] {
        let opened = popen(command, "r")
        let stream = try #require(opened)
        defer { pclose(stream) }
        var lines: [String] = []
        var buffer = [CChar](repeating: 0, count: 4096)
        while fgets(&buffer, Int32(buffer.count), stream) != nil {
            lines.append(
                String(
                    decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            )
        }
        return lines
    }

    @Test("a relative name is not taken for a deletion that needs several requests")
    func manyDeletions() throws {
        let many = (0..<792).map { "d@\(String(repeating: "x", count: 28))\($0)" }
        for relative in ["d@latest", "d@-2h"] {
            _ = try SnapshotDelete.parse([relative, "d@a"])
            for words in [many + [relative], [relative] + many] {
                do {
                    _ = try RootCommand.parseAsRoot(["snapshot", "delete"] + words)
                    Issue.record("\(relative) was taken")
                } catch {
                    #expect(RootCommand.exitCode(for: error).rawValue == 64)
                    let message = RootCommand.message(for: error)
                    #expect(message.contains("\"\(relative)\""), "\(message)")
                }
            }
        }
        _ = try SnapshotDelete.parse(many + ["d@2026-11-22T10:00", "d@-2", "d@latest2"])
    }

    @Test("a daemon that gives no answer in time is said to be at it")
    func timeOut() throws {
        let path = directory.file("c.sock")
        let listener = try ListeningSocket(path: path, purpose: "the control socket")
        let client = try ControlClient(socketPath: path, timeoutSeconds: 1)
        let error = failure { _ = try client.status() }
        #expect(
            error?.message.hasSuffix(
                "did not answer within 1 s; it may still be at it, so look before you try again")
                == true)
        withExtendedLifetime(listener.fileDescriptor) {}
    }
}
