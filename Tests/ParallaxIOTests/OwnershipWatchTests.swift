// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxIO
import Synchronization
import Testing

@Suite("Ownership watch")
struct OwnershipWatchTests {
    private static let sizeBytes: UInt64 = 16 << 20

    private final class Losses: Sendable {
        let all = Mutex<[StoreLoss]>([])

        var evidence: [String] { all.withLock { $0.map(\.evidence) } }

        func note(_ loss: StoreLoss) { all.withLock { $0.append(loss) } }
    }

    private func format(_ medium: some StoreMedium, uuid: UInt64 = 7) throws {
        try Store.format(
            medium: medium,
            options: FormatOptions(
                sizeBytes: Self.sizeBytes, extentBytes: 1 << 20,
                uuid: StoreUUID(high: uuid, low: uuid), createdAtNanoseconds: 0))
    }

    /// A store that was opened as by a daemon, and its path, for who comes by another way.
    private func withStore(_ body: (StoreFile, Superblock) throws -> Void) throws {
        let path = "/tmp/io-test-owner-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        defer { unlink(path) }
        let store = try StoreFile.create(path: path, byteCount: 2 * Self.sizeBytes)
        try format(store)
        try body(store, try Store.open(medium: store).superblock)
    }

    /// Writes a superblock as a program would that knows nothing of our locks.
    private func overwrite(_ store: StoreFile, copy: Int, _ superblock: Superblock) throws {
        let memory = try AlignedMemory(byteCount: blockBytes)
        superblock.encode(to: try #require(memory.bytes.baseAddress))
        let other = open(store.path, O_WRONLY | O_CLOEXEC)
        try #require(other >= 0)
        defer { close(other) }
        let count = pwrite(
            other, memory.bytes.baseAddress, blockBytes, off_t(Superblock.copyOffsets[copy]))
        try #require(count == blockBytes)
    }

    private func spoil(_ store: StoreFile, copy: Int) throws {
        let other = open(store.path, O_WRONLY | O_CLOEXEC)
        try #require(other >= 0)
        defer { close(other) }
        try #require(pwrite(other, "rot", 3, off_t(Superblock.copyOffsets[copy]) + 1000) == 3)
    }

    private func loss(_ watch: OwnershipWatch) -> StoreLoss? {
        do throws(StoreLoss) {
            try watch.verify()
            return nil
        } catch { return error }
    }

    @Test("the watch says once that another program has opened the store")
    func otherGeneration() throws {
        try withStore { store, superblock in
            let losses = Losses()
            let watch = OwnershipWatch(
                path: store.path, medium: store, superblock: superblock, periodMilliseconds: 1,
                onLoss: losses.note)
            try watch.start()
            defer { watch.stop() }
            var other = superblock
            other.generation += 1
            try overwrite(store, copy: 0, other)
            try waitUntil { !losses.evidence.isEmpty }
            let again = loss(watch)
            #expect(again?.evidence == "generation 3, not 2")
            #expect(losses.evidence == ["generation 3, not 2"])
            let sentence = again?.description ?? ""
            #expect(sentence.contains("another program has written to the store \(store.path)"))
        }
    }

    @Test("a store that was made anew, and one that went back, are another's too")
    func otherSuperblocks() throws {
        try withStore { store, superblock in
            let watch = OwnershipWatch(
                path: store.path, medium: store, superblock: superblock, onLoss: { _ in })
            var older = superblock
            older.generation -= 1
            try overwrite(store, copy: 0, older)
            #expect(loss(watch)?.evidence == "generation 1, not 2")
        }
        try withStore { store, superblock in
            let losses = Losses()
            let watch = OwnershipWatch(
                path: store.path, medium: store, superblock: superblock, onLoss: losses.note)
            try format(store, uuid: 8)
            let evidence = loss(watch)?.evidence
            #expect(evidence?.hasPrefix("UUID 00000000-0000-0008") == true, "\(evidence ?? "none")")
            #expect(losses.evidence.count == 1)
        }
    }

    @Test("neither a growth nor a damaged copy is another owner; the other copy is looked at")
    func noOwner() throws {
        try withStore { store, superblock in
            let losses = Losses()
            let watch = OwnershipWatch(
                path: store.path, medium: store, superblock: superblock, onLoss: losses.note)
            #expect(loss(watch) == nil)
            let larger = try Store.grow(superblock, to: 2 * Self.sizeBytes, medium: store)
            #expect(larger.slotCount > superblock.slotCount)
            #expect(loss(watch) == nil)
            try spoil(store, copy: 0)
            #expect(loss(watch) == nil)
            try spoil(store, copy: 1)
            #expect(loss(watch) == nil)
            var other = larger
            other.generation += 1
            try overwrite(store, copy: 1, other)
            #expect(loss(watch)?.evidence == "generation 3, not 2")
            #expect(losses.evidence.count == 1)
        }
    }

    /// A device that does not answer before it is told to.
    private final class HangingMedium: StoreMedium, Sendable {
        let isAsked = Atomic(false)
        private let answer = parallax_eventfd_create(0, 0)

        deinit { close(answer) }

        var byteCount: UInt64 { 1 << 20 }

        func release() { _ = parallax_eventfd_write(answer, 1) }

        func read(
            at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
        ) throws(MediumError) {
            isAsked.store(true, ordering: .sequentiallyConsistent)
            var event = pollfd(fd: answer, events: Int16(POLLIN), revents: 0)
            _ = poll(&event, 1, -1)
            throw MediumError(errno: EIO, operation: .read, offset: offset)
        }

        func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(MediumError) {}

        func sync() throws(MediumError) {}
    }

    @Test("the watch can be stopped while its device hangs")
    func hanging() throws {
        let medium = HangingMedium()
        try withStore { _, superblock in
            let watch = OwnershipWatch(
                path: "hanging", medium: medium, superblock: superblock, onLoss: { _ in })
            try watch.start()
            try waitUntil { medium.isAsked.load(ordering: .sequentiallyConsistent) }
            // Returns, or the test hangs.
            watch.stop()
        }
        medium.release()
    }
}
