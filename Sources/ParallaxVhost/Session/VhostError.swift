// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// Why a VDI cannot be served at a socket.
package enum VhostError: Error, Equatable, CustomStringConvertible {
    case socketPathInvalid
    case socketPathTooLong(String, limit: Int)
    case pathIsNoSocket(String)
    case socketInUse(String)
    case cannotListen(String, errno: Int32)

    package var description: String {
        switch self {
        case .socketPathInvalid:
            "the vhost-user socket needs a path that is not empty and has no NUL"
        case .socketPathTooLong(let path, let limit):
            "the socket path \(path) has \(path.utf8.count) bytes; use at most \(limit)"
        case .pathIsNoSocket(let path):
            "\(path) exists and is not a socket; remove it or choose another path"
        case .socketInUse(let path):
            "another process listens on \(path); stop it or choose another path"
        case .cannotListen(let path, let code):
            "cannot listen on \(path): \(Self.text(of: code)); check the folder and its permissions"
        }
    }

    private static func text(of code: Int32) -> String {
        strerror(code).map { String(cString: $0) } ?? "error \(code)"
    }
}
