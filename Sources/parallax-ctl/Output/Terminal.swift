// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl

/// Standard output, or another stream. A reader that went away (`| head`) ends the program by
/// SIGPIPE, as usual.
enum Terminal {
    static func write(_ text: String, to descriptor: Int32 = STDOUT_FILENO) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress, $0.count)
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                writeStandardError("parallax-ctl: cannot write the output: \(errnoText(errno))")
                exit(1)
            }
            bytes = bytes.dropFirst(count)
        }
    }
}

/// The process's environment.
enum Environment {
    /// Nil also when the variable is empty.
    static func value(_ name: String) -> String? {
        guard let text = getenv(name), text.pointee != 0 else { return nil }
        return String(cString: text)
    }
}
