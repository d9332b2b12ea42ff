// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxGuest

/// A real `parallax-blockd` on a store of its own, and `parallax-ctl` to talk to it.
///
///     let daemon = try DaemonHarness()            // makes the store
///     try daemon.start()                       // returns when it is ready
///     let socket = try daemon.createVhost("disk", size: "16M")
final class DaemonHarness {
    struct Options {
        var storeSize = "256M"
        var extentSize = "4M"
        var shards = 2
        var engine: String?
        var cacheSize: String?
        var punchAfter: String?
        /// A program that starts the daemon in its own place.
        var wrapper: [String] = []
    }

    let directory: TemporaryDirectory
    let options: Options
    private(set) var process: ChildProcess?

    var store: String { directory.file("store") }
    var controlSocket: String { directory.file("c.sock") }
    var nbdSocket: String { directory.file("nbd.sock") }
    var logPath: String { directory.file("log") }

    init(_ options: Options = Options(), makesStore: Bool = true) throws {
        directory = try TemporaryDirectory()
        self.options = options
        if makesStore { try makeStore() }
    }

    func makeStore() throws {
        try Command.succeed([
            Programs.control, "store", "init", store, "--size", options.storeSize,
            "--extent-size", options.extentSize, "--shards", "\(options.shards)",
        ])
    }

    var arguments: [String] {
        var words = options.wrapper
        words += [
            Programs.daemon, "--store", store, "--control", controlSocket, "--nbd", nbdSocket,
            "--state-dir", directory.file("state"), "--config", "/dev/null",
        ]
        if let engine = options.engine { words += ["--engine", engine] }
        if let cacheSize = options.cacheSize { words += ["--cache-size", cacheSize] }
        if let punchAfter = options.punchAfter { words += ["--punch-after", punchAfter] }
        return words
    }

    // MARK: Start and end

    /// Starts it and waits until it says that it is ready.
    func start() throws {
        let notifications = try spawn()
        try waitUntilReady(notifications)
    }

    func waitUntilReady(_ notifications: NotifySocket) throws {
        guard let process else { throw TestFailure("the daemon was not started") }
        while let message = try notifications.next(orEndOf: process) {
            if message.hasPrefix("READY=1\n") { return }
        }
        throw TestFailure("the daemon ended at its start with \(try process.wait()):\n\(log)")
    }

    /// Starts it and does not wait; the socket hears what it tells systemd.
    func spawn() throws -> NotifySocket {
        let notifications = try NotifySocket(path: directory.file("notify"))
        let log = open(logPath, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard log >= 0 else { throw TestFailure("cannot make \(logPath)") }
        defer { close(log) }
        process = try ChildProcess(
            arguments, output: log, errors: log,
            environment: ["NOTIFY_SOCKET": notifications.path])
        return notifications
    }

    /// Starts it in the belief that it will refuse.
    func refusal() throws -> Outcome {
        try Command.run(arguments, environment: ["NOTIFY_SOCKET": ""])
    }

    /// SIGTERM, and the exit code.
    func terminate() throws -> Int32 {
        guard let process else { throw TestFailure("the daemon does not run") }
        process.signal(SIGTERM)
        let code = try process.wait()
        self.process = nil
        return code
    }

    /// SIGKILL.
    func kill() throws {
        guard let process else { throw TestFailure("the daemon does not run") }
        process.signal(SIGKILL)
        _ = try process.wait()
        self.process = nil
    }

    /// SIGTERM and a new start.
    func restart() throws {
        let code = try terminate()
        guard code == 0 else { throw TestFailure("SIGTERM ended it with \(code):\n\(log)") }
        try start()
    }

    /// Everything that it has logged.
    var log: String {
        guard let bytes = try? readFile(logPath) else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    // MARK: Control

    func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

    func run(_ arguments: [String]) throws -> Outcome {
        try Command.run([Programs.control, "--socket", controlSocket] + arguments)
    }

    /// `parallax-ctl` with these arguments, which must succeed; what it printed, without the line
    /// break at the end.
    @discardableResult
    func ctl(_ arguments: String...) throws -> String {
        let outcome = try run(arguments)
        guard outcome.succeeded else {
            throw TestFailure("parallax-ctl \(arguments): \(outcome)\n\(log)")
        }
        return outcome.output.hasSuffix("\n")
            ? String(outcome.output.dropLast()) : outcome.output
    }

    var client: ControlClient {
        get throws { try ControlClient(socketPath: controlSocket) }
    }

    func status() throws -> DaemonStatus { try client.status() }

    /// Makes a VDI and attaches it to a vhost-user socket, whose path it returns.
    @discardableResult
    func createVhost(_ name: String, size: String, readOnly: Bool = false) throws -> String {
        let socket = directory.file("\(name).vhost")
        try ctl("vdi", "create", name, "--size", size)
        let printed =
            readOnly
            ? try ctl("attach", name, "--vhost-user", socket, "--read-only")
            : try ctl("attach", name, "--vhost-user", socket)
        guard printed == socket else { throw TestFailure("attach printed \(printed)") }
        return socket
    }

    /// Makes a VDI and attaches it to the shared NBD socket; its URI.
    func createNBD(_ name: String, size: String) throws -> String {
        try ctl("vdi", "create", name, "--size", size)
        return try ctl("attach", name, "--nbd")
    }
}

/// The names of the I/O engines.
let bothEngines = ["io_uring", "libaio"]

/// The drivers of these tests are patient: the machine may be busy.
func patientOptions(queues: Int = 1) -> BlockDriverOptions {
    var options = BlockDriverOptions()
    options.queueCount = queues
    options.timeoutMilliseconds = ChildProcess.patienceSeconds * 1000
    return options
}
