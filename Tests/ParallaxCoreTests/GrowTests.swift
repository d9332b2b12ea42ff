// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("A store that grows")
struct GrowTests {
    private static let mediumBytes: UInt64 = 64 << 20

    private func makeStore(
        sizeBytes: UInt64, seed: UInt64, isPreallocated: Bool = false
    ) throws -> SimulatedDevice {
        let device = SimulatedDevice(byteCount: Self.mediumBytes, seed: seed)
        try Store.format(
            medium: device,
            options: FormatOptions(
                sizeBytes: sizeBytes, extentBytes: 1 << 20, streamCount: 1,
                uuid: StoreUUID(high: 7, low: 8), createdAtNanoseconds: 0,
                isPreallocated: isPreallocated))
        return device
    }

    @Test(
        "the allocator hands out each new slot once, and none beyond",
        arguments: [(70, 71), (70, 128), (64, 65), (63, 64), (70, 300), (70, 70), (70, 3)])
    func allocator(old: Int, new: Int) {
        var allocator = SlotAllocator(slotCount: old)
        while allocator.allocate() != nil {}
        allocator.release(ExtentSlot(5))
        allocator.grow(slotCount: new)
        let expected = [5] + Array(old..<max(old, new))
        #expect(allocator.freeCount == expected.count)
        var given: [Int] = []
        while let slot = allocator.allocate() { given.append(Int(slot.rawValue)) }
        #expect(given == expected)
    }

    @Test("the table of extents keeps what it has and takes more")
    func table() {
        var table = ExtentTable(slotCount: 3, extentBlocks: 256)
        for number in 1...3 {
            table.insert(
                ExtentNumber(UInt64(number)), slot: ExtentSlot(UInt32(number - 1)),
                state: .sealed, live: UInt32(number))
        }
        let wasFull = !table.hasRoom
        table.grow(slotCount: 200)
        for number in 4...200 {
            table.insert(
                ExtentNumber(UInt64(number)), slot: ExtentSlot(UInt32(number - 1)), state: .open)
        }
        table.remove(ExtentNumber(2))
        let slots = (1...200).map { table.slot(of: ExtentNumber(UInt64($0)))?.rawValue }
        let live = (0..<table.count).reduce(0) { $0 + Int(table[$1].live) }
        #expect(wasFull)
        var expected: [UInt32?] = (0..<200).map { UInt32($0) }
        expected[1] = nil
        #expect(slots == expected)
        #expect(live == 4)
    }

    @Test("a store takes whole extents of what it is given, and never becomes smaller")
    func sizes() throws {
        let device = try makeStore(sizeBytes: 20 << 20, seed: 1)
        let old = try Store.open(medium: device).superblock
        #expect(old.slotCount == 19)
        let larger = try Store.grow(old, to: (30 << 20) + 4096, medium: device)
        #expect(larger.slotCount == 29)
        #expect(larger.storeBytes == (30 << 20) + 4096)
        #expect(larger.generation == old.generation)
        #expect(try Store.inspect(medium: device).superblock == larger)
        #expect(try Store.grow(larger, to: larger.storeBytes, medium: device) == larger)
        let smaller = #expect(throws: StoreError.self) {
            try Store.grow(larger, to: 30 << 20, medium: device)
        }
        #expect(smaller?.message.contains("cannot shrink") == true)
        let beyond = #expect(throws: StoreError.self) {
            try Store.grow(larger, to: Self.mediumBytes + 4096, medium: device)
        }
        #expect(beyond?.kind == .truncated)
        #expect(try Store.inspect(medium: device).superblock == larger)
    }

    @Test("what was preallocated stays so through openings and growth", arguments: [false, true])
    func preallocated(isPreallocated: Bool) throws {
        let device = try makeStore(
            sizeBytes: 20 << 20, seed: 4, isPreallocated: isPreallocated)
        let opened = try Store.open(medium: device).superblock
        _ = try Store.grow(opened, to: 40 << 20, medium: device)
        #expect(try Store.open(medium: device).superblock.isPreallocated == isPreallocated)
    }

    @Test(
        "power lost at any moment of a growth leaves the old store or the larger one",
        arguments: 0..<8)
    func crash(commandCount: Int) throws {
        var sizes: Set<UInt64> = []
        for seed in UInt64(1)...40 {
            let device = try makeStore(sizeBytes: 20 << 20, seed: seed)
            let old = try Store.open(medium: device).superblock
            device.commandsUntilStop = commandCount
            let isGrown = (try? Store.grow(old, to: 40 << 20, medium: device)) != nil
            device.crash(.powerLoss)
            let found = try Store.open(medium: device).superblock
            sizes.insert(found.storeBytes)
            #expect(found.storeBytes == old.storeBytes || found.storeBytes == 40 << 20)
            #expect(UInt64(found.slotCount) == (found.storeBytes >> 20) - 1)
            #expect(found.generation == old.generation + 1)
            #expect(!isGrown || found.storeBytes == 40 << 20)
        }
        // Two writes and two syncs: with fewer commands nothing is promised, with all of them it is.
        #expect(commandCount > 0 || sizes == [20 << 20])
        #expect(commandCount < 5 || sizes == [40 << 20])
    }

    @Test("a growth that was cut off can be repeated, and either copy alone is enough after it")
    func repeated() throws {
        for lost in Superblock.copyOffsets {
            let device = try makeStore(sizeBytes: 20 << 20, seed: 3)
            let old = try Store.open(medium: device).superblock
            device.commandsUntilStop = 2
            #expect(throws: StoreError.self) {
                try Store.grow(old, to: 40 << 20, medium: device)
            }
            device.commandsUntilStop = nil
            let larger = try Store.grow(old, to: 40 << 20, medium: device)
            let zeroes = BlockBuffer()
            try device.write(at: lost, from: UnsafeRawBufferPointer(zeroes.bytes))
            let found = try Store.open(medium: device)
            #expect(found.superblock.slotCount == larger.slotCount)
            #expect(found.notices.count == 1)
        }
    }
}
