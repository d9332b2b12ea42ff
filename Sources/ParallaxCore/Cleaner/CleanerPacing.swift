// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// How hard the cleaner works. Between the start threshold and nothing free it does, for each block
/// that guests write, as much as keeps the free space where it is a third below the threshold;
/// less above, more below. Guests wait for it only when nothing is left.
struct CleanerPacing {
    /// Blocks of victims that it may read.
    var credit = 0
    /// Writes wait for space: it works as fast as it can.
    var isUrgent = false
    /// Rounds since then, or since the log got an extent, that have not helped.
    var urgentRounds = 0
    /// Live blocks when cleaning turned out to gain nothing: it is not tried again before some die.
    var hopelessAt: Int?
    /// Free slots that somebody has asked for; nil: nobody.
    var goal: Int?
    var goalRounds = 0
    /// There is nowhere to move to, and no slot for it: the next checkpoint takes one from the log.
    var needsLease = false
    /// It has begun: less is free than the threshold.
    var isCleaning: Bool { credit > 0 }
    /// Free slots of the store, for all streams.
    var freeSlots = Int.max
}
