// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxSimulation

/// The engine with one disk, on a device in memory: for tests of what reaches the disk, which
/// `MemoryDisk` cannot tell.
final class EngineDisk {
    private let device = SimulatedDevice(byteCount: 25 << 20, seed: 1)
    private var engine: Engine
    private var slots: SlotAllocator
    private var clock: UInt64 = 1
    private var handle: UInt32 = 0

    init(sectors: UInt64) throws {
        try Store.format(
            medium: device,
            options: FormatOptions(
                sizeBytes: 25 << 20, extentBytes: 1 << 20, streamCount: 1,
                uuid: StoreUUID(high: 1, low: 2), createdAtNanoseconds: 0))
        let store = try Store.open(medium: device)
        var configuration = EngineConfiguration()
        configuration.nodeCacheBytes = 256 * blockBytes
        engine = try Engine.open(store: store, configuration: configuration, medium: device)
        slots = SlotAllocator(slotCount: Int(store.superblock.slotCount))
        for slot in engine.ownedSlots() { _ = slots.markUsed(slot) }
        let bytes = sectors * UInt64(sectorBytes)
        engine.submit(
            change: .create(name: "disk", sizeBytes: bytes, createdAtNanoseconds: 1), ticket: 1)
        for _ in 0..<1000 {
            step()
            guard let reply = engine.nextChangeReply() else { continue }
            guard case .vdi(let identifier) = try reply.result.get() else { break }
            handle = engine.handle(of: identifier) ?? 0
            return
        }
        throw CatalogError.ioError
    }

    private func step() { engine.step(on: device, slots: &slots, clock: &clock) }

    func perform(_ request: BlockRequest) -> BlockStatus {
        var request = request
        request.vdi = handle
        engine.submit(request)
        for _ in 0..<1000 {
            step()
            if let reply = engine.nextReply() { return reply.status }
        }
        preconditionFailure("the engine does not answer, and has the request's memory")
    }

    /// In memory of our own.
    func write(_ bytes: [UInt8], atSector sector: UInt64) -> BlockStatus {
        var bytes = bytes
        return transfer(.write, sector, &bytes)
    }

    func read(sector: UInt64, count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xee, count: count)
        return transfer(.read, sector, &bytes) == .ok ? bytes : []
    }

    /// As a truth value, so that a failure does not print a thousand numbers.
    func holds(_ bytes: [UInt8], atSector sector: Int) -> Bool {
        read(sector: UInt64(sector), count: bytes.count) == bytes
    }

    private func transfer(
        _ operation: BlockRequest.Operation, _ sector: UInt64, _ bytes: inout [UInt8]
    ) -> BlockStatus {
        bytes.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return .invalid }
            var segment = DataSegment(base: base, count: bytes.count)
            return withUnsafePointer(to: &segment) { segment in
                perform(
                    BlockRequest(
                        operation: operation, vdi: handle, session: 1, tag: 1,
                        firstSector: sector, sectorCount: UInt64(bytes.count / sectorBytes),
                        segments: segment, segmentCount: 1))
            }
        }
    }

    /// Whether nothing is left to do, in a bounded number of turns.
    func comesToRest() -> Bool {
        for _ in 0..<1000 {
            if engine.isIdle { return true }
            engine.requestCheckpoint()
            step()
        }
        return false
    }
}
