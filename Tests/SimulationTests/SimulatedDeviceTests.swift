// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxSimulation
import Testing

@Suite struct SimulatedDeviceTests {
    private let capacity: UInt64 = 1 << 30

    @Test("a terabyte that was never written reads as zeros")
    func isSparse() throws {
        let device = SimulatedDevice(byteCount: 1 << 40, seed: 1)
        #expect(try device.readByte(at: (1 << 40) - 4096) == 0)
        try device.writeByte(7, at: (1 << 40) - 4096)
        #expect(try device.readByte(at: (1 << 40) - 4096) == 7)
        #expect(device.touchedPages.count == 1)
    }

    @Test("an access past the end is refused and recorded")
    func refusesPastTheEnd() {
        let device = SimulatedDevice(byteCount: 4096, seed: 1)
        #expect(throws: MediumError(errno: EINVAL, operation: .write, offset: 4096)) {
            try device.writeByte(1, at: 4096)
        }
        #expect(device.violations.count == 1)
    }

    @Test("a synced write survives power loss, whatever else is lost", arguments: Survival.allCases)
    func syncedSurvives(survival: Survival) throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 3)
        try device.writeByte(1, at: 0)
        try device.sync()
        try device.writeByte(2, at: 4096)
        device.crash(.powerLoss, survival: survival)
        #expect(try device.readByte(at: 0) == 1)
        if survival == .nothing { #expect(try device.readByte(at: 4096) == 0) }
        if survival == .everything { #expect(try device.readByte(at: 4096) == 2) }
    }

    @Test("a completed write survives the loss of the process, and only that")
    func completedSurvivesProcessLoss() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 3)
        try device.writeByte(1, at: 0)
        device.crash(.processLoss, survival: .nothing)
        #expect(try device.readByte(at: 0) == 1)
        device.crash(.powerLoss, survival: .nothing)
        #expect(try device.readByte(at: 0) == 0)
    }

    @Test("power loss tears an unsynced write at sector grain, each sector old or new")
    func tearsAtSectors() throws {
        var sawTear = false
        for seed in UInt64(0)..<20 {
            let device = SimulatedDevice(byteCount: capacity, seed: seed)
            try device.writeByte(1, at: 0)
            try device.sync()
            try device.writeByte(2, at: 0)
            device.crash(.powerLoss, survival: .someSectors)
            let block = device.peek(at: 0, count: 4096)
            for sector in 0..<8 {
                let bytes = block[(sector * 512)..<(sector * 512 + 512)]
                #expect(Set(bytes) == [1] || Set(bytes) == [2])
            }
            sawTear = sawTear || Set(block).count == 2
        }
        #expect(sawTear)
    }

    @Test("a sync covers what was completed before it was submitted, not what came later")
    func syncCoversThePast() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 3)
        try device.writeByte(1, at: 0)
        device.submit(StoreCommand(operation: .sync, tag: 5), owner: 9)
        try device.writeByte(2, at: 4096)
        let answer = device.completeOne()
        #expect(answer?.owner == 9)
        #expect(answer?.completion.tag == 5)
        #expect(answer?.completion.result == 0)
        device.crash(.powerLoss, survival: .nothing)
        #expect(try device.readByte(at: 0) == 1)
        #expect(try device.readByte(at: 4096) == 0)
    }

    @Test("commands complete in an order of the seed's choosing, scattered over odd buffers")
    func completesInAnyOrder() {
        var orders: Set<[UInt64]> = []
        for seed in UInt64(0)..<20 {
            let device = SimulatedDevice(byteCount: capacity, seed: seed)
            let memory = TestMemory(lengths: [512, 1536, 2048])
            for tag in UInt64(0)..<4 {
                device.submit(
                    memory.command(.write, tag: tag, offset: tag * 4096), owner: 0)
            }
            var order: [UInt64] = []
            while let answer = device.completeOne() { order.append(answer.completion.tag) }
            #expect(order.sorted() == [0, 1, 2, 3])
            #expect(device.violations.isEmpty)
            orders.insert(order)
        }
        #expect(orders.count > 3)
    }

    @Test("memory that changes under a write in flight, and overlapping writes, are recorded")
    func recordsViolations() {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        let memory = TestMemory(lengths: [4096])
        device.submit(memory.command(.write, tag: 1, offset: 0), owner: 0)
        memory.segments[0].base.storeBytes(of: 99, as: UInt8.self)
        _ = device.completeOne()
        #expect(device.violations.count == 1)
        device.submit(memory.command(.write, tag: 2, offset: 0), owner: 0)
        device.submit(memory.command(.write, tag: 3, offset: 0), owner: 0)
        #expect(device.violations.count == 2)
    }

    @Test("each fault does what it says, and none happens unless asked for")
    func faults() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        try device.writeByte(1, at: 0)
        try device.sync()

        device.faults.lostWriteOneIn = 1
        try device.writeByte(2, at: 0)
        #expect(try device.readByte(at: 0) == 1)

        device.faults = .none
        device.faults.lyingSyncOneIn = 1
        try device.writeByte(3, at: 0)
        try device.sync()
        device.crash(.powerLoss, survival: .nothing)
        #expect(try device.readByte(at: 0) == 1)

        device.faults = .none
        device.faults.readErrorOneIn = 1
        #expect(throws: MediumError(errno: EIO, operation: .read, offset: 0)) {
            try device.readByte(at: 0)
        }
        device.faults = .none
        device.faults.syncErrorOneIn = 1
        #expect(throws: MediumError(errno: EIO, operation: .sync, offset: 0)) {
            try device.sync()
        }
    }

    @Test("after a failed sync a later one does not bring back what was lost")
    func failedSyncLosesWrites() throws {
        var lost = 0
        for seed in UInt64(0)..<20 {
            let device = SimulatedDevice(byteCount: capacity, seed: seed)
            try device.writeByte(1, at: 0)
            device.faults.syncErrorOneIn = 1
            #expect(throws: MediumError.self) { try device.sync() }
            device.faults = .none
            try device.sync()
            #expect(try device.readByte(at: 0) == 1)
            device.crash(.powerLoss, survival: .everything)
            if try device.readByte(at: 0) == 0 { lost += 1 }
        }
        #expect((1..<20).contains(lost))
    }

    @Test("rot reaches the durable copy and every later one")
    func rots() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        try device.writeByte(1, at: 0)
        device.rot(at: 10, bit: 1)
        #expect(device.peek(at: 10, count: 1) == [3])
        try device.sync()
        device.crash(.powerLoss)
        #expect(device.peek(at: 10, count: 1) == [3])
    }

    @Test("a bit that gets lost on the way is there again for the next read")
    func flips() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        try device.writeByte(1, at: 0)
        device.faults.flippedReadOneIn = 1
        var block = [UInt8](repeating: 0xEE, count: 4096)
        try block.withUnsafeMutableBytes { try device.read(at: 0, into: $0) }
        #expect(block.count { $0 != 1 } == 1)
        #expect(device.statistics.flips == 1)
        device.faults = .none
        #expect(try device.readByte(at: 0) == 1)
    }

    @Test("a spoiled sector cannot be read, in whatever read, until it is written")
    func spoils() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        try device.writeByte(1, at: 0)
        try device.writeByte(1, at: 4096)
        try device.sync()
        let offset = try #require(device.spoilSomewhere())
        #expect(offset < 8192 && offset % 512 == 0)
        let block = offset / 4096 * 4096
        #expect(throws: MediumError(errno: EIO, operation: .read, offset: block)) {
            try device.readByte(at: block)
        }
        #expect(try device.readByte(at: 4096 - block) == 1)
        device.crash(.powerLoss, survival: .nothing)
        #expect(throws: MediumError.self) { try device.readByte(at: block) }
        try device.writeByte(2, at: block)
        #expect(try device.readByte(at: block) == 2)
    }

    @Test("a full device says so, and writes nothing")
    func isFull() {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        device.faults.fullDeviceOneIn = 1
        let memory = TestMemory(lengths: [4096])
        device.submit(memory.command(.write, tag: 1, offset: 0), owner: 0)
        #expect(device.completeOne()?.completion.result == -Int(ENOSPC))
        #expect(device.peek(at: 0, count: 1) == [0])
    }

    @Test("when syncs stall the ones under way end, later ones do not, until the next crash")
    func stalls() {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        device.submit(StoreCommand(operation: .sync, tag: 1), owner: 0)
        device.stall = .syncs
        device.submit(StoreCommand(operation: .sync, tag: 2), owner: 0)
        let memory = TestMemory(lengths: [4096])
        device.submit(memory.command(.write, tag: 3, offset: 0), owner: 0)
        let ended = [device.completeOne(), device.completeOne()].compactMap { $0?.completion.tag }
        #expect(ended.sorted() == [1, 3])
        #expect(device.inFlightCount == 1)
        let none = device.completeOne()
        #expect(none == nil)
        device.crash(.powerLoss)
        device.submit(StoreCommand(operation: .sync, tag: 4), owner: 0)
        #expect(device.completeOne()?.completion.tag == 4)
    }

    @Test("a stall behind a write begins with the write that it waits for")
    func stallsBehindWrite() {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        device.stall = .behindWrite(below: 4096)
        let memory = TestMemory(lengths: [4096])
        for offset: UInt64 in [8192, 0] {
            device.submit(memory.command(.write, tag: offset, offset: offset), owner: 0)
            #expect(device.completeOne()?.completion.tag == offset)
            device.submit(StoreCommand(operation: .sync, tag: 1), owner: 0)
            let hasEnded = device.completeOne() != nil
            #expect(hasEnded == (offset == 8192))
        }
    }

    @Test("recent rot is in one of the last writes, at or after where it may be")
    func rotsRecent() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        #expect(device.rotRecent(from: 0) == nil)
        try device.writeByte(1, at: 0)
        try device.writeByte(1, at: 4096)
        let offset = try #require(device.rotRecent(from: 4096))
        #expect((4096..<8192).contains(offset))
        #expect(device.peek(at: offset, count: 1) != [1])
        #expect(try device.readByte(at: 0) == 1)
    }

    @Test("a machine told to stop after k commands executes k and no more")
    func stops() throws {
        let device = SimulatedDevice(byteCount: capacity, seed: 1)
        device.commandsUntilStop = 2
        try device.writeByte(1, at: 0)
        try device.writeByte(2, at: 4096)
        #expect(device.hasStopped)
        #expect(throws: MediumError.self) { try device.writeByte(3, at: 8192) }
        device.crash(.processLoss)
        #expect(try device.readByte(at: 4096) == 2)
        #expect(try device.readByte(at: 8192) == 0)
    }
}

