// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxIO
import Synchronization
import Testing

@Suite("Extent preparer")
struct ExtentPreparerTests {
    private static let firstByte: UInt64 = 65536
    private static let extentBytes = 1 << 21

    private static func offset(of slot: Int) -> UInt64 {
        firstByte + UInt64(slot * extentBytes)
    }

    private func withPreparer(
        slots: Int, ready: Int, access: StoreFile.Access = .readWrite,
        restNanoseconds: UInt64? = nil,
        _ body: (ExtentPreparer, StoreFile) throws -> Void
    ) throws {
        let path = "/tmp/io-test-extents-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        defer { unlink(path) }
        let byteCount = Self.offset(of: slots) + 65536
        var store = try? StoreFile.create(path: path, byteCount: byteCount)
        if access == .readOnly {
            store = nil
            store = try StoreFile.open(path: path, access: .readOnly)
        }
        let file = try #require(store)
        let preparer = ExtentPreparer(
            store: file, firstExtentOffset: Self.firstByte, extentBytes: Self.extentBytes,
            readyCountMax: ready, allocator: SlotAllocator(slotCount: slots),
            restNanoseconds: restNanoseconds)
        try body(preparer, file)
        preparer.stop()
        #expect(preparer.status.readyCount == 0, "slots were kept after the stop")
    }

