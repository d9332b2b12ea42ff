// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

/// A small store with disks, snapshots and clones, and a model of what is in them. Engines run on the
/// device in blocking turns.
final class SmallStore {
    typealias Content = [UInt64: UInt32]

    let device: SimulatedDevice
    let streamCount: Int
    private(set) var engines: [RunningEngine] = []
    var slots: SlotAllocator
    private var clock: UInt64 = 1
    private var nextStamp: UInt32 = 1
    private var nextTicket: UInt64 = 1
    /// What each head, and each snapshot by "vdi@name", must read as; other blocks are zeros.
    private(set) var model: [String: Content] = [:]
    private var streams: [String: Int] = [:]
    private(set) var vdis: [String: VDIIdentifier] = [:]
    private(set) var snapshots: [String: SnapshotIdentifier] = [:]

    /// For the next opening.
    var configuration: EngineConfiguration

    init(
        sizeBytes: UInt64 = 25 << 20, extentBytes: UInt64 = 1 << 20, streamCount: Int = 1,
        nodeFrames: Int = 256, leasesAhead: Int = 2, device: SimulatedDevice? = nil
    ) throws {
        self.streamCount = streamCount
        var configuration = EngineConfiguration()
        configuration.nodeCacheBytes = nodeFrames * blockBytes
        configuration.leasesAhead = leasesAhead
        configuration.leastNamesForSweep = 1 << 20
        self.configuration = configuration
        self.device = device ?? SimulatedDevice(byteCount: sizeBytes, seed: 1)
        slots = SlotAllocator(slotCount: 0)
        if device == nil {
            try Store.format(
                medium: self.device,
                options: FormatOptions(
                    sizeBytes: sizeBytes, extentBytes: extentBytes, streamCount: streamCount,
                    uuid: StoreUUID(high: 7, low: 9), createdAtNanoseconds: 0))
        }
        try open()
    }

    func open() throws {
        let opened = try Store.open(medium: device)
        slots = SlotAllocator(slotCount: Int(opened.superblock.slotCount))
        engines = []
        for stream in 0..<streamCount {
            var configuration = configuration
            configuration.stream = stream
            let engine = RunningEngine(
                try Engine.open(store: opened, configuration: configuration, medium: device))
            for slot in engine.engine.ownedSlots() {
                let isFree = slots.markUsed(slot)
                #expect(isFree)
            }
            engines.append(engine)
        }
    }

    func step() {
        for engine in engines { engine.engine.step(on: device, slots: &slots, clock: &clock) }
    }

    /// Writes everything to a checkpoint. The engines may be dropped then.
    func checkpoint() throws {
        for round in 0... {
            for engine in engines { engine.engine.requestCheckpoint() }
            step()
            if engines.allSatisfy({ $0.engine.isIdle }) { return }
            try #require(round < 300, "no end: \(engines[0].engine.diagnosis)")
        }
    }

    private func change(_ change: CatalogChange, on stream: Int) throws -> CatalogOutcome {
        let ticket = nextTicket
        nextTicket += 1
        let engine = engines[stream]
        engine.engine.submit(change: change, ticket: ticket)
        for _ in 0..<10_000 {
            step()
            if let reply = engine.engine.nextChangeReply() { return try reply.result.get() }
        }
        Issue.record("a change gets no answer")
        throw CatalogError.ioError
    }

    func create(_ name: String, blocks: UInt64 = 4096, on stream: Int = 0) throws {
        let outcome = try change(
            .create(name: name, sizeBytes: blocks * UInt64(blockBytes), createdAtNanoseconds: 1),
            on: stream)
        guard case .vdi(let identifier) = outcome else { return }
        vdis[name] = identifier
        streams[name] = stream
        model[name] = [:]
    }

    func clone(_ snapshot: String, as name: String, blocks: UInt64 = 4096) throws {
        let stream = streams[String(snapshot.prefix { $0 != "@" })] ?? 0
        let origin = try #require(snapshots[snapshot])
        let outcome = try change(
            .clone(
                of: origin, name: name, sizeBytes: blocks * UInt64(blockBytes),
                createdAtNanoseconds: 1), on: stream)
        guard case .vdi(let identifier) = outcome else { return }
        vdis[name] = identifier
        streams[name] = stream
        model[name] = model[snapshot]
    }

    func snapshot(
        _ vdi: String, _ name: String, comment: String = "", holds: [String] = []
    ) throws {
        let identifier = try #require(vdis[vdi])
        var details = SnapshotDetails(name: name)
        details.comment = comment
        details.holds = holds.map { SnapshotDetails.Hold(reason: $0, createdAtSeconds: 1) }
        let outcome = try change(
            .snapshot(
                identifier, details, createdAtNanoseconds: 1, group: 0),
            on: streams[vdi] ?? 0)
        guard case .snapshot(let snapshot) = outcome else { return }
        snapshots["\(vdi)@\(name)"] = snapshot
        model["\(vdi)@\(name)"] = model[vdi]
    }

