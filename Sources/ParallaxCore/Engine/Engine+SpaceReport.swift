// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// How the stream's space is used, for people to look at.
    func addSpace(to statistics: inout EngineStatistics) {
        statistics.leasedExtents += cleaner.spares.count
        statistics.logRoomBlocks = UInt64(log.extentBlocks - log.head)
        if cleaner.isColdOpen {
            statistics.logRoomBlocks += UInt64(log.extentBlocks - cleaner.cold.filled)
        }
        statistics.reservedBlocks = UInt64(blocksToLeave(by: .data))
        let reclaim = catalog.reclaim
        statistics.isReclaiming = reclaim.job?.purpose == .free
        statistics.reclaimsWaiting = reclaim.deletions.count + reclaim.vdis.count
    }
}
