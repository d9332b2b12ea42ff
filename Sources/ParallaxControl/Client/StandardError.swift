// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// Writes `message` as one line to standard error, whatever line breaks it holds.
package func writeStandardError(_ message: String) {
    let line = message.split(whereSeparator: \.isNewline).joined(separator: " ") + "\n"
    _ = Array(line.utf8).withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
}
