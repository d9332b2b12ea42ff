// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What goes wrong on a `SimulatedDevice`. Each fault happens once in that many commands, on
/// average; 0 switches it off, so that a run can ask for progress on a healthy device.
package struct FaultPlan: Sendable, Equatable {
    /// EIO instead of data.
    package var readErrorOneIn = 0
    /// EIO; each sector of the write may have been written nevertheless.
    package var writeErrorOneIn = 0
    /// EIO; nothing becomes durable by it, and what it covered may be lost for good although a
    /// read still returns it (what Linux does with dirty pages after a failed `fsync`).
    package var syncErrorOneIn = 0
    /// The command takes many times as long as others.
    package var slowOneIn = 0
    /// Success is reported, nothing is written.
    package var lostWriteOneIn = 0
    /// Success is reported, the data goes to another place.
    package var misdirectedWriteOneIn = 0
    /// Success is reported, nothing becomes durable.
    package var lyingSyncOneIn = 0
    /// One bit of what a read returns is wrong; the medium is as it was. Once in that many pieces
    /// of 64 KiB.
    package var flippedReadOneIn = 0
    /// ENOSPC: what a thinly provisioned device says; nothing is written.
    package var fullDeviceOneIn = 0

    package init() {}

    package static var none: FaultPlan { FaultPlan() }

    /// The device breaks promises that it says it keeps: after a crash the engine cannot know.
    package var isDishonest: Bool {
        lostWriteOneIn > 0 || misdirectedWriteOneIn > 0 || lyingSyncOneIn > 0
    }
}

/// How the machine under the device stops.
package enum CrashMode: Sendable, CaseIterable {
    /// The process dies (`kill -9`): what was completed stays, each command in flight may have
    /// been executed in whole, in part or not at all.
    case processLoss
    /// The power fails: of everything that no completed sync covers, any part may survive.
    case powerLoss
}

/// How much of what was not yet safe survives a crash.
package enum Survival: Sendable, CaseIterable {
    case nothing
    case everything
    /// Each write in whole or not at all.
    case someWrites
    /// Each sector of its own: torn writes.
    case someSectors
    /// The oldest in whole, one in part, the rest not.
    case prefix
}
