// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// Where the programs under test are: in PARALLAX_BIN, or else beside the test program itself, made
/// by the same build.
enum Programs {
    static let directory: String = {
        if let directory = getenv("PARALLAX_BIN") { return String(cString: directory) }
        let path = realpath("/proc/self/exe", nil)
        defer { free(path) }
        let program = path.map { String(cString: $0) } ?? ""
        return String(program.prefix(upTo: program.lastIndex(of: "/") ?? program.startIndex))
    }()

    static var daemon: String { "\(directory)/parallax-blockd" }
    static var simulator: String { "\(directory)/parallax-sim" }
    static var control: String { "\(directory)/parallax-ctl" }

    /// The folder of the sources, from where this file was compiled.
    static let sourceDirectory: String = {
        let parts = #filePath.split(separator: "/").dropLast(4)
        return "/" + parts.joined(separator: "/")
    }()
}
