// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

/// A connection on its way from the listener to the shard of its VDI.
///
/// It carries the only reference to a connected, nonblocking socket on which nothing of the
/// transmission phase has been read. Whoever takes it from `NBDListener.takeHandover` must give it
/// to `NBDConnection.init` or call `refuse`, once. It is a plain value, so that it can travel
/// through a mailbox to another thread.
package struct NBDHandover: Sendable {
    package let agreement: NBDAgreement
    let socketFD: Int32

    /// `socketFD`: nonblocking, and from here on owned by this value.
    package init(agreement: NBDAgreement, socketFD: Int32) {
        self.agreement = agreement
        self.socketFD = socketFD
    }

    /// The VDI has gone in the meantime, or has too many connections: hang up.
    package consuming func refuse() { _ = parallax_socket_close(socketFD) }
}
