// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// A program started by a test, its output in a file; killed and waited for at the end.
final class ChildProcess {
    let processIdentifier: pid_t
    private var status: Int32?

    /// Runs `program` (a path) with `environment` added to ours; nil if it cannot be started.
    init?(
        _ program: String, _ arguments: [String], environment: [String: String] = [:],
        outputPath: String, errorPath: String
    ) {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let flags = O_WRONLY | O_CREAT | O_APPEND
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, outputPath, flags, 0o600)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errorPath, flags, 0o600)
        let argumentList = ([program] + arguments).map { strdup($0) } + [nil]
        let variables = Self.environment(adding: environment).map { strdup($0) } + [nil]
        defer { for pointer in argumentList + variables { free(pointer) } }
        var child: pid_t = 0
        guard posix_spawn(&child, program, &actions, nil, argumentList, variables) == 0 else {
            return nil
        }
        processIdentifier = child
    }

    deinit {
        guard status == nil else { return }
        kill(processIdentifier, SIGKILL)
        _ = wait()
    }

    private static func environment(adding added: [String: String]) -> [String] {
        var result: [String] = []
        var entry = environ
        while let text = entry.pointee {
            let line = String(cString: text)
            if added[String(line.prefix { $0 != "=" })] == nil { result.append(line) }
            entry += 1
        }
        return result + added.map { "\($0.key)=\($0.value)" }
    }

    func send(_ signal: Int32) {
        if status == nil { kill(processIdentifier, signal) }
    }

    /// Waits for the end: the exit code, or minus the signal that ended it.
    func wait() -> Int32 {
        while status == nil { reap(options: 0) }
        return status ?? 0
    }

    /// Nil while it runs.
    var exitStatus: Int32? {
        if status == nil { reap(options: WNOHANG) }
        return status
    }

    private func reap(options: Int32) {
        var raw: Int32 = 0
        guard waitpid(processIdentifier, &raw, options) == processIdentifier else { return }
        let signal = raw & 0x7F
        status = signal == 0 ? raw >> 8 & 0xFF : -signal
    }
}
