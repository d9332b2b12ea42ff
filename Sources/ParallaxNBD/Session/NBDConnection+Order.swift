// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

/// Which client of an export comes before which.
///
/// A client that has gone may have left requests: in the sockets, in the connection, in the engine. The
/// next one, mostly the same client that connects again, must not be served before they are carried out:
/// else an old write lands on what has been written, answered and flushed since.
///
/// ```
///   waiting --- nobody `holdsUpSuccessors` any more ---> serving
/// ```
/// Clients that are connected at the same time know of each other and wait for nobody.
extension NBDConnection {
    /// Another client of the same export has come. True: this one has not been served yet and has gone,
    /// so that it can be stopped at once.
    package mutating func noteSuccessor() -> Bool {
        switch phase {
        case .waiting: return parallax_peer_has_left(socketFD) == 1
        case .serving: isPredecessor = isPredecessor || parallax_peer_has_left(socketFD) == 1
        case .draining, .stopping, .closed: isPredecessor = true
        }
        return false
    }

    /// Whether those who came after it must wait: it may have requests that are not carried out. Reads can
    /// come at any time.
    package var holdsUpSuccessors: Bool {
        isPredecessor && !rules.isReadOnly
            && (phase == .serving || current.step != .idle || inFlight > 0)
    }

    /// Whether it waits until nobody `holdsUpSuccessors`; then it is to be started.
    package var isWaiting: Bool { phase == .waiting }
}
