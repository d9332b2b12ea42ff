// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Whether the part's VDI may be charged with what the part writes. If not the part is over:
    /// there is no space for it. What replaces blocks of the head itself costs nothing, so it is
    /// always admitted; blocks that several writes under way would make are counted for each.
    ///
    /// The leaf is in memory, or there is none.
    mutating func admitCharge(_ part: Int) -> Bool {
        let handle = Int(parts[part].vdi)
        guard catalog.vdis[handle].quotaBlocks != .max, parts[part].kind != .hole,
            parts[part].charge == 0
        else { return true }
        let count = newBlocks(part)
        let vdi = catalog.vdis[handle]
        guard count > 0 else { return true }
        guard vdi.chargedBlocks + vdi.pendingCharge + UInt64(count) <= vdi.quotaBlocks else {
            // Answered is a request's first error, so this is its reason if it had none.
            if requests[Int(parts[part].request)].status == .ok { counters.quotaRefusals += 1 }
            parts[part].status = .noSpace
            finishPart(part)
            return false
        }
        parts[part].charge = UInt16(count)
        catalog.vdis[handle].pendingCharge += UInt64(count)
        return true
    }

    /// How many of the part's blocks the head does not have for itself.
    private mutating func newBlocks(_ part: Int) -> Int {
        let vdi = catalog.vdis[Int(parts[part].vdi)]
        let first = parts[part].firstBlock
        let count = Int(parts[part].blockCount)
        guard case .leaf(let frame) = forest.walk(vdi, to: first, mayLoad: false) else {
            return count
        }
        let entries = forest.cache.entries(frame) + Int(first % UInt64(radixFanout))
        var new = 0
        for index in 0..<count
        where entries[index].isHole || entries[index].birth <= vdi.snapshotEpoch { new += 1 }
        return new
    }
}
