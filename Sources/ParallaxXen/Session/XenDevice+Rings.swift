// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

extension XenDevice {
    /// Maps each ring and binds its event channel. What has been mapped when it fails is released
    /// with the rest.
    mutating func mapRings<R: EventRegistrar & ~Copyable>(
        _ plan: ConnectionPlan, _ registrar: inout R
    ) throws(XenFault) {
        precondition(queueCount == 0, "XenDevice I2: connected twice")
        guard state.grants.open(domain: node.domain) else { throw .noGrantDevice }
        state.isPersistent = plan.isPersistent
        for index in plan.queues.indices {
            queueCount = index + 1
            try mapRing(index, plan.queues[index], plan.layout)
            guard var event = EventChannel(library) else { throw .noEventDevice }
            guard event.bind(domain: node.domain, remotePort: plan.queues[index].eventChannel)
            else { throw .badEventChannel(queue: index) }
            registrar.watch(
                fileDescriptor: event.fileDescriptor,
                token: token(Source.firstQueue + UInt32(index)), interest: .readable)
            queues[index].listen(consume event)
        }
    }

    private mutating func mapRing(
        _ index: Int, _ queue: ConnectionPlan.Queue, _ layout: BlkifLayout
    ) throws(XenFault) {
        let count = queue.references.count
        let base = queue.references.withUnsafeBufferPointer { references in
            references.baseAddress.flatMap {
                state.grants.map($0, count: count, isWritable: true)
            }
        }
        guard let base else { throw .badRingReference(queue: index) }
        let ring = SharedRing(base: base, pageCount: count, layout: layout)
        if let fault = queues[index].connect(ring) {
            state.grants.unmap(base, count: count)
            throw fault
        }
    }

    /// Unmaps everything and unbinds the event channels (I2); the last answers go out before.
    mutating func releaseRings() {
        guard queueCount > 0 else { return }
        touchedQueues = (1 << UInt32(queueCount)) - 1
        publishTouched()
        for index in 0..<queueCount {
            if let ring = queues[index].takeRing() {
                state.grants.unmap(ring.base, count: ring.pageCount)
            }
        }
        queueCount = 0
        stalledQueues = 0
        if ours == .connected || ours == .closing { give(.disconnected(counters)) }
        state.releaseGrants()
    }
}
