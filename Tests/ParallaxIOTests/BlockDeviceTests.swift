// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import Glibc
import ParallaxCore
import ParallaxIO
import Testing

/// Runs `body` with a loop device of 4 MiB. Nil where nobody lets us make one.
private func withLoopDevice<Result>(
    sectorBytes: Int = 512, _ body: (String) throws -> Result
) rethrows -> Result? {
    let file = "/tmp/io-test-loop-\(UUID().uuidString)"
    guard output("truncate", "-s", "4M", file) != nil else { return nil }
    defer { unlink(file) }
    let sectorSize = "--sector-size=\(sectorBytes)"
    guard let device = output("losetup", sectorSize, "--find", "--show", "--direct-io=on", file)
    else { return nil }
    let path = device.trimmingCharacters(in: .whitespacesAndNewlines)
    defer { #expect(output("losetup", "--detach", path) != nil) }
    return try body(path)
}

private let isAvailable = withLoopDevice { access($0, R_OK | W_OK) == 0 } ?? false

@Suite(
    "Store file: block devices", .serialized,
    .enabled(if: isAvailable, "needs the right to make a loop device"))
struct BlockDeviceTests {
    @Test("a device says what its transfers must be multiples of", arguments: [512, 4096])
    func alignment(sectorBytes: Int) throws {
        try withLoopDevice(sectorBytes: sectorBytes) { path in
            let store = try StoreFile.open(path: path)
            #expect(store.transferAlignment == sectorBytes)
        }
    }

    @Test("a device has its own size, and is never made larger or emptied")
    func size() throws {
        try withLoopDevice { path in
            let memory = try AlignedMemory(byteCount: 4096)
            memory.bytes.fill(with: 5)
            do {
                let store = try StoreFile.create(path: path, byteCount: nil)
                #expect(store.isBlockDevice)
                #expect(store.byteCount == 4 << 20)
                try store.write(at: 8192, from: UnsafeRawBufferPointer(memory.bytes))
                try store.sync()
            }
            expectRefusal(.deviceTooSmall(4 << 20)) {
                try StoreFile.create(path: path, byteCount: 8 << 20)
            }
            let store = try StoreFile.create(path: path, byteCount: 1 << 20)
            memory.bytes.fill(with: 0)
            try store.read(at: 8192, into: memory.bytes)
            #expect(memory.bytes.isFilled(with: 5))
        }
    }

    @Test(
        "a device that became larger has its new size when it is asked for; it is not made larger")
    func growth() throws {
        try withLoopDevice { path in
            let store = try StoreFile.open(path: path)
            #expect(try store.grow(to: nil) == 4 << 20)
            expectRefusal(.deviceTooSmall(4 << 20)) {
                _ = try store.grow(to: 6 << 20)
                return store
            }
            let file = try #require(output("losetup", "--noheadings", "-O", "BACK-FILE", path))
            truncate(file.trimmingCharacters(in: .whitespacesAndNewlines), 8 << 20)
            try #require(output("losetup", "--set-capacity", path) != nil)
            #expect(try store.grow(to: 6 << 20) == 8 << 20)
            #expect(try store.grow(to: nil) == 8 << 20)
            #expect(store.byteCount == 8 << 20)
        }
    }

    @Test("a device in use is refused, with the user's pid where it has one")
    func exclusive() throws {
        try withLoopDevice { path in
            let statement =
                "fcntl.lockf(f, fcntl.LOCK_EX); g = os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)"
            let child = try LockHolder(path: path, statement: statement)
            expectRefusal(.inUse(processID: child.processID)) { try StoreFile.open(path: path) }
            child.end()
            let store = try StoreFile.open(path: path)
            let again = refusal { try StoreFile.open(path: path, patienceMilliseconds: 0) }
            #expect(again == .inUse(processID: 0))
            #expect(store.isBlockDevice)
        }
    }

    @Test("reactors transfer and sync, and stop at the end of the device", arguments: engines)
    func transfers(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 8192)
                memory.bytes.fill(with: 6)
                let last: UInt64 = (4 << 20) - 8192
                #expect(try reactor.perform(.write, at: last, memory.bytes) == 8192)
                #expect(try reactor.sync() == 0)
                memory.bytes.fill(with: 0)
                #expect(try reactor.perform(.read, at: last, memory.bytes) == 8192)
                #expect(memory.bytes.isFilled(with: 6))
                #expect(
                    try reactor.perform(.read, at: last + 4096, memory.bytes) == -Int(ENODATA))
                #expect(try reactor.perform(.write, at: last + 4096, memory.bytes) < 0)
            }
        }
        try withLoopDevice { path in
            let store = try StoreFile.open(path: path)
            try Body().run(on: engine, fileDescriptor: store.fileDescriptor)
        }
    }

    @Test("a device needs no prepared extents")
    func preparer() throws {
        try withLoopDevice { path in
            let store = try StoreFile.open(path: path)
            let memory = try AlignedMemory(byteCount: 4096)
            memory.bytes.fill(with: 5)
            try store.write(at: 0, from: UnsafeRawBufferPointer(memory.bytes))
            let preparer = ExtentPreparer(
                store: store, firstExtentOffset: 0, extentBytes: 1 << 20, readyCountMax: 2,
                allocator: SlotAllocator(slotCount: 4))
            try preparer.start()
            preparer.requestSlot { #expect($0 == ExtentSlot(0)) }
            preparer.stop()
            try store.read(at: 0, into: memory.bytes)
            #expect(memory.bytes.isFilled(with: 5))
        }
    }
}
