// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore

/// The conversation with one client in negotiation.
extension NBDListener {
    private enum Step {
        /// Something moved; there may be more to do at once.
        case moved
        case waits(EventInterest)
        case isOver
    }

    /// Goes on with one client until it has to wait, is done, or has had its share of the turn.
    mutating func converse<Registrar: EventRegistrar & ~Copyable>(
        _ slot: Int, registrar: inout Registrar
    ) {
        for _ in 0..<NBDLimits.negotiationStepsPerTurn {
            guard clients[slot] != nil else { return }
            switch step(slot) {
            case .moved: continue
            case .waits(let interest):
                return wait(slot, for: interest, registrar: &registrar)
            case .isOver:
                return conclude(slot, registrar: &registrar)
            }
        }
        let hasOutput = clients[slot]?.negotiation.output.isEmpty == false
        wait(slot, for: hasOutput ? .writable : .readable, registrar: &registrar)
    }

    private mutating func step(_ slot: Int) -> Step {
        guard let client = clients[slot] else { return .isOver }
        if !client.negotiation.output.isEmpty { return send(slot, client) }
        if client.negotiation.outcome != nil { return .isOver }
        return receive(slot, client)
    }

    private mutating func send(_ slot: Int, _ client: Client) -> Step {
        let output = client.negotiation.output
        let count = output.withUnsafeBytes {
            parallax_send(client.socketFD, $0.baseAddress, $0.count)
        }
        if count == -Int(EAGAIN) { return .waits(.writable) }
        guard count > 0 else { return .isOver }
        clients[slot]?.negotiation.sent(count, exports: exports)
        return .moved
    }

    private mutating func receive(_ slot: Int, _ client: Client) -> Step {
        let wanted = min(client.negotiation.bytesWanted, scratch.count)
        let count = parallax_receive(client.socketFD, scratch.baseAddress, wanted)
        if count == -Int(EAGAIN) { return .waits(.readable) }
        guard count > 0 else { return .isOver }
        clients[slot]?.negotiation.receive(
            UnsafeRawBufferPointer(rebasing: scratch[..<count]), exports: exports)
        return .moved
    }

    private mutating func wait<Registrar: EventRegistrar & ~Copyable>(
        _ slot: Int, for interest: EventInterest, registrar: inout Registrar
    ) {
        guard let client = clients[slot], client.interest != interest else { return }
        clients[slot]?.interest = interest
        registrar.watch(
            fileDescriptor: client.socketFD, token: token(UInt32(slot) + 1), interest: interest)
    }

    /// Hands the connection over if an agreement was reached and said; otherwise hangs up.
    private mutating func conclude<Registrar: EventRegistrar & ~Copyable>(
        _ slot: Int, registrar: inout Registrar
    ) {
        guard let client = clients[slot] else { return }
        guard client.negotiation.output.isEmpty,
            case .transmission(let agreement) = client.negotiation.outcome
        else { return drop(slot, registrar: &registrar) }
        forget(slot, client, registrar: &registrar)
        handovers.append(NBDHandover(agreement: agreement, socketFD: client.socketFD))
    }

    mutating func drop<Registrar: EventRegistrar & ~Copyable>(
        _ slot: Int, registrar: inout Registrar
    ) {
        guard let client = clients[slot] else { return }
        forget(slot, client, registrar: &registrar)
        _ = parallax_socket_close(client.socketFD)
    }

    private mutating func forget<Registrar: EventRegistrar & ~Copyable>(
        _ slot: Int, _ client: Client, registrar: inout Registrar
    ) {
        if !client.interest.isEmpty { registrar.unwatch(token: token(UInt32(slot) + 1)) }
        clients[slot] = nil
    }
}
