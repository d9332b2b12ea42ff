// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

extension VhostDevice {
    /// What a message deserves.
    enum Outcome: BitwiseCopyable {
        case done
        case reply(Reply)
        /// The front end broke the protocol.
        case rejected(MessageFault)
        /// The guest asked for something impossible; its queue does not run.
        case refused(MessageFault)
        /// Neither known nor offered; not worth ending the connection.
        case unsupported
        /// The answer comes when requests in flight have ended.
        case waiting(Waiting)
    }

    mutating func serve<R: EventRegistrar & ~Copyable>(
        _ message: FrontendMessage, _ header: MessageHeader, _ registrar: inout R
    ) {
        let outcome = perform(message, header, &registrar)
        conclude(outcome, header, &registrar)
    }

    /// Sends the reply or the acknowledgement. A request that fails and cannot be answered ends
    /// the connection, as the front end would go on in a wrong belief.
    mutating func conclude<R: EventRegistrar & ~Copyable>(
        _ outcome: Outcome, _ header: MessageHeader, _ registrar: inout R
    ) {
        let acknowledges =
            header.needsReply && connection?.protocolFeatures.contains(.replyAck) == true
        var reply: Reply?
        switch outcome {
        case .done: reply = acknowledges ? Reply(to: header.request, number: 0) : nil
        case .reply(let answer): reply = answer
        case .unsupported:
            give(.unsupportedRequest(header.request))
            reply = acknowledges ? Reply(to: header.request, number: 1) : nil
        case .refused(let fault):
            give(.protocolFault(request: header.request, fault))
            reply = acknowledges ? Reply(to: header.request, number: 1) : nil
        case .rejected(let fault):
            count.protocolFaults += 1
            give(.protocolFault(request: header.request, fault))
            guard acknowledges else { return disconnect(&registrar) }
            reply = Reply(to: header.request, number: 1)
        case .waiting(let message):
            waiting = (message, header)
            return finishWaiting(&registrar)
        }
        connection?.closeFiles()
        guard let reply, connection?.send(reply) == false else { return }
        count.protocolFaults += 1
        give(.protocolFault(request: header.request, .repliesNotRead))
        disconnect(&registrar)
    }

    private mutating func perform<R: EventRegistrar & ~Copyable>(
        _ message: FrontendMessage, _ header: MessageHeader, _ registrar: inout R
    ) -> Outcome {
        let request = header.request
        switch message {
        case .getFeatures:
            return .reply(Reply(to: request, number: offeredFeatures.rawValue))
        case .setFeatures(let features): return setFeatures(features)
        case .setOwner, .setLogFileDescriptor: return .done
        case .resetOwner: return disableAll()
        case .getProtocolFeatures:
            return .reply(Reply(to: request, number: ProtocolFeatures.offered.rawValue))
        case .setProtocolFeatures(let features): return setProtocolFeatures(features)
        case .getQueueCount:
            return .reply(Reply(to: request, number: UInt64(VhostLimits.queueCountMax)))
        case .setBackendRequestSocket:
            let file = connection?.takeFile()
            connection?.backendRequests = file
            return .done
        case .getConfig(let access): return getConfig(access, request)
        case .setConfig(let access): return setConfig(access)
        case .getInflightArea(let asked): return getInflightArea(asked, request)
        case .setInflightArea(let area): return setInflightArea(area)
        case .getMemorySlots:
            return .reply(Reply(to: request, number: UInt64(VhostLimits.memoryRegionsMax)))
        case .setMemoryTable(let table): return .waiting(.memoryTable(table))
        case .addMemoryRegion(let region): return addRegion(region)
        case .removeMemoryRegion(let region): return .waiting(.removeMemoryRegion(region))
        case .setQueueSize(let value): return setQueueSize(value)
        case .setQueueAddresses(let value): return setQueueAddresses(value)
        case .setQueueBase(let value): return setQueueBase(value)
        case .getQueueBase(let value): return getQueueBase(value, &registrar)
        case .setQueueEnable(let value): return setQueueEnable(value)
        case .setQueueKick(let value): return setKick(value, &registrar)
        case .setQueueCall(let value): return setCall(value)
        case .setQueueError(let value): return setError(value)
        case .unsupported: return .unsupported
        }
    }

    private var offeredFeatures: VirtioFeatures { .offered(readOnly: state.isReadOnly) }

    private mutating func setFeatures(_ features: VirtioFeatures) -> Outcome {
        guard offeredFeatures.isSuperset(of: features) else {
            return .rejected(.featureNotOffered)
        }
        state.features = features
        return .done
    }

    private mutating func setProtocolFeatures(_ features: ProtocolFeatures) -> Outcome {
        guard ProtocolFeatures.offered.isSuperset(of: features) else {
            return .rejected(.featureNotOffered)
        }
        connection?.protocolFeatures = features
        return .done
    }

    private mutating func disableAll() -> Outcome {
        for index in 0..<VhostLimits.queueCountMax { queues[index].isEnabled = false }
        return .done
    }

    /// A new front end reads the configuration before it starts the queues, and finds writeback
    /// on. One that connects again does not, and its guest still relies on what it had chosen.
    private mutating func getConfig(_ access: ConfigAccess, _ request: UInt32) -> Outcome {
        let isStarted = (0..<VhostLimits.queueCountMax).contains { queues[$0].isStarted }
        let isNew = connection?.hasReadConfig == false && !isStarted && inflight == nil
        if isNew { state.isWriteback = true }
        connection?.hasReadConfig = true
        let end = UInt64(access.offset) + UInt64(access.byteCount)
        guard end <= UInt64(ConfigAccess.spaceByteCountMax) else {
            return .reply(Reply(failing: request))
        }
        let config = BlockConfig(
            sectors: state.sectors, isWriteback: state.isWriteback, readOnly: state.isReadOnly)
        return .reply(Reply(to: request, access: access, config: config))
    }

    /// Only the guest's choice of writeback can be written, and not by a migration.
    private mutating func setConfig(_ access: ConfigAccess) -> Outcome {
        guard access.offset == BlockConfig.writebackOffset, access.byteCount == 1,
            access.flags == 0, access.firstByte <= 1
        else { return .rejected(.configAccess) }
        state.isWriteback = access.firstByte == 1
        inflight?.settings?.storeWriteback(state.isWriteback)
        return .done
    }
}