    func setDetails(_ name: String, _ details: SnapshotDetails) throws {
        let identifier = try #require(snapshots[name])
        _ = try change(
            .setDetails(identifier, details), on: streams[String(name.prefix { $0 != "@" })] ?? 0)
    }

    func deleteSnapshot(_ name: String) throws {
        let removed = snapshots.removeValue(forKey: name)
        let identifier = try #require(removed)
        _ = try change(
            .deleteSnapshot(identifier), on: streams[String(name.prefix { $0 != "@" })] ?? 0)
        model[name] = nil
    }

    /// A disk with all of its snapshots.
    func delete(_ vdi: String) throws {
        let removed = vdis.removeValue(forKey: vdi)
        let identifier = try #require(removed)
        _ = try change(.delete(identifier), on: streams[vdi] ?? 0)
        for name in Array(model.keys) where name == vdi || name.hasPrefix(vdi + "@") {
            model[name] = nil
            snapshots[name] = nil
        }
    }

    /// Writes each block of the range with a stamp of its own.
    func write(_ vdi: String, _ blocks: Range<UInt64>) throws {
        for block in blocks {
            let buffer = BlockBuffer()
            let stamp = nextStamp
            nextStamp += 1
            Self.fill(buffer.base, stamp: stamp)
            let status = try transfer(.write, vdi: vdi, handle: handle(vdi), block, buffer.base)
            #expect(status == .ok)
            model[vdi]?[block] = stamp
        }
    }

    /// How the blocks of a disk lie in the store; `leaves` at a time.
    func layout(_ vdi: String, leaves: Int = 64) throws -> DiskLayout {
        let identifier = try #require(vdis[vdi])
        let engine = engines[streams[vdi] ?? 0]
        var query = DiffQuery(old: nil, new: .head(identifier))
        query.layoutOfLeaves = leaves
        var sum = DiskLayout()
        for _ in 0..<10_000 {
            if !engine.engine.diffs.hasWork {
                engine.engine.submit(diff: query, ticket: nextTicket)
            }
            step()
            guard let reply = engine.engine.nextDiffReply() else { continue }
            let answer = try reply.result.get()
            sum += answer.layout
            guard let next = answer.nextBlock else { return sum }
            query.firstBlock = next
        }
        Issue.record("the layout gets no answer")
        return sum
    }

    func discard(_ vdi: String, _ blocks: Range<UInt64>) throws {
        for block in blocks {
            let buffer = BlockBuffer()
            let status = try transfer(.discard, vdi: vdi, handle: handle(vdi), block, buffer.base)
            #expect(status == .ok)
            model[vdi]?[block] = nil
        }
    }

    func flush(_ vdi: String) throws {
        let buffer = BlockBuffer()
        _ = try transfer(.flush, vdi: vdi, handle: handle(vdi), 0, buffer.base)
    }

    /// Moves what lives together, so that blocks have other places than names.
    func clean() throws {
        startCleaning()
        for _ in 0..<3000 { step() }
        try checkpoint()
    }

    /// Of the first stream.
    var statistics: EngineStatistics { engines[0].engine.statistics }

    /// The repair will leave these blocks as they were before they were written: zeros.
    func forget(_ vdi: String, _ blocks: Range<UInt64>) {
        for block in blocks { model[vdi]?[block] = nil }
    }

    func startCleaning() {
        for engine in engines { engine.engine.requestCleaning(untilFreeSlots: slots.slotCount) }
    }

    func handle(_ vdi: String) throws -> UInt32 {
        let identifier = try #require(vdis[vdi])
        let handle = engines[streams[vdi] ?? 0].engine.handle(of: identifier)
        return try #require(handle)
    }

    func transfer(
        _ operation: BlockRequest.Operation, vdi: String, handle: UInt32, _ block: UInt64,
        _ base: UnsafeMutableRawPointer
    ) throws -> BlockStatus {
        let engine = engines[streams[vdi] ?? 0]
        let segment = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        segment.initialize(to: DataSegment(base: base, count: blockBytes))
        defer { segment.deallocate() }
        let isFlush = operation == .flush
        let hasData = operation == .read || operation == .write
        engine.engine.submit(
            BlockRequest(
                operation: operation, vdi: handle, session: 1, tag: 1,
                firstSector: isFlush ? 0 : block * 8, sectorCount: isFlush ? 0 : 8,
                segments: hasData ? UnsafePointer(segment) : nil, segmentCount: hasData ? 1 : 0))
        for _ in 0..<10_000 {
            step()
            if let reply = engine.engine.nextReply() { return reply.status }
        }
        // The engine still has the buffers: no more steps.
        Issue.record("a request gets no answer: \(engine.engine.diagnosis)")
        throw CatalogError.ioError
    }

