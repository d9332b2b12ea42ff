// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import Glibc
import ParallaxCore
import ParallaxIO
import Testing

@Suite("Store file: opening and creating")
struct StoreFileTests {
    private let directory: String

    init() throws {
        directory = "/tmp/io-test-\(UUID().uuidString)"
        try FileManager.default.createDirectory(
            atPath: directory, withIntermediateDirectories: true)
    }

    private func withPath(_ body: (String) throws -> Void) throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try body(directory + "/store")
    }

    private func reason(_ body: () throws -> StoreFile) -> StoreFileError.Reason? {
        do {
            _ = try body()
            return nil
        } catch {
            let reason = (error as? StoreFileError)?.reason
            #expect(reason != nil, "not a StoreFileError: \(error)")
            return reason
        }
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
            #expect(memory.bytes.allSatisfy { $0 == 0 })
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
                #expect(
                    reason {
                        try StoreFile.create(path: path, byteCount: 8192, replacesExisting: true)
                    } != nil, "replaced a store in use")
            }
            #expect(reason { try StoreFile.create(path: path, byteCount: 8192) } == .alreadyExists)
            #expect(try StoreFile.open(path: path).byteCount == 8192)
            let store = try StoreFile.create(path: path, byteCount: 16384, replacesExisting: true)
            #expect(store.byteCount == 16384)
            try store.read(at: 4096, into: memory.bytes)
            #expect(memory.bytes.allSatisfy { $0 == 0 })
        }
    }

    @Test(
        "a size that is no size is refused and leaves no file", arguments: [0, 1, 4095, 4097, 6000])
    func badSize(size: UInt64) throws {
        try withPath { path in
            #expect(reason { try StoreFile.create(path: path, byteCount: size) } == .badSize(size))
            #expect(access(path, F_OK) != 0)
        }
    }

    @Test("a size beyond the file system's limit is refused and leaves no file")
    func tooLarge() throws {
        try withPath { path in
            for size: UInt64 in [(1 << 63) - 4096, 1 << 63] {
                #expect(
                    reason { try StoreFile.create(path: path, byteCount: size) } == .tooLarge(size))
                #expect(access(path, F_OK) != 0)
            }
        }
    }

    @Test("what is no store is refused with a reason")
    func notAStore() throws {
        try withPath { path in
            #expect(reason { try StoreFile.open(path: path) } == .notFound)
            #expect(reason { try StoreFile.open(path: directory) } == .notAStore)
            #expect(reason { try StoreFile.open(path: "/dev/null") } == .notAStore)
            #expect(reason { try StoreFile.create(path: directory, byteCount: 4096) } == .notAStore)
            let below = directory + "/no/store"
            #expect(
                reason { try StoreFile.create(path: below, byteCount: 4096) } == .directoryNotFound)
            // A file, but not of a file system with direct I/O.
            #expect(reason { try StoreFile.open(path: "/proc/self/oom_score_adj") } == .noDirectIO)
            let name = directory + "/" + String(repeating: "x", count: 300)
            #expect(reason { try StoreFile.open(path: name) } == .system(ENAMETOOLONG))
        }
    }

    @Test("a user without permission is told so", .enabled(if: getuid() != 0, "root may do all"))
    func permission() throws {
        try withPath { path in
            _ = try StoreFile.create(path: path, byteCount: 4096)
            #expect(chmod(path, 0) == 0)
            #expect(reason { try StoreFile.open(path: path) } == .permissionDenied)
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
                    let refusal = reason { try StoreFile.open(path: path, access: access) }
                    guard case .inUse? = refusal else {
                        Issue.record("not refused: \(String(describing: refusal))")
                        continue
                    }
                }
                #expect(writer.byteCount == 4096)
            }
            do {
                let one = try StoreFile.open(path: path, access: .readOnly)
                let two = try StoreFile.open(path: path, access: .readOnly)
                guard case .inUse? = reason({ try StoreFile.open(path: path) }) else {
                    Issue.record("a writer beside readers")
                    return
                }
                #expect(one.byteCount == two.byteCount)
            }
            #expect(reason { try StoreFile.open(path: path) } == nil)
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
            let refusal = reason { try StoreFile.open(path: path) }
            #expect(refusal == .inUse(processID: child.processID))
            child.end()
            #expect(reason { try StoreFile.open(path: path) } == nil)
        }
    }

    @Test("a lock without a name still keeps us out")
    func anonymousLock() throws {
        try withPath { path in
            _ = try StoreFile.create(path: path, byteCount: 4096)
            let child = try LockHolder(path: path, statement: "fcntl.flock(f, fcntl.LOCK_EX)")
            #expect(reason { try StoreFile.open(path: path) } == .inUse(processID: 0))
            child.end()
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
            #expect(try LockHolder.output(script, path) == "\(getpid())\n")
            #expect(store.byteCount == 4096)
        }
    }
}

/// A Python process that opens a file, executes a statement on it and waits.
private final class LockHolder {
    private let process = Process()
    private let input = Pipe()

    var processID: Int32 { process.processIdentifier }

    init(path: String, statement: String) throws {
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = [
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'r+b'); \(statement); "
                + "print('locked', flush=True); sys.stdin.read()",
            path,
        ]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        var answer = Data()
        while answer.last != UInt8(ascii: "\n") {
            let more = output.fileHandleForReading.availableData
            try #require(!more.isEmpty, "the lock holder has ended")
            answer.append(more)
        }
        try #require(String(decoding: answer, as: UTF8.self) == "locked\n")
    }

    func end() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }

    static func output(_ script: String, _ path: String) throws -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = ["-c", script, path]
        process.standardOutput = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: data, as: UTF8.self)
    }
}
