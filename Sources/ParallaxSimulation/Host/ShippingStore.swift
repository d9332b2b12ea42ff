// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// The real thing: the engine that the daemon runs, on a simulated device.
package struct ShippingStore: StoreUnderTest {
    let shape: StoreShape

    package init(_ shape: StoreShape) { self.shape = shape }

    package var slotCount: Int {
        Int((shape.storeBytes - Superblock.firstExtentOffset) / shape.extentBytes)
    }

    package func format(_ device: SimulatedDevice) throws(StoreFailure) {
        do throws(StoreError) {
            try Store.format(
                medium: device,
                options: FormatOptions(
                    sizeBytes: shape.storeBytes, extentBytes: shape.extentBytes,
                    streamCount: shape.streamCount,
                    uuid: StoreUUID(high: 0x5EED, low: shape.storeBytes),
                    createdAtNanoseconds: 1))
        } catch {
            throw StoreFailure(error.message)
        }
    }

    package func open(_ device: SimulatedDevice) throws(StoreFailure) -> [any EngineUnderTest] {
        do throws(StoreError) {
            let opened = try Store.open(medium: device)
            var engines: [any EngineUnderTest] = []
            for stream in 0..<shape.streamCount {
                engines.append(
                    ShippingEngine(
                        try Engine.open(
                            store: opened,
                            configuration: configuration(stream, opened.superblock.generation),
                            medium: device)))
            }
            return engines
        } catch {
            throw StoreFailure(error.message)
        }
    }

    /// The memory for nodes is another at each opening, as an administrator might have it.
    private func configuration(_ stream: Int, _ generation: UInt64) -> EngineConfiguration {
        var configuration = EngineConfiguration()
        configuration.stream = stream
        configuration.nodeCacheBytes = shape.nodeCacheBytes * [1, 4, 1, 2][Int(generation % 4)]
        configuration.checkpointLogBytes = shape.checkpointLogBytes
        configuration.checkpointIntervalNanoseconds = shape.checkpointIntervalNanoseconds
        configuration.maxChunksInFlight = shape.maxChunksInFlight
        configuration.cleanerBatchBlocks = shape.cleanerBatchBlocks
        configuration.cleaningPermille = shape.cleaningPermille
        configuration.leastNamesForSweep = 64
        configuration.peerPatienceNanoseconds = 20_000_000
        return configuration
    }

    package func place(of offset: UInt64) -> StorePlace {
        if offset >= Superblock.firstExtentOffset {
            return .slot(
                UInt32((offset - Superblock.firstExtentOffset) / shape.extentBytes))
        }
        for stream in 0..<shape.streamCount {
            for copy in 0...1 {
                for root in Superblock.checkpointRootOffsets(stream: stream, copy: copy)
                where offset >= root && offset < root + UInt64(blockBytes) {
                    return .stream(stream)
                }
            }
        }
        return .reserved
    }
}

