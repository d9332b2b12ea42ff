// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

extension VhostDevice {
    /// Makes a new area. The front end gives it back before it starts the queues: at once, and
    /// each time that it connects again.
    mutating func getInflightArea(_ asked: InflightDescription, _ request: UInt32) -> Outcome {
        guard
            let layout = InflightLayout(queueCount: asked.queueCount, queueSize: asked.queueSize)
        else { return .rejected(.inflightAreaRejected) }
        guard let file = InflightArea.makeFile(layout) else {
            give(.outOfFileDescriptors)
            return .rejected(.inflightAreaRejected)
        }
        var made = asked
        made.byteCount = UInt64(layout.byteCount)
        made.offset = 0
        connection?.attach(file)
        return .reply(Reply(to: request, area: made))
    }

    /// The queues use the area from their next start on.
    mutating func setInflightArea(_ description: InflightDescription) -> Outcome {
        guard let file = connection?.takeFile() else {
            return .rejected(.wrongFileDescriptorCount)
        }
        let isIdle = (0..<VhostLimits.queueCountMax).allSatisfy { !queues[$0].isStarted }
        guard isIdle, state.inFlight == 0 else { return .rejected(.queueBusy) }
        guard let area = InflightArea(description, file: file) else {
            return .rejected(.inflightAreaRejected)
        }
        publishAll()
        for index in 0..<VhostLimits.queueCountMax {
            queues[index].tracking = InflightTracking(in: area.queue(index))
        }
        // What is kept there was chosen by the guest of this front end, whoever served it then.
        if let kept = area.loadWriteback() {
            state.isWriteback = kept
        } else {
            area.storeWriteback(state.isWriteback)
        }
        inflight = consume area
        return .done
    }
}
