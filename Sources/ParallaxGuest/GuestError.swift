// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Why the driver could not do what it was asked: a kind to switch on and one sentence to print.
package struct GuestError: Error, Equatable, CustomStringConvertible {
    package enum Kind: Equatable, Sendable {
        /// The socket could not be reached.
        case connect
        /// The device closed the connection, also by dying.
        case deviceGone
        /// The device did not answer in time.
        case timeout
        /// The device broke the vhost-user or virtio rules.
        case violation
        /// The device lacks something that the options ask for.
        case unsupported
        /// The device answered a request with this virtio-blk status (not `ok`).
        case requestFailed(UInt8)
        /// The device refused a vhost-user message (its acknowledgement was not 0).
        case refused
        /// The caller asked for something impossible.
        case usage
        /// A system call of our own failed.
        case system
    }

    package var kind: Kind
    package var message: String

    package init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    package var description: String { message }
}
