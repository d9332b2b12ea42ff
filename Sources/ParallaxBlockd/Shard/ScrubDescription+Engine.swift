// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore

/// A scrub as the engine and as the control plane see it.
extension ScrubDescription {
    init(_ status: ScrubStatus, _ statistics: EngineStatistics) {
        self.init()
        running = status.isRunning
        finished = status.isFinished
        extent = status.position
        lastLogExtent = status.lastLog
        lastColdExtent = status.lastCold
        verifiedBytes = status.verifiedBlocks * UInt64(blockBytes)
        totalBytes = status.totalBlocks * UInt64(blockBytes)
        damagedBlocks = status.damagedBlocks
        readBytes = statistics.scrubbedBytes
        damagedBlocksEver = statistics.scrubDamagedBlocks
    }
}

extension ScrubStatus {
    /// nil: it had not begun.
    init?(_ description: ScrubDescription) {
        guard description.totalBytes > 0 || description.lastLogExtent > 0 else { return nil }
        self.init()
        position = description.extent
        lastLog = description.lastLogExtent
        lastCold = description.lastColdExtent
        verifiedBlocks = description.verifiedBytes / UInt64(blockBytes)
        totalBlocks = description.totalBytes / UInt64(blockBytes)
        damagedBlocks = description.damagedBlocks
    }
}
