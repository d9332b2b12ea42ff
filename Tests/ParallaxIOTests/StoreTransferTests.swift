// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxIO
import Testing

@Suite("Store transfer")
struct StoreTransferTests {
    @Test("whatever the kernel transfers at a time, each byte is asked for once, in order")
    func everyCut() throws {
        // Buffers of 1, 3, 2 and 4 sectors; the answers cut them everywhere a sector ends.
        let counts = [1, 3, 2, 4].map { $0 * sectorBytes }
        let total = counts.reduce(0, +)
        for cutSectors in 1...9 {
            try withBuffers(counts) { buffers, base in
                var transfer = StoreTransfer(
                    StoreCommand(
                        operation: .write, tag: 3, offset: 8192, byteCount: total,
                        buffers: buffers, bufferCount: 4))
                var done = 0
                var completion: StoreCompletion?
                while completion == nil {
                    let piece = transfer.nextPiece
                    #expect(piece.offset == 8192 + UInt64(done))
                    #expect(piece.base == base + done, "the memory is contiguous here")
                    let offered = piece.vectorCount == 1 ? piece.byteCount : total - done
                    let taken = min(offered, cutSectors * sectorBytes)
                    try #require(taken > 0)
                    done += taken
                    completion = transfer.settle(result: taken)
                }
                #expect(completion?.result == total)
                #expect(completion?.tag == 3)
                #expect(done == total)
            }
        }
    }

    @Test("buffers of no length are stepped over")
    func emptyBuffers() throws {
        try withBuffers([0, 512, 0, 0, 512, 0]) { buffers, _ in
            var transfer = StoreTransfer(
                StoreCommand(
                    operation: .read, tag: 1, byteCount: 1024, buffers: buffers, bufferCount: 6))
            #expect(transfer.settle(result: 512) == nil)
            #expect(transfer.nextPiece.byteCount == 512)
            #expect(transfer.settle(result: 512)?.result == 1024)
        }
    }

    @Test(
        "an answer that asks to try again is obeyed, but not for ever", arguments: [EINTR, EAGAIN])
    func tryAgain(code: Int32) throws {
        try withBuffers([4096]) { buffers, _ in
            var transfer = StoreTransfer(
                StoreCommand(
                    operation: .read, tag: 1, byteCount: 4096, buffers: buffers, bufferCount: 1))
            var tries = 0
            while tries < 1000 {
                if let completion = transfer.settle(result: -Int(code)) {
                    #expect(completion.result == -Int(code))
                    break
                }
                tries += 1
            }
            #expect(tries > 3)
            #expect(tries < 1000)
        }
    }

    @Test("no progress is an error: the end of the file for a read, a fault for a write")
    func noProgress() throws {
        try withBuffers([4096]) { buffers, _ in
            for (operation, code) in [(StoreCommand.Operation.read, ENODATA), (.write, EIO)] {
                for results in [[0], [512, 0], [100], [512, 100]] {
                    var transfer = StoreTransfer(
                        StoreCommand(
                            operation: operation, tag: 1, byteCount: 4096, buffers: buffers,
                            bufferCount: 1))
                    for result in results.dropLast() {
                        #expect(transfer.settle(result: result) == nil)
                    }
                    #expect(transfer.settle(result: results.last ?? 0)?.result == -Int(code))
                }
            }
        }
    }

    private func withBuffers(
        _ counts: [Int],
        _ body: (UnsafePointer<DataSegment>, UnsafeMutableRawPointer) throws -> Void
    ) throws {
        let memory = try AlignedMemory(byteCount: counts.reduce(0, +))
        let base = try #require(memory.bytes.baseAddress)
        var offset = 0
        let segments = counts.map { count in
            defer { offset += count }
            return DataSegment(base: base + offset, count: count)
        }
        try segments.withUnsafeBufferPointer { buffers in
            try body(try #require(buffers.baseAddress), base)
        }
    }
}
