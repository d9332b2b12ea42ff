// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc

/// A program under way. Every wait is on a descriptor and has an end: nothing here sleeps.
///
/// The program holds the write end of a pipe that nobody writes to: its end of file says that the
/// program is over, also when it was killed.
final class ChildProcess {
    /// Generous, because the machine may be busy with other tests; reached only by a hang.
    static let patienceSeconds = 60

    let processID: pid_t
    private let lifeline: Int32
    private var status: Int32?

    /// `arguments[0]` is searched for in PATH. The descriptors are the program's 0, 1 and 2 and
    /// stay the caller's.
    init(
        _ arguments: [String], input: Int32? = nil, output: Int32, errors: Int32,
        environment additions: [String: String] = [:]
    ) throws {
        var pipe: [Int32] = [-1, -1]
        let piped = parallax_pipe(&pipe, 0)
        guard piped == 0 else { throw TestFailure("cannot make a pipe: \(-piped)") }
        let lifelineInChild: Int32 = 9
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        if let input {
            posix_spawn_file_actions_adddup2(&actions, input, 0)
        } else {
            posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        }
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
        posix_spawn_file_actions_adddup2(&actions, pipe[1], lifelineInChild)
        var child: pid_t = 0
        var words = arguments.map { strdup($0) } + [nil]
        var variables = Self.environment(with: additions).map { strdup($0) } + [nil]
        let failure = posix_spawnp(&child, arguments[0], &actions, nil, &words, &variables)
        for word in words + variables { free(word) }
        posix_spawn_file_actions_destroy(&actions)
        close(pipe[1])
        guard failure == 0 else {
            close(pipe[0])
            throw TestFailure("cannot start \(arguments[0]): \(String(cString: strerror(failure)))")
        }
        processID = child
        lifeline = pipe[0]
    }

    deinit {
        if status == nil {
            Glibc.kill(processID, SIGKILL)
            waitpid(processID, nil, 0)
        }
        close(lifeline)
    }

    private static func environment(with additions: [String: String]) -> [String] {
        var lines: [String] = []
        var next = environ
        while let line = next.pointee {
            let text = String(cString: line)
            let name = String(text.prefix { $0 != "=" })
            if additions[name] == nil { lines.append(text) }
            next += 1
        }
        return lines + additions.map { "\($0.key)=\($0.value)" }
    }

    func signal(_ number: Int32) {
        if status == nil { Glibc.kill(processID, number) }
    }

    /// Readable (at its end) when the program is over.
    var endDescriptor: Int32 { lifeline }

    /// Waits for its end: the exit code, or 128 and the signal.
    func wait(seconds: Int = patienceSeconds) throws -> Int32 {
        if status == nil {
            var watched = pollfd(fd: lifeline, events: Int16(POLLIN), revents: 0)
            guard poll(&watched, 1, Int32(seconds * 1000)) == 1 else {
                throw TestFailure("process \(processID) did not end within \(seconds) s")
            }
            var result: Int32 = 0
            waitpid(processID, &result, 0)
            status = result
        }
        let result = status ?? 0
        let signal = result & 0x7f
        return signal == 0 ? (result >> 8) & 0xff : 128 + signal
    }
}
