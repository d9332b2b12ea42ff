// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

extension VhostDevice {
    /// Adding needs no wait: nothing that is in use moves.
    mutating func addRegion(_ region: MemoryRegion) -> Outcome {
        guard let file = connection?.takeFile() else {
            return .rejected(.wrongFileDescriptorCount)
        }
        do throws(MemoryFault) {
            try state.memory.add(region, fileDescriptor: file.number)
        } catch {
            give(.memoryRejected(error))
            return .rejected(.memoryRejected)
        }
        for index in 0..<VhostLimits.queueCountMax
        where queues[index].ring == nil && queues[index].inFlight == 0 {
            queues[index].map(in: state.memory)
            queues[index].resume(&state)
        }
        return .done
    }

    /// Serves the message that waits, once the requests that it concerns have their replies.
    mutating func finishWaiting<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        guard let (message, header) = waiting, phase == .connected else { return }
        switch message {
        case .queueBase(let value):
            let queue = Int(value.queue)
            guard queues[queue].inFlight == 0 else { return }
            publishAll()
            queues[queue].giveBack()
            let base = UInt32(queues[queue].nextAvailable)
            let reply = Reply(to: header.request, queue: value.queue, number: base)
            endWaiting(.reply(reply), header, &registrar)
        case .memoryTable(let table):
            guard isQuiet() else { return }
            endWaiting(changeMemory { device in device.replaceMemory(table) }, header, &registrar)
        case .removeMemoryRegion(let region):
            guard isQuiet() else { return }
            endWaiting(changeMemory { device in device.removeRegion(region) }, header, &registrar)
        }
    }

    /// Answers, and listens again to the messages behind.
    private mutating func endWaiting<R: EventRegistrar & ~Copyable>(
        _ outcome: Outcome, _ header: MessageHeader, _ registrar: inout R
    ) {
        waiting = nil
        watchConnection(&registrar)
        conclude(outcome, header, &registrar)
    }

    /// True when no request is in flight; otherwise no further one is taken until then.
    private mutating func isQuiet() -> Bool {
        state.isPaused = state.inFlight > 0
        return !state.isPaused
    }

    private mutating func changeMemory(_ change: (inout VhostDevice) -> Outcome) -> Outcome {
        publishAll()
        let outcome = change(&self)
        for index in 0..<VhostLimits.queueCountMax {
            queues[index].map(in: state.memory)
            queues[index].resume(&state)
        }
        return outcome
    }

    private mutating func replaceMemory(_ table: MemoryTable) -> Outcome {
        state.memory.removeAll()
        for index in 0..<table.count {
            guard let file = connection?.takeFile() else {
                return .rejected(.wrongFileDescriptorCount)
            }
            do throws(MemoryFault) {
                try state.memory.add(table[index], fileDescriptor: file.number)
            } catch {
                state.memory.removeAll()
                give(.memoryRejected(error))
                return .rejected(.memoryRejected)
            }
        }
        return .done
    }

    private mutating func removeRegion(_ region: MemoryRegion) -> Outcome {
        do throws(MemoryFault) {
            try state.memory.remove(region)
            return .done
        } catch {
            give(.memoryRejected(error))
            return .rejected(.memoryRejected)
        }
    }
}
