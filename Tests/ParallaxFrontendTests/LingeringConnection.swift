// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import Testing

/// A TCP connection whose last close(2) waits until the peer, who never does, has read everything.
final class LingeringConnection {
    private let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    private let sender = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    private let receiver: Int32

    init() throws {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let (listener, sender) = (self.listener, self.sender)
        receiver = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                guard bind(listener, generic, length) == 0, listen(listener, 1) == 0,
                    getsockname(listener, generic, &length) == 0,
                    connect(sender, generic, length) == 0
                else { return -1 }
                return accept(listener, nil, nil)
            }
        }
        try #require(receiver >= 0)
        var wish = linger(l_onoff: 1, l_linger: 600)
        setsockopt(
            sender, SOL_SOCKET, SO_LINGER, &wish, socklen_t(MemoryLayout<linger>.size))
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        while send(sender, zeros, zeros.count, Int32(MSG_DONTWAIT)) > 0 {}
    }

    /// The caller's, to be given away.
    func takeSender() -> Int32 { sender }

    deinit {
        // What is unread makes this a reset, which ends the wait.
        close(receiver)
        close(listener)
    }
}
