// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import ParallaxControl

/// Tells systemd how the daemon is, as sd_notify(3) does: one datagram a message to the socket in
/// `NOTIFY_SOCKET`. Does nothing where there is none.
package struct ServiceNotifier: Sendable {
    /// A path, or `@name` for the abstract namespace.
    private let socketName: String?

    package init(socketName: String?) { self.socketName = socketName }

    package static func fromEnvironment() -> ServiceNotifier {
        ServiceNotifier(socketName: getenv("NOTIFY_SOCKET").map { String(cString: $0) })
    }

    /// What systemd is told of `state`. READY may be said again; it only counts once.
    package static func message(for state: DaemonState, summary: String) -> String {
        switch state {
        case .starting, .degraded: "STATUS=\(summary)"
        case .ready: "READY=1\nSTATUS=\(summary)"
        case .stopping: "STOPPING=1\nSTATUS=\(summary)"
        }
    }

    /// False when there was somebody to tell and it failed.
    @discardableResult
    package func send(_ message: String) -> Bool {
        guard let socketName, !socketName.isEmpty else { return true }
        guard let address = Self.addressBytes(socketName) else { return false }
        let descriptor = socket(
            AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { _ = close(descriptor) }
        let bytes = Array(message.utf8)
        let sent = UnixAddress.withSocketAddress(bytes: address) { address, length in
            sendto(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL), address, length)
        }
        return sent == bytes.count
    }

    /// The raw `sun_path`. An abstract name begins with a zero instead of the @ and has no zero at
    /// its end: its length counts.
    private static func addressBytes(_ name: String) -> [UInt8]? {
        let bytes = Array(name.utf8)
        guard bytes.count <= UnixAddress.maximumPathBytes else { return nil }
        switch bytes.first {
        case UInt8(ascii: "@"): return [0] + bytes.dropFirst()
        case UInt8(ascii: "/"): return bytes + [0]
        default: return nil
        }
    }
}
