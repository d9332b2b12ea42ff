// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxIO
import Synchronization
import Testing

@Suite("Extent preparer: slots that the device refuses")
struct UnwritableSlotTests {
    private static let extentBytes = 1 << 20

    /// Which slots the device refuses, with which errno; and what was asked of it.
    private final class Faults: Sendable {
        private let refused: Mutex<[Int: Int32]>
        private let attempts = Mutex<[Int]>([])
        let reports = Mutex<[String]>([])

        init(_ refused: [Int: Int32]) { self.refused = Mutex(refused) }

        var attempted: [Int] { attempts.withLock { $0 } }

        func mend() { refused.withLock { $0 = [:] } }

        func meet(_ slot: Int) -> Int32? {
            attempts.withLock { $0.append(slot) }
            return refused.withLock { $0[slot] }
        }
    }

    private func withPreparer(
        slots: Int, ready: Int = 1, _ faults: Faults,
        _ body: (ExtentPreparer, StoreFile) throws -> Void
    ) throws {
        let path = "/tmp/io-test-unwritable-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        defer { unlink(path) }
        let store = try StoreFile.create(
            path: path, byteCount: UInt64((slots + 1) * Self.extentBytes))
        let preparer = ExtentPreparer(
            store: store, firstExtentOffset: 0, extentBytes: Self.extentBytes,
            readyCountMax: ready, allocator: SlotAllocator(slotCount: slots),
            prepareRange: { start, byteCount, zeroes, report in
                if let code = faults.meet(Int(start) / Self.extentBytes) {
                    return .failure(MediumError(errno: code, operation: .write, offset: start))
                }
                do throws(MediumError) {
                    return .success(
                        try store.prepare(
                            from: start, byteCount: byteCount, zeroes: zeroes, report: report))
                } catch { return .failure(error) }
            },
            reportUnwritable: { sentence in faults.reports.withLock { $0.append(sentence) } })
        defer { preparer.stop() }
        try body(preparer, store)
    }

    /// The answer to one request; an inner nil: the store is full.
    private func request(_ preparer: ExtentPreparer, canWait: Bool) throws -> Int? {
        let answers = Mutex<[Int?]>([])
        preparer.requestSlot(canWait: canWait) { slot in
            answers.withLock { $0.append(slot.map { Int($0.rawValue) }) }
        }
        try waitUntil { answers.withLock { !$0.isEmpty } }
        return answers.withLock { $0[0] }
    }

    /// An attempt that was under way at the mending may still fail.
    private func requestAfterMending(_ preparer: ExtentPreparer) throws -> Int {
        var slot: Int?
        try waitUntil {
            slot = (try? request(preparer, canWait: true)) ?? nil
            return slot != nil
        }
        return try #require(slot)
    }

    @Test(
        "the others are handed out, the bad one never; it does not count as free, and is named once"
    )
    func oneOfMany() throws {
        let faults = Faults([0: EIO, 3: EIO])
        try withPreparer(slots: 6, faults) { preparer, store in
            try preparer.start()
            var given: [Int] = []
            for _ in 0..<4 { given.append(try request(preparer, canWait: true) ?? -1) }
            try #require(given.sorted() == [1, 2, 4, 5])
            let isNone = try request(preparer, canWait: true) == nil
            #expect(isNone)
            let status = preparer.status
            #expect(status.unwritableCount == 2)
            #expect(status.freeCount == 0 && status.readyCount == 0 && status.failure == nil)
            // Whoever is in a hurry gets one that has come back, and not the lowest.
            preparer.releaseSlot(ExtentSlot(5))
            let again = try request(preparer, canWait: false)
            #expect(again == 5)
            #expect(faults.attempted.filter { $0 == 0 || $0 == 3 } == [0, 3])
            let reports = faults.reports.withLock { $0 }
            #expect(reports.count == 2)
            #expect(reports.first?.hasPrefix("an extent of the store \(store.path)") == true)
            #expect(reports.last?.contains("errno 5 at byte \(3 * Self.extentBytes)") == true)
        }
    }

    @Test("slots without a verdict are not given to who cannot wait, either")
    func inAHurry() throws {
        let faults = Faults([0: EIO, 1: EIO])
        try withPreparer(slots: 2, faults) { preparer, _ in
            try preparer.start()
            try waitUntil { preparer.status.failure != nil }
            let none = try (0..<3).map { _ in try request(preparer, canWait: false) }
            #expect(none == [nil, nil, nil])
        }
    }

    @Test(
        "where the device takes no slot at all, nobody waits, nothing is lost, and it may recover")
    func all() throws {
        let slots = ExtentPreparer.suspectsMax + 20
        let faults = Faults(Dictionary(uniqueKeysWithValues: (0..<slots).map { ($0, EIO) }))
        try withPreparer(slots: slots, faults) { preparer, _ in
            try preparer.start()
            try waitUntil { preparer.status.failure != nil }
            // The thread may be at its second attempt already.
            let attempted = faults.attempted
            #expect(attempted.starts(with: 0..<ExtentPreparer.suspectsMax))
            #expect(Set(attempted) == Set(0..<ExtentPreparer.suspectsMax))
            let isNone = try request(preparer, canWait: true) == nil
            #expect(isNone)
            let status = preparer.status
            #expect(status.failure?.errno == EIO)
            #expect(status.unwritableCount == 0)
            #expect(
                preparer.freeSlotCount == 0, "a shard would count on slots that nobody can have")
            faults.mend()
            _ = try requestAfterMending(preparer)
            #expect(preparer.status.failure == nil)
            preparer.stop()
            #expect(preparer.status.unwritableCount + preparer.status.freeCount == slots - 1)
        }
    }

    @Test(
        "a full file system is no fault of the slot: it is the next one again",
        arguments: [ENOSPC, EDQUOT])
    func noSpace(code: Int32) throws {
        let faults = Faults([0: code])
        try withPreparer(slots: 3, faults) { preparer, _ in
            try preparer.start()
            try waitUntil { preparer.status.failure != nil }
            #expect(preparer.status.failure?.errno == code)
            // Not while the thread has one in its hands, at its second attempt.
            try waitUntil { preparer.status.freeCount == 3 }
            #expect(Set(faults.attempted) == [0])
            faults.mend()
            let slot = try requestAfterMending(preparer)
            #expect(slot == 0)
            #expect(faults.reports.withLock { $0.isEmpty })
        }
    }

    @Test("a slot that needs no preparation says nothing of the device: none is left out for it")
    func noProof() throws {
        let faults = Faults([0: EIO])
        try withPreparer(slots: 2, ready: 2, faults) { preparer, store in
            let memory = try AlignedMemory(byteCount: Self.extentBytes)
            try store.write(
                at: UInt64(Self.extentBytes), from: UnsafeRawBufferPointer(memory.bytes))
            try preparer.start()
            try waitUntil { preparer.status.failure != nil }
            #expect(preparer.status.readyCount == 1)
            #expect(preparer.status.unwritableCount == 0)
            #expect(preparer.freeSlotCount == 1)
            let slot = try request(preparer, canWait: false)
            #expect(slot == 1)
        }
    }

    @Test("a halt ends all writing, and the stop after it gives everything back")
    func halt() throws {
        let faults = Faults([:])
        try withPreparer(slots: 4, faults) { preparer, store in
            preparer.halt()
            try preparer.start()
            preparer.stop()
            #expect(faults.attempted.isEmpty)
            #expect(preparer.status.freeCount == 4)
            #expect(store.allocatedBytes == 0)
        }
    }
}
