// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Operations of which each is a whole sequence of events, too rare to come about by chance.
extension SimulatedHost {
    /// A crash takes some of the chunks that are in flight, and after the next opening one chunk of
    /// the same size is written before another crash. What lies behind it is of the opening before.
    func relapse() throws(SimulationFailure) -> Bool {
        guard let disk = straitDisk() else { return true }
        try drain()
        for _ in 0..<random.integer(in: 2...5) {
            try writeBlock(of: disk)
            try turn(streams[disk.stream])
        }
        crash(random.oneIn(2) ? .powerLoss : .processLoss, survival: .someWrites)
        guard try reopen(), !hasLostTrust else { return false }
        if disks[disk.identifier] != nil {
            try writeBlock(of: disk)
            try drain()
        }
        crash(.processLoss)
        return try reopen() && !hasLostTrust
    }

    /// Chunks are written, one after the other, most of them durable when the next one begins. Then
    /// one of them rots, and the machine stops.
    func rotLog() throws(SimulationFailure) -> Bool {
        guard let disk = straitDisk() else { return true }
        for _ in 0..<random.integer(in: 3...6) {
            try writeBlock(of: disk)
            if random.oneIn(2) { try submit(Wish(.flush), to: disk) }
            try drain()
        }
        guard let offset = device.rotRecent(from: Superblock.firstExtentOffset) else {
            return true
        }
        mayBeCorrupt = true
        trace.note(.operation, offset, "rot at \(offset)")
        crash(random.oneIn(2) ? .powerLoss : .processLoss)
        return try reopen() && !hasLostTrust
    }

    /// From a moment on, often that at which a checkpoint's root has been written, no sync ends, and
    /// guests go on. Then the power fails: what the engine did without having waited for a sync shows.
    func stall() throws(SimulationFailure) -> Bool {
        if random.oneIn(2) {
            for stream in streams { stream.engine?.requestCheckpoint() }
            device.stall = .behindWrite(below: Superblock.firstExtentOffset)
        } else {
            try runFor(random.integer(in: 0...100))
            device.stall = .syncs
        }
        for _ in 0..<random.integer(in: 8...40) {
            guard let disk = straitDisk() else { break }
            let limit = Int(disk.sectorCount)
            let length = min(limit, random.integer(in: 16...128) * sectorsPerBlock)
            let first = random.integer(in: 0...(limit - length)) / sectorsPerBlock * sectorsPerBlock
            try submit(Wish(.write, UInt64(first)..<UInt64(first + length)), to: disk)
            try runFor(random.integer(in: 1...40))
        }
        crash(.powerLoss, survival: random.oneIn(2) ? .someWrites : .someSectors)
        return try reopen() && !hasLostTrust
    }

    private func straitDisk() -> GuestDisk? {
        let candidates = sortedDisks.filter {
            !$0.isDeletionPending && !$0.isRollingBack && !$0.mayBeTemplate
        }
        return candidates.isEmpty ? nil : candidates[random.index(below: candidates.count)]
    }

    private func writeBlock(of disk: GuestDisk) throws(SimulationFailure) {
        let size = UInt64(sectorsPerBlock)
        let block = UInt64(random.index(below: Int(disk.sectorCount / size)))
        try submit(Wish(.write, (block * size)..<((block + 1) * size)), to: disk)
    }
}
