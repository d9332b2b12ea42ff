// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation

@testable import ParallaxCore

/// Checking and repairing small stores.
extension SmallStore {
    static var checkOptions: StoreCheck.Options {
        var options = StoreCheck.Options()
        options.nodeCacheBytes = 256 * blockBytes
        return options
    }

    static func check(_ medium: some StoreMedium, data: Bool = true) -> CheckReport {
        var options = checkOptions
        options.verifiesData = data
        return StoreCheck.run(medium: medium, options: options)
    }

    typealias Repaired = (before: CheckReport, after: CheckReport, found: Comparison)

    /// Repairs `device`, on which the disks of this store are, opens it, and compares it with the
    /// model.
    func repair(_ device: SimulatedDevice) throws -> Repaired {
        let repair = try StoreRepair(medium: device, options: Self.checkOptions)
        try repair.apply()
        let after = Self.check(device)
        let reopened = try SmallStore(copying: self, device: device)
        return (repair.before, after, try reopened.compare(within: 0..<320))
    }
}

/// Looking into the engines, and damaging what they write.
extension SmallStore {
    /// Writes each block in a chunk of its own, all of them durable; returns where the chunks are: the
    /// header, and the data behind it.
    func writeSingly(_ vdi: String, _ blocks: Range<UInt64>) throws -> [UInt64] {
        var offsets: [UInt64] = []
        for block in blocks {
            let before = Set(device.touchedPages)
            try write(vdi, block..<block + 1)
            try flush(vdi)
            offsets.append((Set(device.touchedPages).subtracting(before).min() ?? 0) * 4096)
        }
        return offsets
    }

    /// What the first shard's engine knows.
    func look<Result>(_ body: (borrowing Engine) throws -> Result) rethrows -> Result {
        try body(engines[0].engine)
    }

    /// Makes an engine believe what is not so. The next checkpoint writes it down.
    func mislead<Result>(
        _ stream: Int = 0, _ body: (inout Engine) throws -> Result
    ) rethrows -> Result {
        engines[stream].engine.changesSinceFreeze += 1
        return try body(&engines[stream].engine)
    }
}