    /// Nil: the store is full.
    private func expectRequest(
        _ preparer: ExtentPreparer, gives expected: Int?
    ) throws {
        let answers = Mutex<[Int?]>([])
        preparer.requestSlot { slot in answers.withLock { $0.append(slot.map { Int($0.rawValue) }) }
        }
        try waitUntil { answers.withLock { !$0.isEmpty } }
        answers.withLock { #expect($0 == [expected]) }
    }

    @Test("prepared slots are zeroes with blocks of their own; nothing beside them is touched")
    func prepares() throws {
        try withPreparer(slots: 4, ready: 2) { preparer, store in
            let memory = try AlignedMemory(byteCount: 65536)
            memory.bytes.fill(with: 0xDD)
            try store.write(at: 0, from: UnsafeRawBufferPointer(memory.bytes))
            let behind = Self.offset(of: 2)
            try store.write(at: behind, from: UnsafeRawBufferPointer(memory.bytes))
            try preparer.start()
            try waitUntil { preparer.status.readyCount == 2 }
            var status = stat()
            #expect(fstat(store.fileDescriptor, &status) == 0)
            #expect(Int(status.st_blocks) * 512 >= 2 * Self.extentBytes)
            for offset in [0, behind] {
                memory.bytes.fill(with: 0)
                try store.read(at: offset, into: memory.bytes)
                #expect(memory.bytes.isFilled(with: 0xDD))
            }
            try expectRequest(preparer, gives: 0)
            try expectRequest(preparer, gives: 1)
        }
    }

    @Test("a slot that was written before is ready as it is, contents and all")
    func reused() throws {
        try withPreparer(slots: 2, ready: 2) { preparer, store in
            let memory = try AlignedMemory(byteCount: Self.extentBytes)
            memory.bytes.fill(with: 0xAB)
            try store.write(at: Self.offset(of: 1), from: UnsafeRawBufferPointer(memory.bytes))
            try preparer.start()
            try waitUntil { preparer.status.readyCount == 2 }
            try store.read(at: Self.offset(of: 1), into: memory.bytes)
            #expect(memory.bytes.isFilled(with: 0xAB))
            try store.read(at: Self.offset(of: 0), into: memory.bytes)
            #expect(memory.bytes.isFilled(with: 0))
        }
    }

    @Test("without a prepared slot an unprepared one is given, and nil when the store is full")
    func unprepared() throws {
        try withPreparer(slots: 2, ready: 1) { preparer, _ in
            try expectRequest(preparer, gives: 0)
            try expectRequest(preparer, gives: 1)
            try expectRequest(preparer, gives: nil)
            preparer.releaseSlot(ExtentSlot(0))
            try expectRequest(preparer, gives: 0)
        }
    }

    @Test(
        "who can wait gets prepared slots, more than are kept ready; the rest are told it is full")
    func patientRequests() throws {
        try withPreparer(slots: 6, ready: 1) { preparer, store in
            try preparer.start()
            let answers = Mutex<[UInt32?]>([])
            for _ in 0..<6 {
                preparer.requestSlot(canWait: true) { slot in
                    answers.withLock { $0.append(slot?.rawValue) }
                }
            }
            try waitUntil { answers.withLock { $0.count } == 6 }
            let slots = answers.withLock { $0.compactMap(\.self) }
            #expect(Set(slots) == Set(0..<6))
            for slot in slots {
                let isWritten = parallax_range_is_written(
                    store.fileDescriptor, Self.offset(of: Int(slot)), UInt64(Self.extentBytes))
                #expect(isWritten == 1)
            }
            try expectRequest(preparer, gives: nil)
        }
    }

    @Test("of more who can wait than there are slots, the rest are told at once that it is full")
    func morePatientThanSlots() throws {
        for slots in [1, 3] {
            try withPreparer(slots: slots, ready: 2) { preparer, _ in
                try preparer.start()
                let answers = Mutex<[UInt32?]>([])
                for _ in 0..<slots + 4 {
                    preparer.requestSlot(canWait: true) { slot in
                        answers.withLock { $0.append(slot?.rawValue) }
                    }
                }
                try waitUntil { answers.withLock { $0.count } == slots + 4 }
                let given = answers.withLock { $0.compactMap(\.self) }
                #expect(Set(given) == Set(0..<UInt32(slots)))
                #expect(given.count == slots)
            }
        }
    }

    @Test("who can wait gets a slot all the same when the log is in a hurry")
    func hurry() throws {
        try withPreparer(slots: 40, ready: 1) { preparer, _ in
            try preparer.start()
            let count = Mutex(0)
            for _ in 0..<40 {
                preparer.requestSlot(canWait: true) { slot in
                    if slot != nil { count.withLock { $0 += 1 } }
                }
            }
            preparer.hurry()
            try waitUntil { count.withLock { $0 } == 40 }
            try expectRequest(preparer, gives: nil)
        }
    }

    @Test("requests and releases from many threads never give one slot to two owners")
    func owners() throws {
        try withPreparer(slots: 6, ready: 2) { preparer, _ in
            try preparer.start()
            let owned = Mutex<Set<ExtentSlot>>([])
            let threads = try (0..<3).map { _ in
                try ShardThread(name: "owner") {
                    for _ in 0..<200 {
                        preparer.requestSlot { slot in
                            guard let slot else { return }
                            let isNew = owned.withLock { $0.insert(slot).inserted }
                            #expect(isNew, "slot \(slot) has two owners")
                            owned.withLock { _ = $0.remove(slot) }
                            preparer.releaseSlot(slot)
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            preparer.stop()
            #expect(preparer.status.freeCount == 6)
        }
    }

    @Test("a slot that cannot be prepared is not lost, and the reason is kept")
    func failure() throws {
        try withPreparer(slots: 1, ready: 1, access: .readOnly) { preparer, _ in
            try preparer.start()
            try waitUntil { preparer.status.failure != nil }
            #expect(preparer.status.failure?.errno == EBADF)
            #expect(preparer.status.readyCount == 0)
            preparer.stop()
            #expect(preparer.status.freeCount == 1)
        }
    }

    // MARK: Holes

    /// Slots of the file behind which the file system has blocks.
    private func backedSlots(_ store: StoreFile, of count: Int) -> [Int] {
        (0..<count).filter {
            parallax_range_has_blocks(
                store.fileDescriptor, Self.offset(of: $0), UInt64(Self.extentBytes)) == 1
        }
    }

    private func write(_ store: StoreFile, slot: Int, _ byte: UInt8) throws {
        let memory = try AlignedMemory(byteCount: Self.extentBytes)
        memory.bytes.fill(with: byte)
        try store.write(at: Self.offset(of: slot), from: UnsafeRawBufferPointer(memory.bytes))
    }

    @Test("free slots that were used are punched out of the file, but for as many as are kept")
    func punches() throws {
        try withPreparer(slots: 12, ready: 2, restNanoseconds: 0) { preparer, store in
            var slots: [ExtentSlot] = []
            for slot in 0..<10 {
                try expectRequest(preparer, gives: slot)
                try write(store, slot: slot, 0xEE)
                slots.append(ExtentSlot(UInt32(slot)))
            }
            #expect(backedSlots(store, of: 12) == Array(0..<10))
            try preparer.start()
            try waitUntil { preparer.status.readyCount == 2 }
            // 9 stays in use, 10 and 11 are ready.
            for slot in slots.dropLast() { preparer.releaseSlot(slot) }
            try waitUntil { preparer.status.punchedBytes == UInt64(7 * Self.extentBytes) }
            let backed = backedSlots(store, of: 12)
            #expect(backed.suffix(3) == [9, 10, 11])
            #expect(backed.count == 5, "\(backed)")
            let memory = try AlignedMemory(byteCount: Self.extentBytes)
            try store.read(at: Self.offset(of: 9), into: memory.bytes)
            #expect(memory.bytes.isFilled(with: 0xEE))
            var status = stat()
            #expect(fstat(store.fileDescriptor, &status) == 0)
            #expect(status.st_size == Int(Self.offset(of: 12)) + 65536)
            #expect(status.st_blocks * 512 <= 6 * Self.extentBytes)
        }
    }

    @Test("slots that were in use before the start are found and punched too")
    func survey() throws {
        try withPreparer(slots: 200, ready: 1, restNanoseconds: 0) { preparer, store in
            for slot in [3, 150, 151, 199] { try write(store, slot: slot, 1) }
            #expect(preparer.withAllocator { $0.markUsed(ExtentSlot(150)) })
            try preparer.start()
            try waitUntil { preparer.status.punchedBytes == UInt64(2 * Self.extentBytes) }
            // The first is ready, and one is kept for the next.
            let backed = backedSlots(store, of: 200)
            #expect(backed == [0, 150, 199])
        }
    }

    @Test(
        "slots that are to rest for longer, or for ever, keep their blocks and are used again first",
        arguments: [nil, 1 << 50] as [UInt64?])
    func rests(restNanoseconds: UInt64?) throws {
        try withPreparer(slots: 8, ready: 1, restNanoseconds: restNanoseconds) { preparer, store in
            for slot in 0..<6 { try write(store, slot: slot, 1) }
            try preparer.start()
            try waitUntil { preparer.status.readyCount == 1 }
            for _ in 0..<20 {
                let answers = Mutex<[ExtentSlot?]>([])
                preparer.requestSlot(canWait: true) { slot in answers.withLock { $0.append(slot) } }
                try waitUntil { answers.withLock { !$0.isEmpty } }
                let slot = try #require(answers.withLock { $0[0] })
                preparer.releaseSlot(slot)
            }
            #expect(preparer.status.punchedBytes == 0)
            let backed = backedSlots(store, of: 8)
            #expect(backed.contains(0) && backed.contains(5))
        }
    }

    @Test("punching never takes the content of a slot that was handed out again")
    func racing() throws {
        try withPreparer(slots: 8, ready: 1, restNanoseconds: 0) { preparer, store in
            try preparer.start()
            let wrong = Mutex(0)
            let threads = try (0..<3).map { number in
                try ShardThread(name: "owner") {
                    guard let memory = try? AlignedMemory(byteCount: 4096) else { return }
                    for round in 0..<150 {
                        preparer.requestSlot { slot in
                            guard let slot else { return }
                            let byte = UInt8(truncatingIfNeeded: number * 50 + round)
                            let place = Self.offset(of: Int(slot.rawValue))
                            memory.bytes.fill(with: byte)
                            try? store.write(at: place, from: UnsafeRawBufferPointer(memory.bytes))
                            sched_yield()
                            memory.bytes.fill(with: ~byte)
                            try? store.read(at: place, into: memory.bytes)
                            if !memory.bytes.isFilled(with: byte) { wrong.withLock { $0 += 1 } }
                            preparer.releaseSlot(slot)
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            #expect(wrong.withLock { $0 } == 0)
            preparer.stop()
            #expect(preparer.status.freeCount == 8)
        }
    }
}
