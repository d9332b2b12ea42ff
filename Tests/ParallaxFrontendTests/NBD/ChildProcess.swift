// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc

/// A program under way, with its output in a pipe: the pipe's end of file says that it is over.
final class ChildProcess {
    private let pid: pid_t
    let outputFD: Int32
    private var output: [UInt8] = []
    private var status: Int32?

    /// `arguments[0]` is searched for in PATH.
    init(_ arguments: [String]) throws {
        var pipe: [Int32] = [-1, -1]
        let piped = parallax_pipe(&pipe, 0)
        guard piped == 0 else { throw POSIXFailure(code: -piped) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, pipe[1], 1)
        posix_spawn_file_actions_adddup2(&actions, pipe[1], 2)
        var child: pid_t = 0
        var words = arguments.map { strdup($0) } + [nil]
        let failure = posix_spawnp(&child, arguments[0], &actions, nil, &words, environ)
        for word in words { free(word) }
        posix_spawn_file_actions_destroy(&actions)
        close(pipe[1])
        guard failure == 0 else {
            close(pipe[0])
            throw ProgramMissing(program: arguments[0])
        }
        pid = child
        outputFD = pipe[0]
        _ = parallax_set_nonblocking(outputFD, 1)
    }

    deinit {
        if status == nil {
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
        }
        close(outputFD)
    }

    /// Takes what it has written so far. False: it is over.
    func collect() -> Bool {
        var piece = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(outputFD, &piece, piece.count)
            if count < 0 { return errno == EAGAIN || errno == EINTR }
            if count == 0 { return false }
            output += piece[..<count]
        }
    }

    /// After its end: exit code (128 + signal), and what it said.
    func finish() -> (code: Int32, output: String) {
        var result: Int32 = 0
        waitpid(pid, &result, 0)
        status = result
        let signal = result & 0x7f
        let code = signal == 0 ? (result >> 8) & 0xff : 128 + signal
        return (code, String(decoding: output, as: UTF8.self))
    }
}

/// The tests need the clients that people use; `scripts/test` installs them.
struct ProgramMissing: Error { let program: String }
