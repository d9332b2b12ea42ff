// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxGuest

/// Random requests against a disk, and a model of what every sector must hold.
///
/// No two requests in flight touch the same sector, so each answer has one right value. After the
/// daemon's death the sectors of unanswered requests may hold the old or the new value; the next
/// `verify` finds out which and goes on from there.
///
/// The model's sectors lie in groups of `groupSectors`, and the disk may be larger than the model:
///
///     model   | group 0 | group 1 | ...
///     disk    | group 0 |  ...  | group 1 |  ...      a group every `strideSectors`
///
/// Far apart, each group has a radix leaf of its own.
struct VerifiedLoad {
    struct Flight {
        var operation: BlockOperation
        var sector: Int
        var count: Int
        var generation: UInt32
    }

    let sectorCount: Int
    let strideSectors: UInt64
    /// Requests in flight in each queue.
    let depth: Int
    private(set) var completed = 0
    private(set) var acknowledgedWrites = 0
    private(set) var uncertainSectors = 0

    private var random: RandomSource
    private var expected: [UInt32]
    /// What an unanswered request would have made of a sector; nil elsewhere.
    private var uncertain: [UInt32?]
    private var isBusy: [Bool]
    private var flights: [Int: Flight] = [:]
    private var nextTag = 0
    private var nextGeneration: UInt32 = 1

    /// LIMIT: the most sectors of one request, 32 KiB.
    private static let sectorsPerRequest: UInt64 = 64
    private static let sectorsPerBlock = 8
    static let groupSectors = 256

    init(
        seed: UInt64, sectorCount: Int, strideSectors: UInt64 = UInt64(groupSectors),
        depth: Int = 16
    ) {
        self.sectorCount = sectorCount
        self.strideSectors = strideSectors
        self.depth = depth
        random = RandomSource(seed: seed)
        expected = Array(repeating: 0, count: sectorCount)
        uncertain = Array(repeating: nil, count: sectorCount)
        isBusy = Array(repeating: false, count: sectorCount)
    }

    /// Where a sector of the model is on the disk.
    private func place(_ sector: Int) -> UInt64 {
        UInt64(sector / Self.groupSectors) * strideSectors + UInt64(sector % Self.groupSectors)
    }

    /// Cuts a range at the end of its group, unless the groups touch.
    private func clipped(_ sector: Int, _ count: Int) -> Int {
        guard strideSectors != UInt64(Self.groupSectors) else { return count }
        return min(count, Self.groupSectors - sector % Self.groupSectors)
    }

    // MARK: Load

    /// Keeps `depth` requests in flight in each queue until `count` more have been answered; leaves
    /// the rest in flight.
    mutating func run(_ disk: inout BlockDriver, completions count: Int) throws {
        let goal = completed + count
        while completed < goal {
            fill(&disk)
            _ = try disk.wait(timeoutMilliseconds: 1000)
            try reap(&disk)
        }
        fill(&disk)
    }

    /// Waits for what is in flight.
    mutating func drain(_ disk: inout BlockDriver) throws {
        while !flights.isEmpty {
            _ = try disk.wait(timeoutMilliseconds: 1000)
            try reap(&disk)
        }
    }

    /// After the daemon's death: takes the answers that it still gave, and notes the rest as
    /// uncertain.
    mutating func abandon(_ disk: inout BlockDriver) throws {
        do {
            while true {
                try reap(&disk)
                _ = try disk.wait(timeoutMilliseconds: 1000)
            }
        } catch let error as GuestError where error.kind == .deviceGone {
            try reap(&disk)
        }
        for flight in flights.values {
            for sector in flight.sector..<flight.sector + flight.count {
                isBusy[sector] = false
                guard flight.operation != .read else { continue }
                uncertain[sector] = flight.generation
                uncertainSectors += 1
            }
        }
        flights = [:]
    }

    private mutating func fill(_ disk: inout BlockDriver) {
        for queue in 0..<disk.queueCount {
            for _ in 0..<depth {
                guard disk.inFlightCount < depth * disk.queueCount,
                    let slot = disk.reserve(queue: queue)
                else { break }
                guard let flight = choose() else {
                    disk.cancel(queue: queue, slot: slot)
                    break
                }
                submit(&disk, queue: queue, slot: slot, flight)
            }
            disk.publish(queue: queue)
        }
    }

