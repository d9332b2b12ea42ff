// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxIO
import Testing

@Suite("Reactor: store commands", .serialized)
struct ReactorCommandTests {
    @Test("what was written and synced is what a second descriptor reads", arguments: engines)
    func writeSyncRead(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            let file: ScratchFile
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 16384)
                memory.bytes.fill(with: 0xA5)
                #expect(try reactor.perform(.write, at: 8192, memory.bytes) == 16384)
                #expect(try reactor.sync() == 0)
                var bytes = [UInt8](repeating: 0, count: 24576)
                let other = open(file.path, O_RDONLY)
                defer { close(other) }
                #expect(pread(other, &bytes, 24576, 0) == 24576)
                #expect(bytes[0..<8192].isFilled(with: 0))
                #expect(bytes[8192...].isFilled(with: 0xA5))
                memory.bytes.fill(with: 0)
                #expect(try reactor.perform(.read, at: 8192, memory.bytes) == 16384)
                #expect(memory.bytes.isFilled(with: 0xA5))
            }
        }
        let file = try ScratchFile(byteCount: 1 << 20)
        try Body(file: file).run(on: engine, fileDescriptor: file.fileDescriptor)
    }

    @Test(
        "many rounds of a full table keep every tag and every byte", arguments: engines,
        [1, 8, 700])
    func manyInFlight(engine: IOEngineKind, capacity: Int) throws {
        struct Body: ReactorTest {
            let capacity: Int
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: capacity * 4096)
                let segments = UnsafeMutablePointer<DataSegment>.allocate(capacity: capacity)
                defer { segments.deallocate() }
                let base = try #require(memory.bytes.baseAddress)
                for index in 0..<capacity {
                    segments[index] = DataSegment(base: base + index * 4096, count: 4096)
                }
                for round in 0..<3 {
                    for operation in [StoreCommand.Operation.write, .read] {
                        for index in 0..<capacity {
                            let byte = UInt8(truncatingIfNeeded: index &* 31 &+ round)
                            memory.bytes.slice(index * 4096, 4096)
                                .fill(with: operation == .write ? byte : 0)
                            #expect(reactor.freeCommandSlots == capacity - index)
                            reactor.enqueue(
                                StoreCommand(
                                    operation: operation, tag: UInt64(index),
                                    offset: UInt64(index * 4096), byteCount: 4096,
                                    buffers: segments + index, bufferCount: 1))
                        }
                        #expect(reactor.freeCommandSlots == 0)
                        let results = try reactor.collectCompletions(capacity)
                        #expect(results.count == capacity)
                        #expect(Set(results.values) == [4096])
                        #expect(reactor.freeCommandSlots == capacity)
                    }
                    for index in 0..<capacity {
                        let byte = UInt8(truncatingIfNeeded: index &* 31 &+ round)
                        #expect(memory.bytes[index * 4096 + 4095] == byte)
                    }
                }
            }
        }
        let file = try ScratchFile(byteCount: 4 << 20)
        try Body(capacity: capacity).run(
            on: engine, fileDescriptor: file.fileDescriptor, commandCapacity: capacity)
    }

    @Test("a command of more buffers than one system call takes is done whole", arguments: engines)
    func longVector(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let count = 2500
                let memory = try AlignedMemory(byteCount: count * 512)
                let base = try #require(memory.bytes.baseAddress)
                for index in 0..<count * 512 {
                    memory.bytes[index] = UInt8(truncatingIfNeeded: index / 512)
                }
                // Backwards, so that a wrong order shows.
                let segments = (0..<count).map {
                    DataSegment(base: base + (count - 1 - $0) * 512, count: 512)
                }
                try segments.withUnsafeBufferPointer { buffers in
                    for operation in [StoreCommand.Operation.write, .read] {
                        if operation == .read { memory.bytes.fill(with: 0xEE) }
                        reactor.enqueue(
                            StoreCommand(
                                operation: operation, tag: 5, offset: 4096,
                                byteCount: count * 512, buffers: buffers.baseAddress,
                                bufferCount: UInt32(count)))
                        let results = try reactor.collectCompletions(1)
                        #expect(results == [5: count * 512])
                    }
                }
                for index in 0..<count {
                    #expect(memory.bytes[index * 512] == UInt8(truncatingIfNeeded: index))
                }
                #expect(try reactor.perform(.read, at: 4096, memory.bytes.slice(0, 512)) == 512)
                #expect(memory.bytes[0] == UInt8(truncatingIfNeeded: count - 1))
            }
        }
        let file = try ScratchFile(byteCount: 4 << 20)
        try Body().run(on: engine, fileDescriptor: file.fileDescriptor)
    }

    @Test(
        "a read past the end of the file is an error, wherever the end is", arguments: engines,
        [0, 512, 4096, 4608, 5000])
    func endOfFile(engine: IOEngineKind, fileBytes: Int) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 8192)
                #expect(try reactor.perform(.read, at: 0, memory.bytes) == -Int(ENODATA))
                #expect(reactor.freeCommandSlots == 64)
            }
        }
        let file = try ScratchFile(byteCount: fileBytes)
        try Body().run(on: engine, fileDescriptor: file.fileDescriptor)
    }

    @Test("the kernel's errors come back as results, and the reactor lives on", arguments: engines)
    func errors(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            let expected: Int32
            let operation: StoreCommand.Operation
            let offset: UInt64
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 8192)
                for _ in 0..<200 {
                    let result = try reactor.perform(
                        operation, at: offset, memory.bytes.slice(0, 4096))
                    #expect(result == -Int(expected))
                }
                #expect(reactor.freeCommandSlots == 64)
            }
        }
        let file = try ScratchFile(byteCount: 65536)
        try file.fill(byteCount: 65536)
        let readOnly = open(file.path, O_RDONLY | PARALLAX_O_DIRECT)
        defer { close(readOnly) }
        try Body(expected: EBADF, operation: .write, offset: 0)
            .run(on: engine, fileDescriptor: readOnly)
        try Body(expected: EINVAL, operation: .read, offset: 3)
            .run(on: engine, fileDescriptor: file.fileDescriptor)
    }

    @Test("memory that is not mapped is an error and no crash", arguments: engines)
    func unmappedMemory(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                var base: UnsafeMutableRawPointer?
                do {
                    let memory = try AlignedMemory(byteCount: 1 << 30)
                    base = memory.bytes.baseAddress
                }
                let unmapped = UnsafeMutableRawBufferPointer(start: base, count: 4096)
                #expect(try reactor.perform(.read, at: 0, unmapped) == -Int(EFAULT))
            }
        }
        let file = try ScratchFile(byteCount: 65536)
        try Body().run(on: engine, fileDescriptor: file.fileDescriptor)
    }

    @Test("one failed command among many harms no other", arguments: engines)
    func mixedErrors(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 65536)
                let base = try #require(memory.bytes.baseAddress)
                let segment = DataSegment(base: base, count: 512)
                try withUnsafePointer(to: segment) { buffers in
                    // Every third offset is misaligned for direct I/O.
                    for index in 0..<30 {
                        reactor.enqueue(
                            StoreCommand(
                                operation: .read, tag: UInt64(index),
                                offset: index % 3 == 0 ? 1 : 0, byteCount: 512,
                                buffers: buffers, bufferCount: 1))
                    }
                    let results = try reactor.collectCompletions(30)
                    for index in 0..<30 {
                        #expect(results[UInt64(index)] == (index % 3 == 0 ? -Int(EINVAL) : 512))
                    }
                }
            }
        }
        let file = try ScratchFile(byteCount: 65536)
        try file.fill(byteCount: 65536)
        try Body().run(on: engine, fileDescriptor: file.fileDescriptor)
    }

    @Test("registered buffers, or their absence, change nothing that is seen", arguments: engines)
    func registeredBuffers(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 1 << 16)
                let base = try #require(memory.bytes.baseAddress)
                let all = [
                    DataSegment(base: base, count: 1 << 15),
                    DataSegment(base: base + (1 << 15), count: 1 << 15),
                ]
                _ = all.withUnsafeBufferPointer { reactor.registerBuffers($0) }
                memory.bytes.fill(with: 0x3C)
                let part = DataSegment(base: base + (1 << 15) + 4096, count: 4096)
                try withUnsafePointer(to: part) { buffers in
                    for (tag, operation) in [(1, StoreCommand.Operation.write), (2, .read)] {
                        reactor.enqueue(
                            StoreCommand(
                                operation: operation, tag: UInt64(tag), offset: 4096,
                                byteCount: 4096, buffers: buffers, bufferCount: 1,
                                registeredBuffer: 1))
                        let results = try reactor.collectCompletions(1)
                        #expect(results == [UInt64(tag): 4096])
                        part.base.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
                    }
                }
                #expect(try reactor.perform(.read, at: 4096, memory.bytes.slice(0, 4096)) == 4096)
                #expect(memory.bytes[4095] == 0x3C)
            }
        }
        let file = try ScratchFile(byteCount: 65536)
        try Body().run(on: engine, fileDescriptor: file.fileDescriptor)
    }

    @Test("a reactor that ends waits for its commands", arguments: engines)
    func endInFlight(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            let segments: UnsafeMutablePointer<DataSegment>
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                for index in 0..<32 {
                    reactor.enqueue(
                        StoreCommand(
                            operation: .write, tag: 0, offset: UInt64(index * 65536),
                            byteCount: 65536, buffers: segments, bufferCount: 1))
                    if index == 16 { reactor.wait(timeoutNanoseconds: 0) }
                }
            }
        }
        let file = try ScratchFile(byteCount: 4 << 20)
        let memory = try AlignedMemory(byteCount: 65536)
        let segments = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        defer { segments.deallocate() }
        segments[0] = DataSegment(base: try #require(memory.bytes.baseAddress), count: 65536)
        try Body(segments: segments).run(on: engine, fileDescriptor: file.fileDescriptor)
    }
}
