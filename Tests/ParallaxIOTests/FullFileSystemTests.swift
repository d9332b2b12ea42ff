// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import Glibc
import ParallaxCore
import ParallaxIO
import Synchronization
import Testing

/// Runs `body` with the directory of a file system of 1 MiB, which is gone afterwards. Nil where
/// nobody lets us mount it.
private func withTinyFileSystem<Result>(_ body: (String) throws -> Result) rethrows -> Result? {
    let directory = "/tmp/io-test-tiny-\(UUID().uuidString)"
    guard mkdir(directory, 0o700) == 0 else { return nil }
    defer { rmdir(directory) }
    let mount = output("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", directory)
    guard mount != nil else { return nil }
    defer {
        // A process that another test is just starting has our descriptors as well until it begins.
        let isUnmounted = (0..<1000).contains { _ in output("umount", directory) != nil }
        #expect(isUnmounted, "\(directory) is still in use")
    }
    return try body(directory)
}

/// A tmpfs has direct I/O since Linux 6.6.
private let isAvailable =
    withTinyFileSystem { directory in
        (try? ScratchFile(byteCount: 4096, directory: directory)) != nil
    } ?? false

@Suite(
    "A full file system",
    .enabled(if: isAvailable, "needs the right to mount a tmpfs with direct I/O"))
struct FullFileSystemTests {
    @Test("a write without room is ENOSPC, and reading goes on", arguments: engines)
    func write(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 1 << 19)
                memory.bytes.fill(with: 9)
                #expect(try reactor.perform(.write, at: 0, memory.bytes) == 1 << 19)
                var failure = 0
                for round in 1..<4 where failure == 0 {
                    let result = try reactor.perform(
                        .write, at: UInt64(round) << 19, memory.bytes)
                    if result < 0 { failure = result }
                }
                #expect(failure == -Int(ENOSPC))
                memory.bytes.fill(with: 0)
                #expect(try reactor.perform(.read, at: 0, memory.bytes) == 1 << 19)
                #expect(memory.bytes.isFilled(with: 9))
            }
        }
        try withTinyFileSystem { directory in
            let file = try ScratchFile(byteCount: 16 << 20, directory: directory)
            try Body().run(on: engine, fileDescriptor: file.fileDescriptor)
        }
    }

    @Test("an extent that does not fit is not handed out as prepared, nor lost")
    func preparer() throws {
        try withTinyFileSystem { directory in
            let store = try StoreFile.create(path: directory + "/store", byteCount: 16 << 20)
            let preparer = ExtentPreparer(
                store: store, firstExtentOffset: 0, extentBytes: 8 << 20, readyCountMax: 1,
                allocator: SlotAllocator(slotCount: 2))
            try preparer.start()
            while preparer.status.failure == nil { sched_yield() }
            #expect(preparer.status.failure?.errno == ENOSPC)
            preparer.stop()
            #expect(preparer.status.freeCount == 2)
        }
    }

    @Test(
        "an extent for which there are no blocks is not handed out unprepared either, until there are"
    )
    func unprepared() throws {
        try withTinyFileSystem { directory in
            let store = try StoreFile.create(path: directory + "/store", byteCount: 1 << 20)
            let other = directory + "/other"
            #expect(output("fallocate", "-l", "512K", other) != nil)
            let preparer = ExtentPreparer(
                store: store, firstExtentOffset: 0, extentBytes: 768 << 10, readyCountMax: 1,
                allocator: SlotAllocator(slotCount: 1))
            let answers = Mutex<[ExtentSlot?]>([])
            preparer.requestSlot { slot in answers.withLock { $0.append(slot) } }
            #expect(preparer.status.failure?.errno == ENOSPC)
            #expect(preparer.status.freeCount == 1)
            unlink(other)
            preparer.requestSlot { slot in answers.withLock { $0.append(slot) } }
            #expect(answers.withLock { $0 } == [nil, ExtentSlot(0)])
            preparer.stop()
        }
    }
}
