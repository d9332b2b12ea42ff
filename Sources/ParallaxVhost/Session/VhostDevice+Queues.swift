// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

extension VhostDevice {
    /// A queue is set up while it is stopped; a repetition of what holds already is harmless.
    mutating func setQueueSize(_ value: QueueNumber) -> Outcome {
        let queue = Int(value.queue)
        if UInt32(queues[queue].size) == value.number { return .done }
        guard isIdle(queue) else { return .rejected(.queueBusy) }
        let isLegal = queues[queue].resize(to: value.number)
        queues[queue].map(in: state.memory)
        return isLegal ? .done : .refused(.wrongQueueSize)
    }

    mutating func setQueueAddresses(_ value: QueueAddresses) -> Outcome {
        let queue = Int(value.queue)
        if queues[queue].isAt(value) { return .done }
        guard isIdle(queue) else { return .rejected(.queueBusy) }
        queues[queue].locate(value)
        queues[queue].map(in: state.memory)
        guard queues[queue].ring != nil else {
            give(.queueBroken(queue: value.queue, .ringOutsideMemory))
            return .refused(.memoryRejected)
        }
        return .done
    }

    mutating func setQueueBase(_ value: QueueNumber) -> Outcome {
        let queue = Int(value.queue)
        guard let base = UInt16(exactly: value.number) else { return .rejected(.wrongQueueSize) }
        guard isIdle(queue) else { return .rejected(.queueBusy) }
        queues[queue].nextAvailable = base
        return .done
    }

    private func isIdle(_ queue: Int) -> Bool {
        !queues[queue].isStarted && queues[queue].inFlight == 0
    }

    /// Stops the queue at once; the answer waits for its last reply.
    mutating func getQueueBase<R: EventRegistrar & ~Copyable>(
        _ value: QueueNumber, _ registrar: inout R
    ) -> Outcome {
        let queue = Int(value.queue)
        if queues[queue].kick != nil { registrar.unwatch(token: kickToken(queue)) }
        queues[queue].stop()
        stalledQueues &= ~(1 << value.queue)
        return .waiting(.queueBase(value))
    }

    mutating func setQueueEnable(_ value: QueueNumber) -> Outcome {
        let queue = Int(value.queue)
        guard value.number <= 1 else { return .rejected(.wrongQueueSize) }
        queues[queue].isEnabled = value.number == 1
        queues[queue].resume(&state)
        return .done
    }

    /// The kick's descriptor starts the queue. Without F_PROTOCOL_FEATURES there is no message to
    /// enable it, and it starts enabled.
    mutating func setKick<R: EventRegistrar & ~Copyable>(
        _ value: QueueFileDescriptor, _ registrar: inout R
    ) -> Outcome {
        let queue = Int(value.queue)
        // Without one we would have to poll, and a device that nobody uses would burn a core.
        guard value.hasFileDescriptor else { return .rejected(.kickWithoutFileDescriptor) }
        guard let event = takeEvent() else { return .rejected(.wrongKindOfFileDescriptor) }
        if queues[queue].kick != nil { registrar.unwatch(token: kickToken(queue)) }
        registrar.watch(
            fileDescriptor: event.file.number, token: kickToken(queue), interest: .readable)
        queues[queue].kick = consume event
        if !state.features.contains(.protocolFeatures) { queues[queue].isEnabled = true }
        if !queues[queue].isStarted { queues[queue].start(in: state.memory) }
        queues[queue].resume(&state)
        return .done
    }

    mutating func setCall(_ value: QueueFileDescriptor) -> Outcome {
        let queue = Int(value.queue)
        queues[queue].call = nil
        guard value.hasFileDescriptor else { return .done }
        guard let event = takeEvent() else { return .rejected(.wrongKindOfFileDescriptor) }
        // What was signalled on the descriptor before may never reach the guest.
        if queues[queue].isStarted { event.signal(&state) }
        queues[queue].call = consume event
        return .done
    }

    mutating func setError(_ value: QueueFileDescriptor) -> Outcome {
        let queue = Int(value.queue)
        queues[queue].error = nil
        guard value.hasFileDescriptor else { return .done }
        guard let event = takeEvent() else { return .rejected(.wrongKindOfFileDescriptor) }
        queues[queue].error = consume event
        return .done
    }

    private mutating func takeEvent() -> SharedEvent? {
        guard let file = connection?.takeFile() else { return nil }
        return SharedEvent(adopting: file)
    }
}
