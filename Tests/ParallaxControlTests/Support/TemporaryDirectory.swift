// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import FoundationEssentials
import Glibc
import Testing

/// A directory of a test's own, short enough for socket paths; removed with all it holds.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/parallax-test-XXXXXX".utf8CString)
        let made = mkdtemp(&template)
        try #require(made != nil, "no temporary directory")
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    func write(_ text: String, to name: String) throws {
        let file = fopen(self.file(name), "w")
        let handle = try #require(file)
        fputs(text, handle)
        fclose(handle)
    }
}

func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

func permissions(_ path: String) -> UInt32? {
    var information = stat()
    guard lstat(path, &information) == 0 else { return nil }
    return information.st_mode & 0o777
}
