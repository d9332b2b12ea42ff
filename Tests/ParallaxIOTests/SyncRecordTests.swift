// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxIO
import Testing

@Suite("Syncs that fail")
struct SyncRecordTests {
    /// A sync, and what it comes to.
    private struct Sync: ReactorTest {
        let result: Int

        func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
            reactor.enqueue(StoreCommand(operation: .sync, tag: 7))
            let results = try reactor.collectCompletions(1)
            #expect(results[7] == result)
        }
    }

    @Test("fail for every other shard of the store, too", arguments: engines)
    func shared(engine: IOEngineKind) throws {
        var pipeEnds: [Int32] = [-1, -1]
        try #require(pipe(&pipeEnds) == 0)
        defer { pipeEnds.forEach { close($0) } }
        let scratch = try ScratchFile(byteCount: 4096)
        let file = scratch.fileDescriptor
        let syncs = SyncRecord()
        try Sync(result: 0).run(on: engine, fileDescriptor: file, syncs: syncs)
        // Pipes cannot be synced.
        try Sync(result: -Int(EINVAL)).run(on: engine, fileDescriptor: pipeEnds[0], syncs: syncs)
        try Sync(result: -Int(EINVAL)).run(on: engine, fileDescriptor: file, syncs: syncs)
        try Sync(result: 0).run(on: engine, fileDescriptor: file, syncs: SyncRecord())
    }
}
