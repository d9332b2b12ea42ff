// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ArgumentParser
import Glibc
import Logging
package import ParallaxControl

/// The command line of `parallax-blockd`.
package struct DaemonCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "parallax-blockd",
        abstract: "Serves the virtual disks of one Parallax store.",
        discussion: """
            Every option but --config can also be set in the configuration file, under its name \
            without the dashes; an option on the command line wins.
            """,
        version: parallaxVersion)

    @Option(help: ArgumentHelp("The store: a file or a block device.", valueName: "path"))
    package var store: String?

    @Option(
        help: ArgumentHelp(
            "The control socket (default: \(ControlClient.defaultSocketPath)).",
            valueName: "socket"))
    package var control: String?

    @Option(
        help: ArgumentHelp(
            "The shared NBD socket (default: nbd.sock beside the control socket).",
            valueName: "socket"))
    package var nbd: String?

    @Option(
        help: ArgumentHelp(
            "Where attachments are remembered (default: "
                + "\(DaemonConfiguration.defaultStateDirectory)).",
            valueName: "directory"))
    package var stateDir: String?

    @Option(
        help: ArgumentHelp(
            "The configuration file (default: \(DaemonConfiguration.defaultFilePath), "
                + "if there is one).", valueName: "file"))
    package var config: String?

    @Option(
        help: ArgumentHelp(
            "io_uring or libaio (default: io_uring where the kernel allows it).",
            valueName: "engine"))
    package var engine: String?

    @Option(help: ArgumentHelp("Memory for caches, all shards together (default: 256M)."))
    package var cacheSize: String?

    @Option(
        help: ArgumentHelp(
            "trace, debug, info, notice, warning, error or critical (default: info).",
            valueName: "level"))
    package var logLevel: String?

    @Option(
        help: ArgumentHelp(
            "When space that stays free goes back from a store's file to its file system "
                + "(default: \(DaemonConfiguration.defaultPunchAfterSeconds)).",
            valueName: "seconds|never"))
    package var punchAfter: String?

    package init() {}

    /// Flags over file over defaults.
    package func resolvedConfiguration() throws(ControlError) -> DaemonConfiguration {
        var flags = PartialConfiguration()
        flags.store = store
        flags.control = control
        flags.nbd = nbd
        flags.stateDirectory = stateDir
        flags.engine = engine
        flags.cacheSize = cacheSize
        flags.logLevel = logLevel
        flags.punchAfter = punchAfter
        let file = try ConfigurationFile.load(path: config)
        return try DaemonConfiguration(flags: flags, file: file)
    }

    /// Runs until a signal; never returns normally, because the first thread waits for signals.
    package func run() throws {
        let signals = TerminationSignals()
        let configuration = try resolvedConfiguration()
        let isForJournal = getenv("JOURNAL_STREAM") != nil
        LoggingSystem.bootstrap { _ in
            StandardErrorLog(level: configuration.logLevel, isForJournal: isForJournal)
        }
        let log = Logger(label: "parallax-blockd")
        let (stop, stopping) = AsyncStream.makeStream(of: Void.self)
        Task {
            Glibc.exit(await Self.serve(configuration, log: log, until: stop))
        }
        _ = signals.wait()
        stopping.yield()
        _ = signals.wait()
        log.critical("second signal: exiting at once")
        _exit(1)
    }

    /// The exit code of the process.
    private static func serve(
        _ configuration: DaemonConfiguration, log: Logger, until stop: AsyncStream<Void>
    ) async -> Int32 {
        do throws(ControlError) {
            let runtime = try await openStore(configuration, log: log)
            let daemon = Daemon(
                configuration: configuration, log: log, notifier: .fromEnvironment())
            try await daemon.run(runtime, until: stop)
            return 0
        } catch {
            log.critical("\(error.message)")
            return 1
        }
    }
}
