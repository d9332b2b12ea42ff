// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension ExtentTable {
    /// How fast an extent loses what lives in it.
    struct Decay: BitwiseCopyable {
        /// Live blocks when it was last measured, and when that was, in blocks of log.
        var live: UInt32 = 0
        var clock: UInt64 = 0
        /// Blocks that died for each block of log, then.
        var rate = Float.infinity

        /// Deaths that make a measurement: fewer would be chance. Each counts for a quarter.
        private static let sample: UInt32 = 64

        /// The rate of late. When few have died for long, that says something, too.
        mutating func update(live now: UInt32, clock present: UInt64) -> Float {
            guard live >= now else {
                // The first look at it.
                self = Decay(live: now, clock: present)
                return rate
            }
            let deaths = live - now
            let time = Float(present - clock + 1)
            let recent = Float(deaths + 1) / time
            if deaths >= Self.sample {
                let mean = rate.isFinite ? (3 * rate + recent) / 4 : recent
                self = Decay(live: now, clock: present, rate: mean)
            }
            let isOverdue = !rate.isFinite || time > 2 * Float(Self.sample) / rate
            return isOverdue ? min(rate, recent) : rate
        }
    }
}
