// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxIO
import Testing

@Suite("Store file: growth")
struct StoreGrowthTests {
    @Test("a file becomes longer and keeps what is in it; it never becomes shorter")
    func file() throws {
        let path = "/tmp/io-test-grow-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        defer { unlink(path) }
        let store = try StoreFile.create(path: path, byteCount: 65536)
        let memory = try AlignedMemory(byteCount: 4096)
        memory.bytes.fill(with: 5)
        try store.write(at: 61440, from: UnsafeRawBufferPointer(memory.bytes))
        #expect(try store.grow(to: 1 << 20) == 1 << 20)
        #expect(store.byteCount == 1 << 20)
        memory.bytes.fill(with: 0)
        try store.read(at: 61440, into: memory.bytes)
        #expect(memory.bytes.isFilled(with: 5))
        try store.read(at: (1 << 20) - 4096, into: memory.bytes)
        #expect(memory.bytes.isFilled(with: 0))
        #expect(try store.grow(to: 65536) == 1 << 20)
        // Somebody else has made it longer meanwhile.
        truncate(path, 1 << 21)
        #expect(try store.grow(to: (1 << 20) + 4096) == 1 << 21)
        expectRefusal(.badSize(4097)) {
            _ = try store.grow(to: 4097)
            return store
        }
        expectRefusal(.tooLarge(.max & ~4095)) {
            _ = try store.grow(to: .max & ~4095)
            return store
        }
        #expect(store.byteCount == 1 << 21)
    }
}
