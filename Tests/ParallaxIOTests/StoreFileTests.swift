// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Foundation
import Glibc
import ParallaxCore
import ParallaxIO
import Testing

@Suite("Store file: opening and creating")
struct StoreFileTests {
    private let directory = "/tmp/io-test-\(UUID().uuidString)"

    private func withPath(_ body: (String) throws -> Void) throws {
        try FileManager.default.createDirectory(
            atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try body(directory + "/store")
    }

    @Test("a new store has its size, no contents, no blocks, and only its owner may read it")
    func create() throws {
        try withPath { path in
            let store = try StoreFile.create(path: path, byteCount: 1 << 40)
            #expect(store.byteCount == 1 << 40)
            #expect(!store.isBlockDevice)
            var status = stat()
            #expect(stat(path, &status) == 0)
            #expect(status.st_blocks == 0)
            #expect(status.st_mode & 0o777 == 0o600)
            let memory = try AlignedMemory(byteCount: 4096)
            memory.bytes.fill(with: 1)
            try store.read(at: (1 << 40) - 4096, into: memory.bytes)
            #expect(memory.bytes.isFilled(with: 0))
        }
    }

    @Test("an existing file is refused, or replaced when that is asked for, and then it is empty")
    func existing() throws {
        try withPath { path in
            let memory = try AlignedMemory(byteCount: 4096)
            memory.bytes.fill(with: 7)
            do {
                let store = try StoreFile.create(path: path, byteCount: 8192)
                try store.write(at: 4096, from: UnsafeRawBufferPointer(memory.bytes))
                expectRefusal(.inUse(processID: 0)) {
                    try StoreFile.create(
                        path: path, byteCount: 8192, replacesExisting: true,
                        patienceMilliseconds: 0)
                }
            }
            expectRefusal(.alreadyExists) { try StoreFile.create(path: path, byteCount: 8192) }
            #expect(try StoreFile.open(path: path).byteCount == 8192)
            let store = try StoreFile.create(path: path, byteCount: 16384, replacesExisting: true)
            #expect(store.byteCount == 16384)
            try store.read(at: 4096, into: memory.bytes)
            #expect(memory.bytes.isFilled(with: 0))
        }
    }

    @Test(
        "a size that is no size is refused and leaves no file", arguments: [0, 1, 4095, 4097, 6000])
    func badSize(size: UInt64) throws {
        try withPath { path in
            expectRefusal(.badSize(size)) { try StoreFile.create(path: path, byteCount: size) }
            #expect(access(path, F_OK) != 0)
        }
    }

    @Test("a size beyond the file system's limit is refused and leaves no file")
    func tooLarge() throws {
        try withPath { path in
            for size: UInt64 in [(1 << 63) - 4096, 1 << 63] {
                expectRefusal(.tooLarge(size)) { try StoreFile.create(path: path, byteCount: size) }
                #expect(access(path, F_OK) != 0)
            }
        }
    }

    @Test("what is no store is refused with a reason")
    func notAStore() throws {
        try withPath { path in
            expectRefusal(.notFound) { try StoreFile.open(path: path) }
            expectRefusal(.notAStore) { try StoreFile.open(path: directory) }
            expectRefusal(.notAStore) { try StoreFile.open(path: "/dev/null") }
            expectRefusal(.notAStore) { try StoreFile.create(path: directory, byteCount: 4096) }
            let below = directory + "/no/store"
            expectRefusal(.directoryNotFound) { try StoreFile.create(path: below, byteCount: 4096) }
            // A file, but not of a file system with direct I/O.
            expectRefusal(.noDirectIO) { try StoreFile.open(path: "/proc/self/oom_score_adj") }
            let name = directory + "/" + String(repeating: "x", count: 300)
            expectRefusal(.system(ENAMETOOLONG)) { try StoreFile.open(path: name) }
        }
    }

    @Test("a user without permission is told so", .enabled(if: getuid() != 0, "root may do all"))
    func permission() throws {
        try withPath { path in
            _ = try StoreFile.create(path: path, byteCount: 4096)
            #expect(chmod(path, 0) == 0)
            expectRefusal(.permissionDenied) { try StoreFile.open(path: path) }
        }
    }

    @Test("every error is one sentence with the object, the reason and the next step")
    func sentences() {
        let reasons: [StoreFileError.Reason] = [
            .notFound, .directoryNotFound, .notAStore, .permissionDenied, .readOnlyFileSystem,
            .noDirectIO, .inUse(processID: 0), .inUse(processID: getpid()), .alreadyExists,
            .badSize(5), .tooLarge(5), .deviceTooSmall(5), .noSpace, .system(EIO),
        ]
        for reason in reasons {
            let text = StoreFileError(.open, "/a/b", reason).description
            #expect(text.hasPrefix("cannot open store /a/b: "))
            #expect(!text.contains("\n"))
            #expect(text.count < 160)
        }
        let text = StoreFileError(.open, "/a/b", .inUse(processID: getpid())).description
        #expect(text.contains("process \(getpid()) ("))
    }

    // MARK: Locks

    @Test("one writer, or many readers; a refused opener takes nothing from the first")
    func sharing() throws {
        try withPath { path in
            do {
                let writer = try StoreFile.create(path: path, byteCount: 4096)
                for access: StoreFile.Access in [.readOnly, .readWrite, .readOnly, .readWrite] {
                    let refused = refusal {
                        try StoreFile.open(path: path, access: access, patienceMilliseconds: 0)
                    }
                    guard case .inUse? = refused else {
                        Issue.record("not refused: \(String(describing: refused))")
                        continue
                    }
                }
                #expect(writer.byteCount == 4096)
            }
            do {
                let one = try StoreFile.open(path: path, access: .readOnly)
                let two = try StoreFile.open(path: path, access: .readOnly)
                let refused = refusal { try StoreFile.open(path: path, patienceMilliseconds: 0) }
                guard case .inUse? = refused else {
                    Issue.record("a writer beside readers")
                    return
                }
                #expect(one.byteCount == two.byteCount)
            }
            expectRefusal(nil) { try StoreFile.open(path: path) }
        }
    }

    @Test(
        "another process's lock is respected and its pid told",
        arguments: [
            "fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)",
            "fcntl.lockf(f, fcntl.LOCK_EX)",
        ])
    func foreignLock(statement: String) throws {
        try withPath { path in
            _ = try StoreFile.create(path: path, byteCount: 4096)
            let child = try LockHolder(path: path, statement: statement)
            let refused = refusal { try StoreFile.open(path: path) }
            #expect(refused == .inUse(processID: child.processID))
            child.end()
            expectRefusal(nil) { try StoreFile.open(path: path) }
        }
    }

    @Test("a lock without a name is waited for, and keeps us out if it stays")
    func anonymousLock() throws {
        try withPath { path in
            _ = try StoreFile.create(path: path, byteCount: 4096)
            let statement = "fcntl.flock(f, fcntl.LOCK_EX)"
            let child = try LockHolder(path: path, statement: statement)
            let refused = refusal { try StoreFile.open(path: path, patienceMilliseconds: 30) }
            #expect(refused == .inUse(processID: 0))
            let opener = try ShardThread(name: "opener") {
                expectRefusal(nil) {
                    try StoreFile.open(path: path, patienceMilliseconds: 20_000)
                }
            }
            child.end()
            opener.join()
        }
    }

    @Test("a store can be opened again as soon as its reactor and it are gone", arguments: engines)
    func reopening(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let memory = try AlignedMemory(byteCount: 65536)
                #expect(try reactor.perform(.write, at: 0, memory.bytes) == 65536)
                #expect(try reactor.sync() == 0)
                _ = reactor.readyNow()
            }
        }
        try withPath { path in
            _ = try StoreFile.create(path: path, byteCount: 65536)
            // Most times at once; tests that start processes hold copies of every descriptor for
            // a moment.
            var promptCount = 0
            for _ in 0..<50 {
                let prompt = try? StoreFile.open(path: path, patienceMilliseconds: 0)
                promptCount += prompt == nil ? 0 : 1
                let store = try prompt ?? StoreFile.open(path: path)
                try Body().run(on: engine, fileDescriptor: store.fileDescriptor)
            }
            #expect(promptCount > 25)
        }
    }

    @Test("other processes see our lock, and our pid")
    func ownLock() throws {
        try withPath { path in
            let store = try StoreFile.create(path: path, byteCount: 4096)
            // struct flock of 64-bit Linux; F_GETLK gives the holder's pid.
            let script = """
                import fcntl, os, struct, sys
                f = open(sys.argv[1], 'r+b')
                try:
                    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    print('free')
                except BlockingIOError:
                    query = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)
                    print(struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, query))[4])
                """
            #expect(output("python3", "-c", script, path) == "\(getpid())\n")
            #expect(store.byteCount == 4096)
        }
    }
}
