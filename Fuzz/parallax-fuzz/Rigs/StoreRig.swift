// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

@testable import ParallaxCore

/// The engines of a store in memory, and what the daemon is to them.
///
/// Owned by one thread.
final class StoreRig {
    /// A noncopyable engine, so that an array can hold several.
    final class Stream {
        var engine: Engine

        init(_ engine: consuming Engine) { self.engine = engine }
    }

    let image: StoreImage
    let streams: [Stream]
    private var allocator: SlotAllocator
    private var now: UInt64 = 1
    private var statuses: [BlockStatus] = []

    /// nil: it is refused, as a damaged store is.
    init?(_ image: StoreImage) {
        guard let store = try? Store.open(medium: image) else { return nil }
        allocator = SlotAllocator(slotCount: Int(store.superblock.slotCount))
        var streams: [Stream] = []
        for stream in 0..<Int(store.superblock.streamCount) {
            var configuration = EngineConfiguration()
            configuration.stream = stream
            configuration.nodeCacheBytes = 64 * blockBytes
            configuration.checkpointLogBytes = 1 << 20
            configuration.cleanerBatchBlocks = 192
            configuration.leastNamesForSweep = 16
            guard
                let engine = try? Engine.open(
                    store: store, configuration: configuration, medium: image)
            else { return nil }
            for slot in engine.ownedSlots() where !allocator.markUsed(slot) { return nil }
            streams.append(Stream(engine))
        }
        self.image = image
        self.streams = streams
    }

    // MARK: Turns

    /// Runs until nothing is left to do. LIMIT: a small store is done with it long before that.
    func settle() {
        var turns = 0
        for stream in streams { stream.engine.requestCheckpoint() }
        while turns < 20_000, !streams.allSatisfy({ $0.engine.isIdle }) {
            turn()
            turns += 1
        }
        precondition(turns < 20_000, "the engine does not come to rest")
    }

    func turn() { for stream in streams { turn(stream) } }

    private func turn(_ stream: Stream) {
        now += 10_000_000
        stream.engine.noteFreeSlots(allocator.freeCount)
        stream.engine.turn(nowNanoseconds: now)
        // What the answers lead to comes in the next turn.
        var commands: [StoreCommand] = []
        while let command = stream.engine.nextCommand() { commands.append(command) }
        for command in commands { perform(command, stream) }
        supply(stream)
        while let slot = stream.engine.takeReleasedSlot() { allocator.release(slot) }
        while let group = stream.engine.nextCut() {
            for other in streams { other.engine.releaseGroup(group) }
        }
        while stream.engine.nextChangeReply() != nil {}
        while stream.engine.nextDiffReply() != nil {}
        while let reply = stream.engine.nextReply() { statuses.append(reply.status) }
    }

    private func perform(_ command: StoreCommand, _ stream: Stream) {
        let isDone = (try? image.perform(command)) != nil
        stream.engine.complete(
            StoreCompletion(
                tag: command.tag,
                result: !isDone ? -Int(EIO) : command.operation == .sync ? 0 : command.byteCount))
    }

    private func supply(_ stream: Stream) {
        var bound = 64
        while stream.engine.wantedExtents > 0, bound > 0 {
            bound -= 1
            stream.engine.noteExtentRequested()
            let slot = allocator.allocate()
            if slot == nil {
                for other in streams where other !== stream { other.engine.giveBackSpace() }
            }
            stream.engine.supplyExtent(slot)
        }
    }

    // MARK: What clients do

    /// Runs one request; nil: there was no answer.
    func request(
        _ stream: Stream, _ operation: BlockRequest.Operation, handle: UInt32, block: UInt64,
        count: Int, fill: UInt8 = 0
    ) -> BlockStatus? {
        let bytes = UnsafeMutableRawPointer.allocate(
            byteCount: count * blockBytes, alignment: blockBytes)
        let segment = UnsafeMutablePointer<DataSegment>.allocate(capacity: 1)
        // SAFETY: the loop below ends with the reply, or else the process does.
        defer {
            bytes.deallocate()
            segment.deallocate()
        }
        memset(bytes, Int32(fill), count * blockBytes)
        segment.initialize(to: DataSegment(base: bytes, count: count * blockBytes))
        let hasData = operation == .read || operation == .write
        statuses = []
        stream.engine.submit(
            BlockRequest(
                operation: operation, vdi: handle, session: 0, tag: 0,
                firstSector: operation == .flush ? 0 : block * 8,
                sectorCount: operation == .flush ? 0 : UInt64(count * 8),
                segments: hasData ? UnsafePointer(segment) : nil, segmentCount: hasData ? 1 : 0))
        var turns = 0
        while statuses.isEmpty {
            turn(stream)
            turns += 1
            precondition(turns < 20_000, "a request is not answered")
        }
        return statuses.first
    }

    func change(_ stream: Stream, _ change: CatalogChange) {
        stream.engine.submit(change: change, ticket: 1)
    }
}
