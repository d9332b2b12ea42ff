// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// The real thing: the engine that the daemon runs, on a simulated device.
package struct ShippingStore: StoreUnderTest {
    private let shape: StoreShape

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
                            store: opened, configuration: configuration(stream), medium: device)))
            }
            return engines
        } catch {
            throw StoreFailure(error.message)
        }
    }

    private func configuration(_ stream: Int) -> EngineConfiguration {
        var configuration = EngineConfiguration()
        configuration.stream = stream
        configuration.nodeCacheBytes = shape.nodeCacheBytes
        configuration.checkpointLogBytes = shape.checkpointLogBytes
        configuration.checkpointIntervalNanoseconds = shape.checkpointIntervalNanoseconds
        configuration.maxChunksInFlight = shape.maxChunksInFlight
        return configuration
    }

    package func place(of offset: UInt64) -> StorePlace {
        if offset >= Superblock.firstExtentOffset {
            return .slot(
                UInt32((offset - Superblock.firstExtentOffset) / shape.extentBytes))
        }
        for stream in 0..<shape.streamCount {
            for copy in 0...1 {
                let root = Superblock.checkpointRootOffset(stream: stream, copy: copy)
                if offset >= root && offset < root + UInt64(blockBytes) { return .stream(stream) }
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
    package func turn(nowNanoseconds: UInt64) { engine.turn(nowNanoseconds: nowNanoseconds) }
    package func nextCommand() -> StoreCommand? { engine.nextCommand() }
    package func nextReply() -> BlockReply? { engine.nextReply() }

    package var wantedExtents: Int { engine.wantedExtents }
    package func noteExtentRequested() { engine.noteExtentRequested() }
    package func supplyExtent(slot: UInt32?) { engine.supplyExtent(slot.map { ExtentSlot($0) }) }
    package func takeReleasedSlot() -> UInt32? { engine.takeReleasedSlot()?.rawValue }
    package func ownedSlots() -> [UInt32] { engine.ownedSlots().map(\.rawValue) }

    package func submit(change: DiskChange, ticket: UInt64) {
        engine.submit(change: change.catalogChange, ticket: ticket)
    }

    package func nextChangeReply() -> DiskChangeReply? {
        engine.nextChangeReply().map { reply in
            let outcome: DiskChangeReply.Outcome =
                switch reply.result {
                case .success(.vdi(let identifier)): .done(identifier.rawValue)
                case .success: .done(0)
                case .failure(.noSpace): .noSpace
                case .failure(.ioError): .failed("ioError")
                case .failure(let error): .refused("\(error)")
                }
            return DiskChangeReply(ticket: reply.ticket, outcome: outcome)
        }
    }

    package func handle(of identifier: UInt64) -> UInt32? {
        engine.handle(of: VDIIdentifier(identifier))
    }

    package func disks() -> [DiskSummary] {
        engine.vdis().map {
            DiskSummary(
                identifier: $0.identifier.rawValue, name: $0.name, sizeBytes: $0.sizeBytes,
                allocatedBlocks: $0.allocatedBytes / UInt64(blockBytes), isDeleting: $0.isDeleting)
        }
    }

    package func requestCheckpoint() { engine.requestCheckpoint() }
    package var isIdle: Bool { engine.isIdle }
    package var failureMessage: String? { engine.failure?.message }
    package var diagnosis: String { engine.diagnosis }
}

extension DiskChange {
    fileprivate var catalogChange: CatalogChange {
        switch self {
        case .create(let name, let sizeBytes, let createdAt):
            .create(name: name, sizeBytes: sizeBytes, createdAtNanoseconds: createdAt)
        case .resize(let identifier, let sizeBytes):
            .resize(VDIIdentifier(identifier), sizeBytes: sizeBytes)
        case .rename(let identifier, let name): .rename(VDIIdentifier(identifier), name: name)
        case .delete(let identifier): .delete(VDIIdentifier(identifier))
        }
    }
}
