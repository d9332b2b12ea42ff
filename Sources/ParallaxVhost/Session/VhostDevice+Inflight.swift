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
        guard serves(area.settings) else { return .rejected(.inflightAreaRejected) }
        publishAll()
        for index in 0..<VhostLimits.queueCountMax {
            queues[index].tracking = InflightTracking(in: area.queue(index))
        }
        // What is kept there was chosen by the guest of this front end, whoever served it then.
        if let kept = area.settings?.loadWriteback() {
            state.isWriteback = kept
        } else {
            area.settings?.storeWriteback(state.isWriteback)
        }
        inflight = consume area
        return .done
    }

    /// Whether the guest that the area belongs to may go on here. Other disks may have been served
    /// at the same path before: a running guest has its disk's files in memory, and the area its
    /// unanswered writes, and neither may come to this disk. An area that no disk is named in is
    /// new, or an older daemon made it.
    private mutating func serves(_ settings: InflightSettings?) -> Bool {
        guard let settings, let attached = export.identity else { return true }
        guard let kept = settings.loadDisk() else {
            settings.storeDisk(attached)
            return true
        }
        guard kept != attached else { return true }
        give(.areaOfAnotherDisk(kept, attached: attached))
        return false
    }
}