/// One stream's shipping engine behind the simulator's interface.
package final class ShippingEngine: EngineUnderTest {
    package var engine: Engine

    package init(_ engine: consuming Engine) { self.engine = engine }

    package var freeRequestSlots: Int { engine.freeRequestSlots }
    package func submit(_ request: BlockRequest) { engine.submit(request) }
    package func complete(_ completion: StoreCompletion) { engine.complete(completion) }
    package func turn(nowNanoseconds: UInt64) {
        engine.turn(nowNanoseconds: nowNanoseconds)
        precondition(!engine.isContradicted, "the engine's books contradict its trees")
    }
    package func nextCommand() -> StoreCommand? { engine.nextCommand() }
    package func nextReply() -> BlockReply? { engine.nextReply() }

    package var wantedExtents: Int { engine.wantedExtents }
    package var lacksSpare: Bool { engine.lacksSpare }
    package func noteExtentRequested() { engine.noteExtentRequested() }
    package func supplyExtent(slot: UInt32?, peersAreGaining: Bool) {
        engine.supplyExtent(slot.map { ExtentSlot($0) }, peersAreGaining: peersAreGaining)
    }

    package var isGainingSpace: Bool { engine.isGainingSpace }
    package func takeReleasedSlot() -> UInt32? { engine.takeReleasedSlot()?.rawValue }
    package func giveBackSpace() { engine.giveBackSpace() }
    package func ownedSlots() -> [UInt32] { engine.ownedSlots().map(\.rawValue) }
    package func noteFreeSlots(_ count: Int) { engine.noteFreeSlots(count) }

    package func requestCleaning(untilFreeSlots goal: Int) {
        engine.requestCleaning(untilFreeSlots: goal)
    }

    package var movedBlocks: UInt64 { engine.statistics.movedBlocks }

    package func startScrub(bytesPerSecond: UInt64) {
        engine.startScrub(bytesPerSecond: bytesPerSecond, from: nil)
    }
    package func stopScrub() { engine.stopScrub() }
    package func nextScrubFinding() -> String? { engine.nextScrubFinding() }

    package func submit(change: CatalogChange, ticket: UInt64) {
        engine.submit(change: change, ticket: ticket)
    }

    package func nextChangeReply() -> ChangeReply? {
        engine.nextChangeReply().map { ($0.ticket, $0.result) }
    }

    package func handle(of identifier: UInt64) -> UInt32? {
        engine.handle(of: VDIIdentifier(identifier))
    }

    package func disks() -> [VDISummary] { engine.vdis() }

    package func requestCheckpoint() { engine.requestCheckpoint() }
    package var isIdle: Bool { engine.isIdle }
    package var failureMessage: String? { engine.failure?.message }
    package var prospectRefused: Int { engine.prospectRefused }

    package var logEnd: (applied: UInt64, durable: UInt64) {
        let statistics = engine.statistics
        return (statistics.lsn, statistics.durableLSN)
    }

    package var diagnosis: String { engine.diagnosis }
}

/// Versions.
extension ShippingEngine {
    package func snapshots(from cursor: Int, limit: Int) -> SnapshotPage {
        engine.snapshots(from: cursor, limit: limit)
    }

    package func summary(of snapshot: UInt64) -> SnapshotSummary? {
        engine.summary(of: SnapshotIdentifier(snapshot))
    }

    package func openSnapshot(_ identifier: UInt64) -> UInt32? {
        engine.openSnapshot(SnapshotIdentifier(identifier))
    }

    package func closeSnapshot(_ handle: UInt32) { engine.closeSnapshot(handle) }

    package func submit(diff: DiffQuery, ticket: UInt64) {
        engine.submit(diff: diff, ticket: ticket)
    }

    package func nextDiffReply() -> DiffReply? { engine.nextDiffReply() }
    package func nextCut() -> UInt64? { engine.nextCut() }
    package func releaseGroup(_ group: UInt64) { engine.releaseGroup(group) }

    package func census(load: @escaping NodeLoader) -> StreamCensus? {
        // While versions are being given back, their neighbours have nothing to be compared with.
        let found = engine.census(includingExclusive: engine.isIdle, load: load)
        var census = StreamCensus()
        census.live = found.liveBlocks
        census.counted = found.countedBlocks
        for (snapshot, blocks) in found.exclusiveBlocks {
            census.exclusive[snapshot.rawValue] = blocks
        }
        census.problems = found.problems
        if found.problems.isEmpty && found.liveNodes != found.countedNodes
            && found.liveBlocks == found.countedBlocks
        {
            census.problems.append(
                "\(found.liveNodes) nodes are live and \(found.countedNodes) are counted")
        }
        if found.problems.isEmpty && UInt64(found.dataBlocks) != found.bornBlocks {
            census.problems.append(
                "\(found.dataBlocks) data blocks live and \(found.bornBlocks) are charged")
        }
        return census
    }
}
