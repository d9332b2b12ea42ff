// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxIO
import Synchronization
import Testing

/// Free slots as a plain list.
private struct ListedSlots: ExtentSlotSource {
    var free: [ExtentSlot]

    mutating func allocate() -> ExtentSlot? { free.isEmpty ? nil : free.removeFirst() }
    mutating func release(_ slot: ExtentSlot) { free.append(slot) }
}

@Suite("Extent preparer")
struct ExtentPreparerTests {
    private static let layout = ExtentSlotLayout(firstByte: 65536, slotBytes: 1 << 21)

    private func withPreparer(
        slots: Int, ready: Int, access: StoreFile.Access = .readWrite,
        _ body: (ExtentPreparer<ListedSlots>, StoreFile) throws -> Void
    ) throws {
        let path = "/tmp/io-test-extents-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        defer { unlink(path) }
        let byteCount = Self.layout.offset(of: UInt32(slots)) + 65536
        var store = try? StoreFile.create(path: path, byteCount: byteCount)
        if access == .readOnly {
            store = nil
            store = try StoreFile.open(path: path, access: .readOnly)
        }
        let file = try #require(store)
        let source = ListedSlots(
            free: (0..<UInt32(slots)).map { ExtentSlot(index: $0, isWritten: false) })
        let preparer = ExtentPreparer(
            store: file, layout: Self.layout, readyCountMax: ready, source: source)
        try body(preparer, file)
        preparer.stop()
        #expect(preparer.status.readyCount == 0, "slots were kept after the stop")
    }

    private func waitUntil(_ condition: () -> Bool) throws {
        let deadline = parallax_monotonic_nanoseconds() + 20_000_000_000
        while !condition() {
            try #require(parallax_monotonic_nanoseconds() < deadline, "did not come about")
            sched_yield()
        }
    }

    /// Nil: the store is full.
    private func expectRequest(
        _ preparer: ExtentPreparer<ListedSlots>, gives expected: UInt32?
    ) throws {
        let answers = Mutex<[UInt32?]>([])
        preparer.requestSlot { slot in answers.withLock { $0.append(slot) } }
        try waitUntil { answers.withLock { !$0.isEmpty } }
        answers.withLock { #expect($0 == [expected]) }
    }

    @Test("prepared slots are zeroes with blocks of their own; nothing beside them is touched")
    func prepares() throws {
        try withPreparer(slots: 4, ready: 2) { preparer, store in
            let memory = try AlignedMemory(byteCount: 65536)
            memory.bytes.fill(with: 0xDD)
            try store.write(at: 0, from: UnsafeRawBufferPointer(memory.bytes))
            let behind = Self.layout.offset(of: 2)
            try store.write(at: behind, from: UnsafeRawBufferPointer(memory.bytes))
            try preparer.start()
            try waitUntil { preparer.status.readyCount == 2 }
            var status = stat()
            #expect(fstat(store.fileDescriptor, &status) == 0)
            #expect(Int(status.st_blocks) * 512 >= 2 * Self.layout.slotBytes)
            for offset in [0, behind] {
                memory.bytes.fill(with: 0)
                try store.read(at: offset, into: memory.bytes)
                #expect(memory.bytes.allSatisfy { $0 == 0xDD })
            }
            try expectRequest(preparer, gives: 0)
            try expectRequest(preparer, gives: 1)
        }
    }

    @Test("without a prepared slot an unprepared one is given, and nil when the store is full")
    func unprepared() throws {
        try withPreparer(slots: 2, ready: 1) { preparer, _ in
            try expectRequest(preparer, gives: 0)
            try expectRequest(preparer, gives: 1)
            try expectRequest(preparer, gives: nil)
            preparer.releaseSlot(0)
            try expectRequest(preparer, gives: 0)
        }
    }

    @Test("requests and releases from many threads never give one slot to two owners")
    func owners() throws {
        try withPreparer(slots: 6, ready: 2) { preparer, _ in
            try preparer.start()
            let owned = Mutex<Set<UInt32>>([])
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
            let free = preparer.withSource { $0.free.map(\.index).sorted() }
            #expect(free == [0, 1, 2, 3, 4, 5])
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
            let free = preparer.withSource { $0.free }
            #expect(free == [ExtentSlot(index: 0, isWritten: false)])
        }
    }
}
