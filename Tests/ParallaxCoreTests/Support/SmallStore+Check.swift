// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

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
    func repair(
        _ device: SimulatedDevice, within blocks: Range<UInt64> = 0..<320
    ) throws -> Repaired {
        let repair = try StoreRepair(medium: device, options: Self.checkOptions)
        try repair.apply()
        let after = Self.check(device)
        let reopened = try SmallStore(copying: self, device: device)
        return (repair.before, after, try reopened.compare(within: blocks))
    }
}

/// Looking into the engines, and damaging what they write.
extension SmallStore {
    /// The process dies behind a sync that has failed: the device shows more than it will ever write.
    func dieOfFailedSync(_ vdi: String) throws {
        device.faults.syncErrorOneIn = 1
        try flush(vdi)
        device.faults = .none
        #expect(device.statistics.dropped > 0)
        device.crash(.processLoss)
    }

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

    /// One turn of the first shard's engine. Commands of the kinds that are held are returned, the
    /// others carried out.
    func turn(holding isHeld: (CommandTag.Activity) -> Bool) throws -> [StoreCommand] {
        engines[0].engine.turn(nowNanoseconds: engines[0].engine.now + 1_000_000)
        var commands: [StoreCommand] = []
        while let command = engines[0].engine.nextCommand() { commands.append(command) }
        let held = commands.filter { command in
            CommandTag(rawValue: command.tag).map { isHeld($0.activity) } ?? false
        }
        for command in commands where !held.contains(where: { $0.tag == command.tag }) {
            try carryOut(command)
        }
        return held
    }

    /// Carries out a command, or the first blocks of it, and tells the engine.
    func carryOut(_ command: StoreCommand, answers: Bool = true, blocks: Int? = nil) throws {
        var offset = command.offset
        var left = blocks.map { $0 * blockBytes } ?? command.byteCount
        for index in 0..<Int(command.bufferCount) where left > 0 {
            guard let buffer = command.buffers?[index] else { break }
            let bytes = UnsafeMutableRawBufferPointer(
                start: buffer.base, count: min(left, buffer.count))
            if command.operation == .read {
                try device.read(at: offset, into: bytes)
            } else {
                try device.write(at: offset, from: UnsafeRawBufferPointer(bytes))
            }
            offset += UInt64(bytes.count)
            left -= bytes.count
        }
        guard answers else { return }
        engines[0].engine.complete(StoreCompletion(tag: command.tag, result: command.byteCount))
    }

    /// Makes an engine believe what is not so. The next checkpoint writes it down.
    func mislead<Result>(
        _ stream: Int = 0, _ body: (inout Engine) throws -> Result
    ) rethrows -> Result {
        engines[stream].engine.changesSinceFreeze += 1
        return try body(&engines[stream].engine)
    }
}
