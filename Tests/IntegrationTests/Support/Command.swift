// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc

/// What a program that was run to its end has left.
struct Outcome: CustomStringConvertible {
    var code: Int32
    var output: String
    var errors: String

    var succeeded: Bool { code == 0 }

    /// Both outputs, as a terminal would have shown them.
    var text: String { output + errors }

    var description: String { "exit code \(code)\n\(text)" }
}

/// Runs programs to their end, with a limit on the time that they may take.
enum Command {
    /// `arguments[0]` is searched for in PATH.
    static func run(
        _ arguments: [String], seconds: Int = ChildProcess.patienceSeconds,
        environment: [String: String] = [:]
    ) throws -> Outcome {
        let output = try CollectingPipe()
        let errors = try CollectingPipe()
        let child = try ChildProcess(
            arguments, output: output.writeEnd, errors: errors.writeEnd, environment: environment)
        output.closeWriteEnd()
        errors.closeWriteEnd()
        let deadline = parallax_monotonic_nanoseconds() + UInt64(seconds) * 1_000_000_000
        while !output.isAtEnd || !errors.isAtEnd {
            var watched = [output, errors].filter { !$0.isAtEnd }.map {
                pollfd(fd: $0.readEnd, events: Int16(POLLIN), revents: 0)
            }
            let left = Int64(bitPattern: deadline &- parallax_monotonic_nanoseconds())
            guard left > 0, poll(&watched, nfds_t(watched.count), Int32(left / 1_000_000 + 1)) > 0
            else {
                throw TestFailure(
                    "\(arguments) did not end within \(seconds) s: \(output.text)\(errors.text)")
            }
            output.collect()
            errors.collect()
        }
        let code = try child.wait(seconds: seconds)
        return Outcome(code: code, output: output.text, errors: errors.text)
    }

    /// The same, and it must exit with 0.
    @discardableResult
    static func succeed(
        _ arguments: [String], seconds: Int = ChildProcess.patienceSeconds
    ) throws -> String {
        let outcome = try run(arguments, seconds: seconds)
        guard outcome.succeeded else { throw TestFailure("\(arguments): \(outcome)") }
        return outcome.output
    }
}

/// A pipe whose read end is emptied into memory.
private final class CollectingPipe {
    let readEnd: Int32
    private(set) var writeEnd: Int32
    private(set) var isAtEnd = false
    private var bytes: [UInt8] = []

    init() throws {
        var pipe: [Int32] = [-1, -1]
        let piped = parallax_pipe(&pipe, 0)
        guard piped == 0 else { throw TestFailure("cannot make a pipe: \(-piped)") }
        readEnd = pipe[0]
        writeEnd = pipe[1]
        _ = parallax_set_nonblocking(readEnd, 1)
    }

    deinit {
        close(readEnd)
        closeWriteEnd()
    }

    var text: String { String(decoding: bytes, as: UTF8.self) }

    func closeWriteEnd() {
        if writeEnd >= 0 { close(writeEnd) }
        writeEnd = -1
    }

    func collect() {
        var piece = [UInt8](repeating: 0, count: 65_536)
        while !isAtEnd {
            let count = read(readEnd, &piece, piece.count)
            if count < 0 { return }
            if count == 0 { isAtEnd = true }
            bytes += piece[..<count]
        }
    }
}
