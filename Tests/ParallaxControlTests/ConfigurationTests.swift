// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import Logging
import ParallaxBlockd
import ParallaxControl
import ParallaxRetention
import Testing

@Suite struct ConfigurationTests {
    private func parse(_ text: String) throws -> PartialConfiguration {
        try ConfigurationFile.parse(Array(text.utf8), path: "test.toml")
    }

    private func configuration(_ text: String) throws -> DaemonConfiguration {
        try DaemonConfiguration(flags: PartialConfiguration(), file: parse(text))
    }

    @Test("each key of the file sets what its flag sets")
    func allKeys() throws {
        let configuration = try configuration(
            """
            # a comment
            store = "/dev/sdb"
            control = "/run/a/control.sock"
            nbd = "/run/a/export.sock"
            state-dir = "/var/lib/a"
            engine = "libaio"
            cache-size = "1G"
            log-level = "debug"
            """)
        #expect(configuration.storePath == "/dev/sdb")
        #expect(configuration.controlSocketPath == "/run/a/control.sock")
        #expect(configuration.nbdSocketPath == "/run/a/export.sock")
        #expect(configuration.stateDirectory == "/var/lib/a")
        #expect(configuration.engine == .libaio)
        #expect(configuration.cacheBytes == 1 << 30)
        #expect(configuration.logLevel == .debug)
    }

    @Test("only the store has no default")
    func defaults() throws {
        let configuration = try configuration("store = \"s\"")
        #expect(configuration.controlSocketPath == "/run/parallax/control.sock")
        #expect(configuration.nbdSocketPath == "/run/parallax/nbd.sock")
        #expect(configuration.stateDirectory == "/var/lib/parallax")
        #expect(configuration.engine == nil)
        #expect(configuration.cacheBytes == 256 << 20)
        let error = try #require(failure { _ = try self.configuration("") })
        #expect(error.message.contains("--store"))
    }

    @Test("a flag wins over the file, and the NBD socket follows the control socket")
    func flagsWin() throws {
        var flags = PartialConfiguration()
        flags.control = "/tmp/x/c.sock"
        flags.engine = "io_uring"
        let configuration = try DaemonConfiguration(
            flags: flags, file: parse("store = \"s\"\nengine = \"libaio\"\ncontrol = \"/c\""))
        #expect(configuration.controlSocketPath == "/tmp/x/c.sock")
        #expect(configuration.nbdSocketPath == "/tmp/x/nbd.sock")
        #expect(configuration.engine == .ioUring)
    }

    @Test(
        "what is wrong with a file is said in one sentence that names it",
        arguments: [
            ("stroe = \"x\"", "unknown key \"stroe\""), ("store = 1", "key store"),
            ("[store]\nx = 1", "key store"), ("store = ", "line 1"), ("= 1", "line 1"),
            ("store = \"a\"\nstore = \"b\"", "line 2"), ("a\u{0}b", "UTF-8"),
        ])
    func badFiles(text: String, part: String) throws {
        let error = try #require(failure { _ = try parse(text) })
        #expect(error.message.contains("test.toml"))
        #expect(error.message.contains(part), "\(error.message)")
    }

    @Test(
        "a setting that makes no sense is refused",
        arguments: [
            ("engine = \"mmap\"", "\"mmap\""), ("cache-size = \"lots\"", "\"lots\""),
            ("cache-size = \"1K\"", "too small"),
            ("cache-size = \"9000000T\"", "too large"), ("log-level = \"loud\"", "\"loud\""),
            ("control = \"/\(String(repeating: "x", count: 107))\"", "108 bytes"),
            ("nbd = \"/run/parallax/control.sock\"", "both"),
        ])
    func badValues(text: String, part: String) throws {
        let error = try #require(failure { _ = try configuration("store = \"s\"\n" + text) })
        #expect(error.message.contains(part), "\(error.message)")
    }

    @Test(
        "an empty path is refused, in the file and as a flag",
        arguments: ["store", "control", "nbd", "state-dir"])
    func emptyPaths(setting: String) throws {
        let base = setting == "store" ? "" : "store = \"s\"\n"
        let inFile = failure { _ = try self.configuration(base + "\(setting) = \"\"") }
        let words = (setting == "store" ? [] : ["--store", "s"]) + ["--\(setting)", ""]
        let command = try DaemonCommand.parse(words + ["--config", "/dev/null"])
        let asFlag = failure { _ = try command.resolvedConfiguration() }
        // The exit code of the daemon goes by the kind.
        #expect(inFile?.kind == .invalid && asFlag?.kind == .invalid)
        for error in [inFile, asFlag] {
            #expect(error?.message.contains(setting) == true, "\(error?.message ?? "")")
        }
    }

    @Test("a file that was named must exist; the default one need not")
    func missingFile() throws {
        let error = try #require(failure { _ = try ConfigurationFile.load(path: "/nonexistent") })
        #expect(error.message.contains("/nonexistent"))
    }

    @Test("a directory or random bytes in place of the file is an error, not a crash")
    func notAFile() throws {
        let directory = failure { _ = try ConfigurationFile.load(path: "/tmp") }
        #expect(directory != nil)
        let bytes = (0..<256).map { UInt8($0) }
        let noise = failure { _ = try ConfigurationFile.parse(bytes, path: "p") }
        #expect(noise != nil)
    }

    @Test("the example configuration is valid, and so is what it says of the defaults")
    func example() throws {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let path = "/\(root)/packaging/parallax.toml"
        let bytes = try SmallFile.read(path, limitBytes: 1 << 20)
        let example = try ConfigurationFile.parse(bytes, path: path)
        // Settings in comments are "# key = value"; prose has no equals sign after its first word.
        let text = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { line in
            let isSetting =
                line.split(separator: " ").dropFirst(2).first == "=" || line.hasPrefix("# [")
            return isSetting ? line.dropFirst(2) : line
        }.joined(separator: "\n")
        let spelledOut = try ConfigurationFile.parse(Array(text.utf8), path: path)
        #expect(spelledOut.cacheSize == "256M")
        var expected = try DaemonConfiguration(flags: example, file: PartialConfiguration())
        expected.engine = .ioUring
        // The one that is an example, and no default.
        expected.defaultPolicy = try RetentionPolicy.parse(
            options: [
                "--keep-last=10", "--hourly=24", "--daily=7", "--weekly=4", "--monthly=12",
            ])
        #expect(
            try DaemonConfiguration(flags: spelledOut, file: PartialConfiguration()) == expected)
    }

    @Test("the default retention policy is a key of its own section")
    func retentionDefault() throws {
        let text = "store = \"s\"\n[retention]\ndefault = \"--keep-last 10 --daily=7\""
        let policy = try configuration(text).defaultPolicy
        #expect(policy?.options == ["--keep-last", "10", "--keep-daily", "7"])
        #expect(try configuration("store = \"s\"").defaultPolicy == nil)
        for (text, words) in [
            ("[retention]\ndefault = \"--keep-lots 10\"", "default retention policy"),
            ("[retention]\ndefault = \"--keep-last 0\"", "no rule"),
            ("[retention]\nother = \"x\"", "retention.other"),
            ("[retention]\ndefault = 10", "text in quotes"),
            ("retention = \"x\"", "unknown key"), ("[nbd]\nx = \"y\"", "text in quotes"),
        ] {
            let error = failure { _ = try configuration("store = \"s\"\n" + text) }
            #expect(error?.kind == .invalid && error?.message.contains(words) == true, "\(text)")
        }
    }
}