    static func fill(_ base: UnsafeMutableRawPointer, stamp: UInt32) {
        for word in 0..<blockBytes / 4 {
            base.storeBytes(
                of: stamp &* 0x9E37_79B9 &+ UInt32(word), toByteOffset: word * 4, as: UInt32.self)
        }
    }
}

/// Comparing with the model.
extension SmallStore {
    /// Blocks of all disks and snapshots that read as something else than the model, or not at all.
    /// A snapshot or disk that is not there counts with all of its blocks.
    struct Comparison: Equatable {
        var wrong: [String] = []
        var unreadable: [String] = []
        var missing: [String] = []
    }

    /// Asks the engines of another opening of the same device, or of a repaired copy of it.
    func compare(within blocks: Range<UInt64> = 0..<600) throws -> Comparison {
        var result = Comparison()
        for name in model.keys.sorted() {
            let vdi = String(name.prefix { $0 != "@" })
            let engine = engines[streams[vdi] ?? 0]
            var handle: UInt32?
            if let snapshot = snapshots[name] {
                handle = engine.engine.openSnapshot(snapshot)
            } else if let identifier = vdis[name] {
                handle = engine.engine.handle(of: identifier)
            }
            guard let handle else {
                result.missing.append(name)
                continue
            }
            for block in blocks { try compare(name, vdi, handle, block, &result) }
            if snapshots[name] != nil { engine.engine.closeSnapshot(handle) }
        }
        return result
    }

    private func compare(
        _ name: String, _ vdi: String, _ handle: UInt32, _ block: UInt64,
        _ result: inout Comparison
    ) throws {
        let stamp = model[name]?[block]
        // Most of the disk was never written: one block in sixteen is enough there.
        guard stamp != nil || block % 16 == 0 else { return }
        let buffer = BlockBuffer()
        let expected = BlockBuffer()
        if let stamp { Self.fill(expected.base, stamp: stamp) }
        let status = try transfer(.read, vdi: vdi, handle: handle, block, buffer.base)
        guard status == .ok else {
            result.unreadable.append("\(name):\(block)")
            return
        }
        let isRight = (0..<blockBytes / 8).allSatisfy {
            buffer.base.load(fromByteOffset: $0 * 8, as: UInt64.self)
                == expected.base.load(fromByteOffset: $0 * 8, as: UInt64.self)
        }
        if !isRight { result.wrong.append("\(name):\(block)") }
    }

    /// The same disks and model on a copy of the device, after `damage` was done to it. Not opened.
    convenience init(copying other: SmallStore, device: SimulatedDevice) throws {
        try self.init(streamCount: other.streamCount, device: device)
        model = other.model
        streams = other.streams
        vdis = other.vdis
        snapshots = other.snapshots
    }

    /// Where a block of a head is on the device, found by its content.
    func offset(of block: UInt64, in vdi: String) -> UInt64? {
        guard let stamp = model[vdi]?[block] else { return nil }
        let expected = BlockBuffer()
        Self.fill(expected.base, stamp: stamp)
        let live = liveOffsets()
        return device.touchedPages.map { $0 * 4096 }.first { offset in
            live.contains(offset)
                && device.peek(at: offset, count: blockBytes).elementsEqual(expected.bytes)
        }
    }

    /// The places of all blocks that live, and of those to which only the checkpoints refer.
    func liveOffsets() -> Set<UInt64> {
        var offsets: Set<UInt64> = []
        for running in engines { running.collectLive(&offsets) }
        return offsets
    }
}

/// The scrub of the first stream.
extension SmallStore {
    var scrubStatus: ScrubStatus { engines[0].engine.scrubStatus }
    var scrubbedBytes: UInt64 { engines[0].engine.statistics.scrubbedBytes }

    func startScrub(bytesPerSecond: UInt64, from earlier: ScrubStatus? = nil) {
        engines[0].engine.startScrub(bytesPerSecond: bytesPerSecond, from: earlier)
    }

    func stopScrub() { engines[0].engine.stopScrub() }

    func finishScrub() throws -> ScrubStatus {
        for _ in 0..<100_000 {
            step()
            if !scrubStatus.isRunning { return scrubStatus }
        }
        Issue.record("the scrub has no end: \(scrubStatus)")
        return scrubStatus
    }

    func scrubFindings() -> [String] {
        var findings: [String] = []
        while let finding = engines[0].engine.nextScrubFinding() { findings.append(finding) }
        return findings
    }
}

/// An engine in a class, since arrays hold nothing that cannot be copied.
final class RunningEngine {
    var engine: Engine

    init(_ engine: consuming Engine) { self.engine = engine }

    func collectLive(_ offsets: inout Set<UInt64>) {
        for index in 0..<engine.forest.extents.count {
            let extent = engine.forest.extents[index]
            for block in 0..<engine.superblock.extentBlocks where extent.bits[block] {
                offsets.insert(engine.superblock.byteOffset(slot: extent.slot, block: block))
            }
        }
    }
}
