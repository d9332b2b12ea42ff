// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Crashes.
extension SimulatedDevice {
    /// Stops everything; what survives is chosen by the seed within what `mode` allows. Buffers
    /// of commands in flight are not touched any more. The device works again afterwards.
    package func crash(_ mode: CrashMode, survival: Survival? = nil) {
        commandsUntilStop = nil
        stall = .none
        syncs = SyncRecord()
        let survival = survival ?? Survival.allCases[random.index(below: Survival.allCases.count)]
        switch mode {
        case .processLoss: loseProcess(survival)
        case .powerLoss: losePower(survival)
        }
    }

    private func loseProcess(_ survival: Survival) {
        var interrupted = inFlight
        inFlight = []
        interrupted.removeAll { $0.command.operation != .write }
        interrupted.shuffle(using: &random)
        let cut = interrupted.isEmpty ? 0 : random.index(below: interrupted.count)
        for (position, entry) in interrupted.enumerated() {
            applyInPart(entry, survival: pieces(of: survival, at: position, cut: cut))
        }
    }

    private func losePower(_ survival: Survival) {
        var candidates = unsynced
        unsynced = []
        var interrupted = inFlight.filter { $0.command.operation == .write }
        inFlight = []
        interrupted.shuffle(using: &random)
        candidates += interrupted.map {
            VolatileWrite(sequence: 0, offset: $0.command.offset, content: $0.content)
        }
        let cut = candidates.isEmpty ? 0 : random.index(below: candidates.count)
        for (position, write) in candidates.enumerated() {
            let kept = pieces(of: survival, at: position, cut: cut)
            forEachSurvivingSector(of: write.content, kept) { start, sector in
                durable.write(at: write.offset + UInt64(start), from: sector)
                mend(at: write.offset + UInt64(start), count: sector.count)
            }
            noteVolatile(write.offset, write.content.count)
        }
        visible.copy(volatilePages, from: durable)
        volatilePages.removeAll(keepingCapacity: true)
    }

    /// What `survival` means for the write at `position`.
    private func pieces(of survival: Survival, at position: Int, cut: Int) -> Survival {
        switch survival {
        case .nothing, .everything, .someSectors: survival
        case .someWrites: random.chance(percent: 50) ? .everything : .nothing
        case .prefix:
            position < cut ? .everything : (position == cut ? .someSectors : .nothing)
        }
    }

    /// A write that was interrupted: the sectors that got through are visible, not durable.
    func applyInPart(_ entry: CommandInFlight, survival: Survival) {
        forEachSurvivingSector(of: entry.content, survival) { start, sector in
            store(at: entry.command.offset + UInt64(start), content: [UInt8](sector))
        }
    }

    private func forEachSurvivingSector(
        of content: [UInt8], _ survival: Survival, _ body: (Int, UnsafeRawBufferPointer) -> Void
    ) {
        guard survival != .nothing else { return }
        content.withUnsafeBytes { bytes in
            if survival == .everything {
                body(0, bytes)
                return
            }
            for start in stride(from: 0, to: bytes.count, by: sectorBytes) {
                guard random.chance(percent: 50) else { continue }
                body(start, UnsafeRawBufferPointer(rebasing: bytes[start..<(start + sectorBytes)]))
            }
        }
    }

    /// The bytes that a read would return now, without counting as one.
    package func peek(at offset: UInt64, count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { target, initialized in
            visible.read(at: offset, into: UnsafeMutableRawBufferPointer(target))
            initialized = count
        }
    }

    /// The same into memory of the caller's.
    package func peek(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) {
        visible.read(at: offset, into: target)
    }

    /// Numbers of all 4 KiB pages that were ever written, in the order of their first write.
    package var touchedPages: [UInt64] { visible.pageNumbers }
}