extension SimulatedDevice {
    fileprivate func writeByte(_ value: UInt8, at offset: UInt64) throws {
        try [UInt8](repeating: value, count: 4096).withUnsafeBytes {
            try write(at: offset, from: $0)
        }
    }

    fileprivate func readByte(at offset: UInt64) throws -> UInt8 {
        var block = [UInt8](repeating: 0xEE, count: 4096)
        try block.withUnsafeMutableBytes { try read(at: offset, into: $0) }
        #expect(Set(block).count == 1)
        return block[0]
    }
}

/// Aligned memory with a list of data segments over it.
private final class TestMemory {
    let segments: UnsafeMutableBufferPointer<DataSegment>
    private let memory: UnsafeMutableRawPointer
    private let byteCount: Int

    init(lengths: [Int]) {
        byteCount = lengths.reduce(0, +)
        memory = .allocate(byteCount: byteCount, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0x11, count: byteCount)
        segments = .allocate(capacity: lengths.count)
        var start = 0
        for (index, length) in lengths.enumerated() {
            segments.initializeElement(
                at: index, to: DataSegment(base: memory + start, count: length))
            start += length
        }
    }

    deinit {
        memory.deallocate()
        segments.deallocate()
    }

    func command(
        _ operation: StoreCommand.Operation, tag: UInt64, offset: UInt64
    ) -> StoreCommand {
        StoreCommand(
            operation: operation, tag: tag, offset: offset, byteCount: byteCount,
            buffers: UnsafePointer(segments.baseAddress), bufferCount: UInt32(segments.count))
    }
}
