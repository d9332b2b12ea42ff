// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import Glibc

/// A file system path as the address of a Unix socket, checked to fit.
package struct UnixAddress: Equatable, Sendable {
    /// `sun_path` has 108 bytes and we always end it with a zero, as every client expects.
    package static let maximumPathBytes = 107

    package let path: String

    package init(path: String) throws(ControlError) {
        guard !path.isEmpty else {
            throw ControlError(.invalid, "the path of a socket cannot be empty")
        }
        guard !path.utf8.contains(0) else {
            throw ControlError(.invalid, "the path of a socket cannot contain a zero byte")
        }
        guard path.utf8.count <= Self.maximumPathBytes else {
            throw ControlError(
                .invalid,
                "the socket path \(quoted(path)) has \(path.utf8.count) bytes and Linux allows "
                    + "\(Self.maximumPathBytes); use a shorter one")
        }
        self.path = path
    }

    /// Calls `body` with the address in the form that `bind` and `connect` take.
    package func withSocketAddress<Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        Self.withSocketAddress(bytes: Array(path.utf8) + [0], body)
    }

    /// `bytes` is the raw `sun_path`: ending in a zero for a path, beginning with one for a name
    /// in the abstract namespace. At most 108 bytes are used.
    package static func withSocketAddress<Result>(
        bytes: [UInt8], _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let count = withUnsafeMutableBytes(of: &address.sun_path) { field in
            let count = min(bytes.count, field.count)
            field.copyBytes(from: bytes.prefix(count))
            return count
        }
        let headerBytes = MemoryLayout<sockaddr_un>.offset(of: \.sun_path) ?? 2
        let length = socklen_t(headerBytes + count)
        // SAFETY: a sockaddr_un may be passed as the sockaddr that it starts with; the pointer
        // lives as long as the call.
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }
}

/// The system's words for an error number.
package func errnoText(_ number: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    // The GNU form of strerror_r is not visible to Swift; the XSI form fills the buffer.
    return buffer.withUnsafeMutableBufferPointer { buffer in
        guard let base = buffer.baseAddress, strerror_r(number, base, buffer.count) == 0 else {
            return "error \(number)"
        }
        return String(cString: base)
    }
}

/// `path` from the root, since another process has a working directory of its own.
package func absolutePath(_ path: String) throws(ControlError) -> String {
    guard !path.isEmpty, !path.hasPrefix("/") else { return path }
    guard let directory = getcwd(nil, 0) else {
        throw ControlError(.invalid, "cannot tell the current directory: \(errnoText(errno))")
    }
    defer { free(directory) }
    let prefix = String(cString: directory)
    return prefix == "/" ? "/\(path)" : "\(prefix)/\(path)"
}
