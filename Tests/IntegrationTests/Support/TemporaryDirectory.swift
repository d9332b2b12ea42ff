// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import FoundationEssentials
import Glibc
import Testing

/// A directory of a test's own, short enough for socket paths; removed with all it holds.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        // Another place, such as a file system of another kind, can be named.
        let parent = getenv("PARALLAX_TMP").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(parent)/parallax-it-XXXXXX".utf8CString)
        let made = mkdtemp(&template)
        try #require(made != nil, "no temporary directory")
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }
}

func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

func readFile(_ path: String) throws -> [UInt8] {
    guard let data = FileManager.default.contents(atPath: path) else {
        throw TestFailure("cannot read \(path)")
    }
    return [UInt8](data)
}

func writeFile(_ path: String, _ bytes: [UInt8]) throws {
    let made = FileManager.default.createFile(atPath: path, contents: Data(bytes))
    guard made else { throw TestFailure("cannot write \(path)") }
}

/// What a helper of the tests met; the test ends with it.
struct TestFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
