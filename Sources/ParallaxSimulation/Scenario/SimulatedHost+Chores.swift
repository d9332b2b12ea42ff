// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Quotas that come and go while guests write, and scrubs beside them.
extension SimulatedHost {
    /// Often about what the disk has, so that what is under way meets the limit.
    func ration() {
        guard let disk = randomDisk() else { return }
        let size = disk.sizes.min() ?? 0
        let held =
            streams[disk.stream].engine?.disks()
            .first { $0.identifier.rawValue == disk.identifier }?.allocatedBytes ?? 0
        let block = UInt64(blockBytes)
        let quota: UInt64 =
            switch random.index(below: 4) {
            case 0: 0
            case 1: UInt64(random.integer(in: 1...Int(max(size / block, 1)))) * block
            default: max(held + UInt64(random.integer(in: 0...64)) * block, 33 * block) - 32 * block
            }
        change(
            .setAttributes(
                VDIIdentifier(disk.identifier),
                VDIAttributes(isTemplate: disk.mustBeTemplate, quotaBytes: quota)),
            on: streams[disk.stream])
    }

    /// Begins one, slow or fast, from the beginning.
    func scrub() {
        let stream = streams[random.index(below: streams.count)]
        stream.engine?.startScrub(bytesPerSecond: 1 << UInt64(random.integer(in: 20...34)))
    }

    /// Before a wait for engines that have nothing to do.
    func stopScrubs() {
        for stream in streams { stream.engine?.stopScrub() }
    }

    /// Whatever is written, moved and given back meanwhile: there is damage, or nothing to report.
    func drainScrubFindings(_ stream: SimulatedStream) throws(SimulationFailure) {
        while let finding = stream.engine?.nextScrubFinding() {
            guard mayBeDamaged || device.statistics.troubles > 0 else {
                throw SimulationFailure("the scrub of stream \(stream.index) found: \(finding)")
            }
        }
    }
}
