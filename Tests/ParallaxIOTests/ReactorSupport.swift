// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxIO
import Testing

/// A temporary file opened for direct I/O, removed at the end.
final class ScratchFile {
    let path: String
    let fileDescriptor: Int32

    init(byteCount: Int, directory: String = "/tmp", flags: Int32 = PARALLAX_O_DIRECT) throws {
        var template = Array("\(directory)/io-test-XXXXXX".utf8CString)
        let first = mkstemp(&template)
        try #require(first >= 0, "cannot make a file in \(directory)")
        close(first)
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        fileDescriptor = open(path, O_RDWR | flags)
        try #require(fileDescriptor >= 0, "\(directory) does not support direct I/O")
        try #require(ftruncate(fileDescriptor, byteCount) == 0)
    }

    /// Gives the file blocks of its own: holes are read without any check of alignment.
    func fill(byteCount: Int) throws {
        let buffered = open(path, O_WRONLY)
        defer { close(buffered) }
        let bytes = [UInt8](repeating: 0x11, count: byteCount)
        try #require(write(buffered, bytes, byteCount) == byteCount)
        try #require(fsync(buffered) == 0)
    }

    deinit {
        close(fileDescriptor)
        unlink(path)
    }
}

/// Runs the same test body on both reactors: the generic function is specialised for each, as
/// the shard's loop is.
protocol ReactorTest {
    func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws
}

extension ReactorTest {
    func run(
        on engine: IOEngineKind, fileDescriptor: Int32, commandCapacity: Int = 64,
        watchCapacity: Int = 4, syncs: SyncRecord = SyncRecord()
    ) throws {
        switch engine {
        case .ioUring:
            var reactor = try UringReactor(
                fileDescriptor: fileDescriptor, commandCapacity: commandCapacity,
                watchCapacity: watchCapacity, syncs: syncs)
            try run(&reactor)
        case .libaio:
            var reactor = try AioReactor(
                fileDescriptor: fileDescriptor, commandCapacity: commandCapacity,
                watchCapacity: watchCapacity, syncs: syncs)
            try run(&reactor)
        }
    }
}

/// The engines that this machine allows; a test of a forbidden one would prove nothing.
let engines = IOEngineKind.allCases.filter { $0.probe() == nil }

// LIMIT: a hung test fails instead of waiting for ever: 10 s in all, in turns of at most 1 s.
private let patience: Int64 = 10_000_000_000
private let turn: Int64 = 1_000_000_000

extension Reactor where Self: ~Copyable {
    /// Waits until `count` events of any kind have come.
    mutating func collect(_ count: Int) throws -> [ReactorEvent] {
        let deadline = parallax_monotonic_nanoseconds() + UInt64(patience)
        var events: [ReactorEvent] = []
        while events.count < count {
            try #require(parallax_monotonic_nanoseconds() < deadline, "events did not come")
            wait(timeoutNanoseconds: turn)
            while let event = nextEvent() { events.append(event) }
        }
        return events
    }

    mutating func collectCompletions(_ count: Int) throws -> [UInt64: Int] {
        var results: [UInt64: Int] = [:]
        for case .completion(let completion) in try collect(count) {
            #expect(results[completion.tag] == nil, "tag \(completion.tag) completed twice")
            results[completion.tag] = completion.result
        }
        return results
    }

    /// The tokens that one turn without waiting reports.
    mutating func readyNow() -> [EventToken: EventInterest] {
        wait(timeoutNanoseconds: 0)
        var ready: [EventToken: EventInterest] = [:]
        while let event = nextEvent() {
            if case .readiness(let token, let interest) = event { ready[token] = interest }
        }
        return ready
    }

    /// One command with one buffer, run to its end.
    mutating func perform(
        _ operation: StoreCommand.Operation, at offset: UInt64,
        _ memory: UnsafeMutableRawBufferPointer
    ) throws -> Int {
        let base = try #require(memory.baseAddress)
        let segment = DataSegment(base: base, count: memory.count)
        return try withUnsafePointer(to: segment) { buffers in
            enqueue(
                StoreCommand(
                    operation: operation, tag: 77, offset: offset, byteCount: memory.count,
                    buffers: buffers, bufferCount: 1))
            return try #require(try collectCompletions(1)[77])
        }
    }

    mutating func sync() throws -> Int {
        enqueue(StoreCommand(operation: .sync, tag: 78))
        return try #require(try collectCompletions(1)[78])
    }
}

extension Sequence<UInt8> {
    func isFilled(with byte: UInt8) -> Bool {
        for other in self where other != byte { return false }
        return true
    }
}

extension UnsafeMutableRawBufferPointer {
    func fill(with byte: UInt8) {
        for index in indices { self[index] = byte }
    }

    func slice(_ offset: Int, _ count: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: self[offset..<offset + count])
    }
}
