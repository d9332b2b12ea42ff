// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("The end of the log")
struct LogEndTests {
    @Test("a chunk that a crash has torn does not come back when the next one is torn in its place")
    func tornTwice() throws {
        let store = try CheckTests.makeStore()
        // One of the blocks at which the comparison looks although nothing was written there.
        let chunk = try store.writeSingly("gold", 208..<209)[0]
        let rest = store.device.peek(at: chunk + 512, count: 7 * 512)
        try #require(rest.allSatisfy { $0 == 0 })
        // The first crash: only the first sector is what was written.
        try overwrite(store.device, chunk + 512, with: 0xAA)
        store.forget("gold", 208..<209)
        try store.open()
        #expect(try store.compare() == SmallStore.Comparison())
        // The second: of the next header, all but the first sector, which are zeros.
        try overwrite(store.device, chunk + 512, with: 0)
        try store.open()
        #expect(try store.compare() == SmallStore.Comparison())
    }

    @Test("a later chunk that was written into the missing one says that this had been durable")
    func misdirected() throws {
        let store = try CheckTests.makeStore()
        let chunks = try store.writeSingly("gold", 208..<210)
        let later = store.device.peek(at: chunks[1], count: blockBytes)
        for (offset, block) in [
            (chunks[0] + UInt64(blockBytes), later),
            (chunks[1], [UInt8](repeating: 0, count: blockBytes)),
        ] {
            try block.withUnsafeBytes { try store.device.write(at: offset, from: $0) }
        }
        try store.device.sync()
        let error = #expect(throws: StoreError.self) { try store.open() }
        #expect(error?.message.contains("breaks off") == true)
    }

    /// The rest of the header's block.
    private func overwrite(
        _ device: SimulatedDevice, _ offset: UInt64, with byte: UInt8
    ) throws {
        let sectors = [UInt8](repeating: byte, count: 7 * 512)
        try sectors.withUnsafeBytes { try device.write(at: offset, from: $0) }
        try device.sync()
    }
}
