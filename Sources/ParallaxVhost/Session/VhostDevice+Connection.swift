// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore

extension VhostDevice {
    /// Accepts the first front end and turns away others while it is there.
    mutating func acceptFrontEnds<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        // One that has died while a message of it waits is not heard of otherwise. Its successor stays in
        // the queue until what is in flight has ended.
        if phase == .connected, connection?.hasPeerGone ?? false {
            give(.disconnected(duringMessage: false))
            return disconnect(&registrar)
        }
        for _ in 0..<VhostLimits.acceptsPerTurnMax {
            guard let number = listener?.number else { return }
            let accepted = parallax_accept(number, 1)
            guard accepted >= 0 else {
                if accepted == -EMFILE || accepted == -ENFILE { turnAway(number) }
                return
            }
            guard phase == .listening, !state.isBarred else {
                state.strangeFileCount += Int(parallax_socket_close(accepted))
                give(state.isBarred ? .refusedAsBarred : .refusedSecondFrontEnd)
                continue
            }
            connection = Connection(adopting: accepted)
            phase = .connected
            count.connections += 1
            noticesGiven = 0
            give(.connected)
            watchConnection(&registrar)
        }
    }

    mutating func watchConnection<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        guard let number = connection?.socket.number else { return }
        registrar.watch(
            fileDescriptor: number, token: token(Source.connection), interest: .readable)
    }

    static func makeSpare() -> OwnedFileDescriptor? {
        let number = open("/dev/null", O_RDONLY | O_CLOEXEC)
        return number >= 0 ? OwnedFileDescriptor(adopting: number) : nil
    }

    /// Out of file descriptors. A front end that is left in the queue would wake us in each turn
    /// for ever, so the spare descriptor makes room to accept it and hang up.
    private mutating func turnAway(_ listener: Int32) {
        spare = nil
        let accepted = parallax_accept(listener, 1)
        if accepted >= 0 { state.strangeFileCount += Int(parallax_socket_close(accepted)) }
        spare = Self.makeSpare()
        give(.outOfFileDescriptors)
    }

    mutating func receiveMessages<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        for _ in 0..<VhostLimits.messagesPerTurnMax {
            guard phase == .connected else { return }
            // A message that waits for replies holds back those behind it, and their readiness
            // must not wake us in each turn meanwhile.
            guard waiting == nil else {
                registrar.unwatch(token: token(Source.connection))
                return
            }
            do throws(Connection.End) {
                guard let (header, message) = try connection?.receive() else { return }
                serve(message, header, &registrar)
            } catch {
                end(error, &registrar)
            }
        }
    }

    private mutating func end<R: EventRegistrar & ~Copyable>(
        _ end: Connection.End, _ registrar: inout R
    ) {
        switch end {
        case .closedByPeer(let duringMessage):
            give(.disconnected(duringMessage: duringMessage))
        case .strangeFiles(let fileCount):
            count.protocolFaults += 1
            state.strangeFileCount += fileCount
            give(.strangeFile)
        case .fault(let fault):
            count.protocolFaults += 1
            give(.protocolFault(request: connection?.request ?? 0, fault))
        }
        disconnect(&registrar)
    }

    /// The front end has gone or is to go. Its memory stays mapped while the engine may use it,
    /// and no new front end is accepted before that ends.
    mutating func disconnect<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        quieten(&registrar)
        forgetFrontEnd()
        touchedQueues = 0
        stalledQueues = 0
        registrar.unwatch(token: token(Source.listener))
        phase = .draining
        if state.inFlight == 0 { returnToListening(&registrar) }
    }

    /// No events of the connection any more, and no new requests.
    mutating func quieten<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        registrar.unwatch(token: token(Source.connection))
        for index in 0..<VhostLimits.queueCountMax {
            if queues[index].kick != nil { registrar.unwatch(token: kickToken(index)) }
            queues[index].stop()
        }
        waiting = nil
        state.isPaused = false
    }

    func kickToken(_ queue: Int) -> EventToken { token(Source.firstKick + UInt32(queue)) }

    mutating func returnToListening<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        state.memory.reset()
        state.features = []
        phase = .listening
        watchListener(&registrar)
    }

    mutating func finishStopping<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        forgetFrontEnd()
        state.memory.reset()
        phase = .stopped
    }

    private mutating func forgetFrontEnd() {
        for index in 0..<VhostLimits.queueCountMax { queues[index].reset() }
        inflight = nil
        state.strangeFileCount += connection?.hangUp() ?? 0
        connection = nil
    }
}
