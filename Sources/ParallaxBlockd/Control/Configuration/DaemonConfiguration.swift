// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import Logging
package import ParallaxControl
package import ParallaxRetention

/// Everything the daemon is told at start: flags over configuration file over defaults.
package struct DaemonConfiguration: Equatable, Sendable {
    package enum Engine: String, CaseIterable, Sendable {
        case ioUring = "io_uring"
        case libaio
    }

    package var storePath: String
    package var controlSocketPath: String
    /// The one socket that NBD exports without a path of their own are served on.
    package var nbdSocketPath: String
    package var stateDirectory: String
    /// Nil: io_uring, and libaio where the kernel forbids it.
    package var engine: Engine?
    package var cacheBytes: UInt64
    package var logLevel: Logger.Level
    /// How long space of a store in a file stays free before the file system gets it back; nil: for
    /// ever.
    package var punchAfterSeconds: UInt64?
    /// What new VDIs begin with.
    package var defaultPolicy: RetentionPolicy?

    package static let defaultFilePath = "/etc/parallax/parallax.toml"
    package static let defaultStateDirectory = "/var/lib/parallax"
    package static let defaultCacheBytes: UInt64 = 256 << 20
    package static let minimumCacheBytes: UInt64 = 4 << 20
    /// LIMIT: more than any host has, and far below where an `Int` ends.
    package static let maximumCacheBytes: UInt64 = 64 << 40
    /// Twice the time from one checkpoint to the next: what the log soon needs again stays.
    package static let defaultPunchAfterSeconds: UInt64 = 60

    /// Applies `flags` over `file` over the defaults, and checks the result.
    package init(flags: PartialConfiguration, file: PartialConfiguration) throws(ControlError) {
        guard let store = flags.store ?? file.store, !store.isEmpty else {
            throw ControlError(
                .invalid,
                "no store given; use --store PATH, or set store in \(Self.defaultFilePath)")
        }
        storePath = store
        controlSocketPath = flags.control ?? file.control ?? ControlClient.defaultSocketPath
        nbdSocketPath =
            flags.nbd ?? file.nbd ?? Self.directory(of: controlSocketPath) + "nbd.sock"
        stateDirectory = flags.stateDirectory ?? file.stateDirectory ?? Self.defaultStateDirectory
        // Empty, one would stand for the root or for the current directory.
        for (setting, path) in [
            ("control", controlSocketPath), ("nbd", nbdSocketPath), ("state-dir", stateDirectory),
        ] where path.isEmpty {
            throw ControlError(
                .invalid, "the path in \(setting) is empty; give it one, or leave it out")
        }
        engine = try Self.parseEngine(flags.engine ?? file.engine)
        cacheBytes = try Self.parseCacheSize(flags.cacheSize ?? file.cacheSize)
        logLevel = try Self.parseLogLevel(flags.logLevel ?? file.logLevel)
        punchAfterSeconds = try Self.parsePunchAfter(flags.punchAfter ?? file.punchAfter)
        defaultPolicy = try Self.parsePolicy(flags.retentionDefault ?? file.retentionDefault)
        // Clients elsewhere read the NBD socket's path in a URI, and messages name the store.
        storePath = try absolutePath(storePath)
        nbdSocketPath = try absolutePath(nbdSocketPath)
        stateDirectory = try absolutePath(stateDirectory)
        _ = try UnixAddress(path: controlSocketPath)
        _ = try UnixAddress(path: nbdSocketPath)
        guard try absolutePath(controlSocketPath) != nbdSocketPath else {
            throw ControlError(
                .invalid, "the control socket and the NBD socket cannot both be \(nbdSocketPath)")
        }
    }

    /// Up to and with the last slash; empty for a bare file name.
    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "" }
        return String(path[...slash])
    }

    private static func parseEngine(_ text: String?) throws(ControlError) -> Engine? {
        guard let text else { return nil }
        guard let engine = Engine(rawValue: text) else {
            throw ControlError(
                .invalid, "\(quoted(text)) is no I/O engine; it must be io_uring or libaio")
        }
        return engine
    }

    private static func parseCacheSize(_ text: String?) throws(ControlError) -> UInt64 {
        guard let text else { return defaultCacheBytes }
        let bytes = try ByteSize.parse(text)
        guard bytes >= minimumCacheBytes else {
            throw ControlError(
                .invalid,
                "a cache of \(quoted(text)) is too small; the smallest is "
                    + ByteSize.format(minimumCacheBytes))
        }
        guard bytes <= maximumCacheBytes else {
            throw ControlError(
                .invalid,
                "a cache of \(quoted(text)) is too large; the largest is "
                    + ByteSize.format(maximumCacheBytes))
        }
        return bytes
    }

    private static func parsePunchAfter(_ text: String?) throws(ControlError) -> UInt64? {
        guard let text else { return defaultPunchAfterSeconds }
        if text == "never" { return nil }
        guard let seconds = UInt64(text), seconds <= 1 << 31 else {
            throw ControlError(
                .invalid, "punch-after is a number of seconds or never, not \(quoted(text))")
        }
        return seconds
    }

    private static func parsePolicy(_ text: String?) throws(ControlError) -> RetentionPolicy? {
        guard let text else { return nil }
        do throws(RetentionError) {
            let policy = try RetentionPolicy.parse(line: text)
            if !policy.isEmpty { return policy }
        } catch {
            throw ControlError(
                .invalid, "the default retention policy cannot be used: \(error.message)")
        }
        throw ControlError(
            .invalid,
            "the default retention policy has no rule that keeps anything; give it one, such as "
                + "--keep-last 10, or leave it out")
    }

    private static func parseLogLevel(_ text: String?) throws(ControlError) -> Logger.Level {
        guard let text else { return .info }
        guard let level = Logger.Level(rawValue: text) else {
            let known = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            throw ControlError(
                .invalid, "\(quoted(text)) is no log level; it must be one of \(known)")
        }
        return level
    }
}

/// Settings as one source gives them, not yet checked; nil where it says nothing.
package struct PartialConfiguration: Equatable, Sendable {
    package var store: String?
    package var control: String?
    package var nbd: String?
    package var stateDirectory: String?
    package var engine: String?
    package var cacheSize: String?
    package var logLevel: String?
    package var punchAfter: String?
    package var retentionDefault: String?

    package init() {}
}
