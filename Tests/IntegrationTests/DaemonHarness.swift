// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import Testing

/// A real parallax-blockd on a store of its own, driven by a real parallax-ctl; all of it in one
/// temporary directory that goes away with the harness.
///
///     let harness = try DaemonHarness()          // store made, daemon ready
///     try harness.ctl("vdi", "create", "a", "--size", "1G")
///     harness.kill()                             // as by kill -9
///     try harness.start()                        // again, until ready
final class DaemonHarness {
    struct Result {
        var status: Int32
        var output: String
        var error: String
    }

    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    let directory: String
    let client: ControlClient
    private let arguments: [String]
    private var daemon: ChildProcess?
    private var commandCount = 0

    var storePath: String { file("store") }
    var controlSocketPath: String { file("control.sock") }
    var nbdSocketPath: String { file("nbd.sock") }

    /// Makes the store, unless `storeSize` is nil, and starts the daemon unless `starts` is false.
    init(
        storeSize: String? = "1G", extentSize: String = "16M", shards: Int? = nil,
        arguments: [String] = [], starts: Bool = true
    ) throws {
        let parent = getenv("PARALLAX_TMP").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(parent)/parallax-it-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw Failure(description: "no \(parent)") }
        directory = String(cString: made)
        self.arguments = arguments
        client = try ControlClient(socketPath: "\(directory)/control.sock")
        if let storeSize {
            let count = shards.map { ["--shards", String($0)] } ?? []
            try ctl(
                ["store", "init", storePath, "--size", storeSize, "--extent-size", extentSize]
                    + count)
        }
        if starts { try start() }
    }

    deinit {
        daemon = nil
        Self.remove(directory)
    }

    func file(_ name: String) -> String { "\(directory)/\(name)" }

    /// Starts the daemon and returns when it says that it is ready.
    func start() throws {
        let service = try NotificationSocket(path: file("notify"))
        let child = try spawnDaemon(notifying: service.path)
        daemon = child
        while true {
            if let message = service.receive(), message.hasPrefix("READY=1") { return }
            if let status = child.exitStatus {
                throw Failure(description: "the daemon ended with \(status): \(log)")
            }
        }
    }

    /// Starts a daemon that is expected to refuse, and returns what it said and how it ended.
    func startExpectingFailure(_ more: [String] = []) throws -> Result {
        let errorPath = file("refused.log")
        unlink(errorPath)
        let child = try spawnDaemon(more, notifying: nil, errorPath: errorPath)
        let status = child.wait()
        return Result(status: status, output: "", error: Self.read(errorPath))
    }

    private func spawnDaemon(
        _ more: [String] = [], notifying service: String?, errorPath: String? = nil
    ) throws -> ChildProcess {
        let options = [
            "--store", storePath, "--control", controlSocketPath, "--state-dir", file("state"),
            "--config", "/dev/null",
        ]
        let child = ChildProcess(
            try Self.binary("parallax-blockd"), options + arguments + more,
            environment: service.map { ["NOTIFY_SOCKET": $0] } ?? [:],
            outputPath: file("out.log"), errorPath: errorPath ?? file("daemon.log"))
        guard let child else { throw Failure(description: "parallax-blockd does not start") }
        return child
    }

    var processIdentifier: Int32 { daemon?.processIdentifier ?? 0 }

    /// All that the daemon has logged so far, over all its starts.
    var log: String { Self.read(file("daemon.log")) }

    /// kill -9, and waits until it is gone.
    func kill() {
        daemon?.send(SIGKILL)
        _ = daemon?.wait()
        daemon = nil
    }

    /// SIGTERM; returns the exit code.
    func terminate() -> Int32 {
        daemon?.send(SIGTERM)
        defer { daemon = nil }
        return daemon?.wait() ?? -1
    }

    /// kill -9, and up again.
    func restart() throws {
        kill()
        try start()
    }

    /// Runs parallax-ctl, which must succeed; its output without the last newline.
    @discardableResult
    func ctl(_ arguments: String...) throws -> String { try ctl(arguments) }

    @discardableResult
    func ctl(_ arguments: [String]) throws -> String {
        let result = try run(arguments)
        guard result.status == 0 else {
            throw Failure(
                description: "parallax-ctl \(arguments.joined(separator: " ")) ended with "
                    + "\(result.status): \(result.error)")
        }
        return result.output.hasSuffix("\n") ? String(result.output.dropLast()) : result.output
    }

    /// Runs parallax-ctl, whatever comes of it.
    func run(_ arguments: [String]) throws -> Result {
        try run(Self.binary("parallax-ctl"), arguments)
    }

    /// Runs any program to its end, with the control socket in its environment.
    func run(_ program: String, _ arguments: [String]) throws -> Result {
        commandCount += 1
        let (output, error) = (file("\(commandCount).out"), file("\(commandCount).err"))
        let child = ChildProcess(
            program, arguments, environment: ["PARALLAX_SOCKET": controlSocketPath],
            outputPath: output, errorPath: error)
        guard let child else { throw Failure(description: "\(program) does not start") }
        let status = child.wait()
        defer {
            unlink(output)
            unlink(error)
        }
        return Result(status: status, output: Self.read(output), error: Self.read(error))
    }

    /// A program of this project: in PARALLAX_BIN, or else beside the test program.
    private static func binary(_ name: String) throws -> String {
        if let directory = getenv("PARALLAX_BIN") { return "\(String(cString: directory))/\(name)" }
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let bytes = buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
        let directory = String(decoding: bytes, as: UTF8.self).split(separator: "/").dropLast()
        let path = "/" + directory.joined(separator: "/") + "/\(name)"
        guard access(path, X_OK) == 0 else { throw Failure(description: "there is no \(path)") }
        return path
    }

    static func read(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func remove(_ path: String) {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != ".", name != ".." { remove("\(path)/\(name)") }
            }
            closedir(directory)
            rmdir(path)
        } else {
            unlink(path)
        }
    }
}

/// The end of systemd that hears READY.
private final class NotificationSocket {
    let path: String
    private let descriptor: Int32

    init(path: String) throws {
        self.path = path
        unlink(path)
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        let bound = try UnixAddress(path: path).withSocketAddress { [descriptor] in
            bind(descriptor, $0, $1)
        }
        guard bound == 0 else { throw DaemonHarness.Failure(description: "cannot bind \(path)") }
        // So that the caller can look now and then whether the daemon still runs.
        var time = timeval(tv_sec: 0, tv_usec: 100_000)
        setsockopt(
            descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit {
        close(descriptor)
        unlink(path)
    }

    /// The next message; nil when none came for a while.
    func receive() -> String? {
        var buffer = [UInt8](repeating: 0, count: 1024)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
    }
}
