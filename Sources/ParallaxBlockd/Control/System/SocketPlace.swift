// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import ParallaxControl

/// The place in the file system where a Unix socket is to be made.
package enum SocketPlace {
    package enum Occupant: Equatable, Sendable {
        case nobody
        /// A socket that nobody listens on, left behind by a process that was killed.
        case staleSocket
    }

    /// Who is at `address`, if that is no obstacle; a sentence if it is. `purpose` begins it:
    /// "the control socket".
    package static func inspect(
        _ address: UnixAddress, purpose: String
    ) throws(ControlError) -> Occupant {
        var information = stat()
        guard lstat(address.path, &information) == 0 else {
            switch errno {
            case ENOENT:
                try requireDirectory(of: address, purpose: purpose)
                return .nobody
            default:
                throw ControlError(
                    .socketUnusable,
                    "cannot make \(purpose) \(address.path): \(errnoText(errno))")
            }
        }
        guard information.st_mode & S_IFMT == S_IFSOCK else {
            throw ControlError(
                .socketUnusable,
                "cannot make \(purpose) \(address.path): something that is not a socket is there; "
                    + "remove it or use another path")
        }
        switch StreamSocket.connect(to: address, isProbe: true) {
        case .connected:
            throw alive(address, purpose)
        case .failed(let number):
            // EAGAIN: the listener's queue is full, so there is a listener. EPROTOTYPE: a
            // datagram socket that someone holds open.
            guard number == ECONNREFUSED || number == ENOENT else {
                if number == EAGAIN || number == EPROTOTYPE { throw alive(address, purpose) }
                throw ControlError(
                    .socketUnusable,
                    "cannot make \(purpose) \(address.path): a socket is there and cannot be "
                        + "tried: \(errnoText(number))")
            }
            return .staleSocket
        }
    }

    private static func alive(_ address: UnixAddress, _ purpose: String) -> ControlError {
        ControlError(
            .socketUnusable,
            "cannot make \(purpose) \(address.path): another process listens on it; "
                + "stop that process or use another path")
    }

    private static func requireDirectory(
        of address: UnixAddress, purpose: String
    ) throws(ControlError) {
        let directory = SmallFile.directory(of: address.path)
        var information = stat()
        guard stat(directory, &information) == 0, information.st_mode & S_IFMT == S_IFDIR else {
            throw ControlError(
                .socketUnusable,
                "cannot make \(purpose) \(address.path): there is no directory \(directory)")
        }
    }

    /// The same place however it is spelt: the directory resolved, the last name kept.
    package static func canonicalPath(_ path: String) -> String {
        let directory = SmallFile.directory(of: path)
        guard let resolved = realpath(directory, nil) else { return path }
        defer { free(resolved) }
        let name = path.split(separator: "/").last ?? ""
        let prefix = String(cString: resolved)
        return prefix == "/" ? "/\(name)" : "\(prefix)/\(name)"
    }
}
