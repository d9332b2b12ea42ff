// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore

/// One listening socket and the connections on it that are still in negotiation.
///
/// Runs on the thread of one shard and does nothing that waits. A connection whose client has
/// chosen an export comes out of `takeHandover` and is no longer the listener's.
///
/// I1 At most `NBDLimits.negotiatingClients` file descriptors besides its own. When all are
///    taken, a newcomer takes the place of the oldest: clients that never finish cannot keep
///    others out for good.
/// I2 Token source 0 is the listening socket, source n + 1 the client in slot n.
package struct NBDListener: ~Copyable {
    struct Client {
        var socketFD: Int32
        var negotiation = NBDNegotiation()
        /// Order of arrival.
        var serial: UInt64
        var interest: EventInterest = []
    }

    package let session: UInt32
    private let socket: ListeningSocket
    var clients: [Client?]
    var exports = NBDExportTable()
    var handovers: [NBDHandover] = []
    /// Kept open to be given up when the process has no file descriptor left, so that a newcomer
    /// can be accepted and hung up on rather than make the loop spin.
    private var spareFD: Int32 = -1
    private var nextSerial: UInt64 = 0
    private var isRunning = false
    let scratch = UnsafeMutableRawBufferPointer.allocate(
        byteCount: NBDLimits.optionBytesKept, alignment: 16)

    /// Makes the socket (mode 0600); one that is left over from a dead process is replaced.
    package init(session: UInt32, path: String) throws(NBDError) {
        self.init(session: session, socket: try ListeningSocket(path: path, backlog: 128))
    }

    /// Takes over a listening socket from the service manager.
    package init(session: UInt32, inheritedFD: Int32) throws(NBDError) {
        self.init(session: session, socket: try ListeningSocket(inherited: inheritedFD))
    }

    private init(session: UInt32, socket: consuming ListeningSocket) {
        self.session = session
        self.socket = socket
        clients = Array(repeating: nil, count: NBDLimits.negotiatingClients)
        openSpare()
    }

    deinit {
        for client in clients { if let client { _ = parallax_socket_close(client.socketFD) } }
        for handover in handovers { handover.refuse() }
        if spareFD >= 0 { close(spareFD) }
        scratch.deallocate()
    }

    /// Connections that have not chosen an export yet.
    package var negotiatingCount: Int { clients.count { $0 != nil } }

    /// From now on these are served. Connections that have their export keep it.
    package mutating func setExports(_ exports: NBDExportTable) { self.exports = exports }

    package mutating func start<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        precondition(!isRunning, "NBDListener: started twice")
        isRunning = true
        registrar.watch(
            fileDescriptor: socket.fileDescriptor, token: token(0), interest: .readable)
    }

    /// Hangs up on everybody in negotiation. The value is to be thrown away afterwards; that
    /// closes the socket and removes its path.
    package mutating func stop<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        guard isRunning else { return }
        isRunning = false
        registrar.unwatch(token: token(0))
        for slot in clients.indices { drop(slot, registrar: &registrar) }
        while let handover = takeHandover() { handover.refuse() }
    }

    /// The next connection that has chosen its export. To be called until nil after each event.
    package mutating func takeHandover() -> NBDHandover? {
        handovers.isEmpty ? nil : handovers.removeFirst()
    }

    package mutating func handleEvent<Registrar: EventRegistrar & ~Copyable>(
        source: UInt32, interest: EventInterest, registrar: inout Registrar
    ) {
        guard isRunning else { return }
        if source == 0 {
            acceptClients(registrar: &registrar)
        } else if source <= UInt32(clients.count) {
            converse(Int(source) - 1, registrar: &registrar)
        }
    }

    func token(_ source: UInt32) -> EventToken { EventToken(session: session, source: source) }

    // MARK: Arrival

    private mutating func acceptClients<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) {
        for _ in 0..<NBDLimits.acceptsPerTurn {
            let accepted = parallax_accept(socket.fileDescriptor, 1)
            if accepted == -EMFILE || accepted == -ENFILE { return turnAway() }
            if accepted == -ECONNABORTED { continue }
            guard accepted >= 0 else { return }
            let slot = freeSlot(registrar: &registrar)
            clients[slot] = Client(socketFD: accepted, serial: nextSerial)
            nextSerial += 1
            converse(slot, registrar: &registrar)
        }
    }

    private mutating func freeSlot<Registrar: EventRegistrar & ~Copyable>(
        registrar: inout Registrar
    ) -> Int {
        var oldest = 0
        var oldestSerial = UInt64.max
        for slot in clients.indices {
            guard let serial = clients[slot]?.serial else { return slot }
            if serial < oldestSerial { (oldest, oldestSerial) = (slot, serial) }
        }
        drop(oldest, registrar: &registrar)
        return oldest
    }

    /// No file descriptor is left in this process: hang up on the newcomer.
    private mutating func turnAway() {
        guard spareFD >= 0 else { return openSpare() }
        close(spareFD)
        let accepted = parallax_accept(socket.fileDescriptor, 1)
        if accepted >= 0 { _ = parallax_socket_close(accepted) }
        openSpare()
    }

    private mutating func openSpare() { spareFD = open("/dev/null", O_RDONLY | O_CLOEXEC) }
}
