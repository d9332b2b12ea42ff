// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxIO
import Testing

@Suite("Store file: blocking access")
struct StoreMediumTests {
    private func withStore(_ byteCount: UInt64, _ body: (StoreFile) throws -> Void) throws {
        let path = "/tmp/io-test-medium-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        let store = try StoreFile.create(path: path, byteCount: byteCount)
        defer { unlink(path) }
        try body(store)
    }

    private func failure(_ body: () throws -> Void) -> MediumError? {
        do {
            try body()
            return nil
        } catch {
            return error as? MediumError
        }
    }

    /// Block `n` holds the byte `n`, modulo 251.
    private func fill(_ store: StoreFile, blocks: Int) throws {
        let memory = try AlignedMemory(byteCount: blocks * blockBytes)
        for block in 0..<blocks {
            memory.bytes.slice(block * blockBytes, blockBytes).fill(with: UInt8(block % 251))
        }
        try store.write(
            at: 0, from: UnsafeRawBufferPointer(memory.bytes.slice(0, blocks * blockBytes)))
        try store.sync()
    }

    @Test("what was written is read")
    func roundTrip() throws {
        try withStore(1 << 20) { store in
            try fill(store, blocks: 256)
            let memory = try AlignedMemory(byteCount: blockBytes)
            for block in [0, 1, 100, 255] {
                try store.read(at: UInt64(block * blockBytes), into: memory.bytes)
                #expect(memory.bytes.isFilled(with: UInt8(block % 251)))
            }
        }
    }

    @Test("a read past the end names the place", arguments: [1, 5])
    func endOfFile(count: Int) throws {
        try withStore(1 << 20) { store in
            try fill(store, blocks: 256)
            let memory = try AlignedMemory(byteCount: 8192)
            let last = UInt64(255 * blockBytes)
            let expected = MediumError(errno: ENODATA, operation: .read, offset: last)
            let single = failure { try store.read(at: last, into: memory.bytes) }
            #expect(single == expected)
            let base = try #require(memory.bytes.baseAddress)
            let segment = DataSegment(base: base, count: 8192)
            withUnsafePointer(to: segment) { buffers in
                let commands = (0..<count).map { index in
                    StoreCommand(
                        operation: .read, tag: 0, offset: index == count - 1 ? last : 0,
                        byteCount: 8192, buffers: buffers, bufferCount: 1)
                }
                commands.withUnsafeBufferPointer { list in
                    let listed = failure { try store.readAll(list) }
                    #expect(listed == expected)
                }
            }
        }
    }

    @Test("readAll reads all, in any number and any shape", arguments: [0, 1, 2, 3, 64, 65, 500])
    func readAll(count: Int) throws {
        try withStore(1 << 20) { store in
            try fill(store, blocks: 256)
            let memory = try AlignedMemory(byteCount: max(1, count) * 2 * blockBytes)
            let base = try #require(memory.bytes.baseAddress)
            // Two buffers each, in swapped order.
            let segments = (0..<max(1, count * 2)).map {
                DataSegment(base: base + ($0 ^ 1) * blockBytes, count: blockBytes)
            }
            try segments.withUnsafeBufferPointer { buffers in
                let first = try #require(buffers.baseAddress)
                let commands = (0..<count).map { index in
                    StoreCommand(
                        operation: .read, tag: 9, offset: UInt64(index % 255 * blockBytes),
                        byteCount: 2 * blockBytes, buffers: first + 2 * index, bufferCount: 2)
                }
                try commands.withUnsafeBufferPointer { try store.readAll($0) }
            }
            for index in 0..<count {
                let block = index % 255
                #expect(memory.bytes[(2 * index + 1) * blockBytes] == UInt8(block % 251))
                #expect(memory.bytes[2 * index * blockBytes] == UInt8((block + 1) % 251))
            }
        }
    }

    @Test("a store opened for reading cannot be written")
    func readOnly() throws {
        let path = "/tmp/io-test-readonly-\(getpid())"
        _ = try StoreFile.create(path: path, byteCount: 8192)
        defer { unlink(path) }
        let store = try StoreFile.open(path: path, access: .readOnly)
        let memory = try AlignedMemory(byteCount: 4096)
        try store.read(at: 0, into: memory.bytes)
        let bytes = UnsafeRawBufferPointer(memory.bytes)
        let refused = failure { try store.write(at: 0, from: bytes) }
        #expect(refused == MediumError(errno: EBADF, operation: .write, offset: 0))
    }
}