    /// A request that touches nothing that is in flight, or nil when there is none at hand.
    private mutating func choose() -> Flight? {
        for _ in 0..<8 {
            var count = Int(random.next(below: Self.sectorsPerRequest)) + 1
            var sector = Int(random.next(below: UInt64(sectorCount - count)))
            let operation = chooseOperation()
            if operation == .flush {
                return Flight(operation: .flush, sector: 0, count: 0, generation: 0)
            }
            if operation == .discard || random.next(below: 2) == 0 {
                // Only whole blocks are sure to read as zeroes after a discard.
                sector -= sector % Self.sectorsPerBlock
                count += (Self.sectorsPerBlock - count % Self.sectorsPerBlock)
                count = min(count, Int(Self.sectorsPerRequest), sectorCount - sector)
            }
            count = clipped(sector, count)
            if isBusy[sector..<sector + count].contains(true) { continue }
            var generation: UInt32 = 0
            if operation == .write {
                generation = nextGeneration
                nextGeneration += 1
            }
            return Flight(
                operation: operation, sector: sector, count: count, generation: generation)
        }
        return nil
    }

    private mutating func chooseOperation() -> BlockOperation {
        switch random.next(below: 100) {
        case 0..<55: .write
        case 55..<85: .read
        case 85..<90: .discard
        case 90..<95: .writeZeroes
        default: .flush
        }
    }

    private mutating func submit(
        _ disk: inout BlockDriver, queue: Int, slot: Int, _ flight: Flight
    ) {
        for sector in flight.sector..<flight.sector + flight.count { isBusy[sector] = true }
        let tag = nextTag
        nextTag += 1
        flights[tag] = flight
        let first = place(flight.sector)
        let buffer = disk.buffer(queue: queue, slot: slot)
        switch flight.operation {
        case .discard, .writeZeroes:
            let range = BlockRange(firstSector: first, sectorCount: UInt32(flight.count))
            disk.submit(queue: queue, slot: slot, flight.operation, range: range, tag: UInt64(tag))
            return
        case .write:
            guard let base = buffer.baseAddress else { return }
            for index in 0..<flight.count {
                SectorStamp.write(
                    base + index * SectorStamp.bytes, sector: flight.sector + index,
                    generation: flight.generation)
            }
        default: break
        }
        disk.submit(
            queue: queue, slot: slot, flight.operation, firstSector: first,
            byteCount: flight.count * SectorStamp.bytes, tag: UInt64(tag))
    }

    private mutating func reap(_ disk: inout BlockDriver) throws {
        for queue in 0..<disk.queueCount {
            while let done = try disk.reap(queue: queue) {
                guard let flight = flights.removeValue(forKey: Int(done.tag)) else {
                    throw TestFailure("an answer to nothing: tag \(done.tag)")
                }
                guard done.status == BlockStatusByte.ok else {
                    throw TestFailure(
                        "\(flight) ended with \(BlockStatusByte.name(done.status))")
                }
                try settle(
                    flight, UnsafeRawBufferPointer(disk.buffer(queue: queue, slot: done.slot)))
                completed += 1
            }
        }
    }

    private mutating func settle(_ flight: Flight, _ buffer: UnsafeRawBufferPointer) throws {
        if flight.operation == .read {
            try check(buffer, from: flight.sector, count: flight.count)
        } else if flight.operation != .flush {
            acknowledgedWrites += 1
        }
        for sector in flight.sector..<flight.sector + flight.count {
            isBusy[sector] = false
            if flight.operation != .read { expected[sector] = flight.generation }
        }
    }

    // MARK: Verification

    private func check(_ buffer: UnsafeRawBufferPointer, from first: Int, count: Int) throws {
        guard let base = buffer.baseAddress else { return }
        for index in 0..<count {
            let sector = first + index
            let found = SectorStamp.read(base + index * SectorStamp.bytes, sector: sector)
            guard let found, found == expected[sector] || found == uncertain[sector] else {
                let words = (0..<3).map {
                    String(
                        base.loadUnaligned(
                            fromByteOffset: index * SectorStamp.bytes + 8 * $0, as: UInt64.self),
                        radix: 16)
                }
                throw TestFailure(
                    "sector \(sector): generation \(expected[sector]) belongs there "
                        + "(or \(uncertain[sector].map(String.init) ?? "none")), and it holds "
                        + "\(found.map { "generation \($0)" } ?? "the words \(words)")")
            }
        }
    }

    /// Reads all and compares; uncertain sectors become what they are found to be.
    mutating func verify(_ disk: inout BlockDriver) throws {
        // One group at a time; a group fits a request.
        let step = min(Self.groupSectors, disk.options.bufferBytes / SectorStamp.bytes)
        for first in stride(from: 0, to: sectorCount, by: step) {
            let count = min(step, sectorCount - first)
            let slot = try disk.perform(
                .read, firstSector: place(first),
                byteCount: count * SectorStamp.bytes)
            let buffer = UnsafeRawBufferPointer(disk.buffer(queue: 0, slot: slot))
            try check(buffer, from: first, count: count)
            guard let base = buffer.baseAddress else { return }
            for index in 0..<count where uncertain[first + index] != nil {
                let sector = first + index
                expected[sector] =
                    SectorStamp.read(base + index * SectorStamp.bytes, sector: sector) ?? 0
                uncertain[sector] = nil
            }
        }
    }
}
