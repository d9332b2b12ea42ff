// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import ParallaxIO
import Testing

/// Expects an attempt to open or create a store to fail for this reason, nil: to succeed.
///
/// A function, because a closure inside `#expect` may be given the symbol of another closure of
/// the same test, and then one of them runs in place of the other (Swift 6.3.1).
func expectRefusal(
    _ expected: StoreFileError.Reason?, sourceLocation: SourceLocation = #_sourceLocation,
    _ attempt: () throws -> StoreFile
) {
    let reason = refusal(attempt)
    #expect(reason == expected, sourceLocation: sourceLocation)
}

func refusal(_ attempt: () throws -> StoreFile) -> StoreFileError.Reason? {
    do {
        _ = try attempt()
    } catch {
        let reason = (error as? StoreFileError)?.reason
        if reason == nil { Issue.record("not a StoreFileError: \(error)") }
        return reason
    }
    return nil
}

/// Standard output of a program that ended well, nil of one that did not.
func output(_ arguments: String...) -> String? {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return process.terminationStatus == 0 ? String(decoding: data, as: UTF8.self) : nil
}

/// A Python process that opens a path as `f`, executes a statement on it and waits.
final class LockHolder {
    private let process = Process()
    private let input = Pipe()

    var processID: Int32 { process.processIdentifier }

    init(path: String, statement: String) throws {
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = [
            "-c",
            "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR); \(statement); "
                + "print('locked', flush=True); sys.stdin.read()",
            path,
        ]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        var answer = Data()
        while answer.last != UInt8(ascii: "\n") {
            let more = output.fileHandleForReading.availableData
            try #require(!more.isEmpty, "the lock holder has ended")
            answer.append(more)
        }
        try #require(String(decoding: answer, as: UTF8.self) == "locked\n")
    }

    func end() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }

    deinit { end() }
}
