// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// Why NBD cannot be served. Each reads as one sentence that names the object.
package enum NBDError: Error, Equatable, CustomStringConvertible {
    case pathTooLong(path: String, limit: Int)
    case pathNotASocket(path: String)
    case pathInUse(path: String)
    case socketNotListening(fileDescriptor: Int32)
    /// `errno` is positive.
    case system(action: String, object: String, errno: Int32)

    package var description: String {
        switch self {
        case .pathTooLong(let path, let limit):
            "the socket path '\(path)' is too long: at most \(limit) bytes; choose a shorter one"
        case .pathNotASocket(let path):
            "'\(path)' exists and is not a socket; remove it or choose another path"
        case .pathInUse(let path):
            "a process is already serving on '\(path)'; stop it or choose another path"
        case .socketNotListening(let fileDescriptor):
            "inherited file descriptor \(fileDescriptor) is not a listening Unix socket"
        case .system(let action, let object, let errno):
            "cannot \(action) '\(object)': \(String(cString: strerror(errno)))"
        }
    }
}
