// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The key `state` of either end (xenbus.h).
package enum XenbusState: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    /// Also a node that is not there, or holds something that is no state.
    case unknown = 0
    case initialising = 1
    case initWait = 2
    case initialised = 3
    case connected = 4
    case closing = 5
    case closed = 6
    case reconfiguring = 7
    case reconfigured = 8

    package init(text: String?) {
        self = text.flatMap { UInt8($0) }.flatMap { XenbusState(rawValue: $0) } ?? .unknown
    }
}
