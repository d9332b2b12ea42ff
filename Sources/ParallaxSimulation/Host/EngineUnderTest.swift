// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// What the simulator needs of one stream's engine. The shipping engine stands behind it, and so
/// do canaries: engines with a known fault, which the simulator must find.
package protocol EngineUnderTest: AnyObject {
    var freeRequestSlots: Int { get }
    func submit(_ request: BlockRequest)
    func complete(_ completion: StoreCompletion)
    func turn(nowNanoseconds: UInt64)
    func nextCommand() -> StoreCommand?
    func nextReply() -> BlockReply?

    var wantedExtents: Int { get }
    /// As `Engine.lacksSpare`.
    var lacksSpare: Bool { get }
    func noteExtentRequested()
    func supplyExtent(slot: UInt32?, peersAreGaining: Bool)
    /// Slots of this stream are on their way back.
    var isGainingSpace: Bool { get }
    func takeReleasedSlot() -> UInt32?
    /// Another stream was told that the store is full.
    func giveBackSpace()
    func ownedSlots() -> [UInt32]
    /// How many slots of the store are free; the daemon's shards tell it in every turn.
    func noteFreeSlots(_ count: Int)
    func requestCleaning(untilFreeSlots goal: Int)
    /// Blocks that the cleaner has moved since the engine was opened.
    var movedBlocks: UInt64 { get }

    func startScrub(bytesPerSecond: UInt64)
    func stopScrub()
    func nextScrubFinding() -> String?

    func submit(change: CatalogChange, ticket: UInt64)
    func nextChangeReply() -> ChangeReply?
    func handle(of identifier: UInt64) -> UInt32?
    func disks() -> [VDISummary]

    func snapshots(from cursor: Int, limit: Int) -> SnapshotPage
    func summary(of snapshot: UInt64) -> SnapshotSummary?
    func openSnapshot(_ identifier: UInt64) -> UInt32?
    func closeSnapshot(_ handle: UInt32)
    func submit(diff: DiffQuery, ticket: UInt64)
    func nextDiffReply() -> DiffReply?
    func nextCut() -> UInt64?
    func releaseGroup(_ group: UInt64)
    /// Walks all trees; nodes that are not in memory are read by `load`.
    func census(load: @escaping NodeLoader) -> StreamCensus?

    func requestCheckpoint()
    var isIdle: Bool { get }
    var failureMessage: String? { get }
    /// The most blocks that cleaning could have gained, beyond what it takes, when somebody was told
    /// that there is no space.
    var prospectRefused: Int { get }
    /// LSNs up to which the log is applied, and known to be durable.
    var logEnd: (applied: UInt64, durable: UInt64) { get }
    /// For the report of a run that hangs.
    var diagnosis: String { get }
}

/// The answer to a change; canaries make their own.
package typealias ChangeReply = (
    ticket: UInt64, result: Result<CatalogOutcome, CatalogError>
)

/// Copies the block at an offset of the device to where it is wanted.
package typealias NodeLoader = (_ deviceOffset: UInt64, _ target: UnsafeMutableRawPointer) -> Void

/// What a walk through all trees of a stream has found, beside what the engine had counted.
package struct StreamCensus {
    /// Distinct live blocks (data, nodes, tables) by extent number: found, and counted.
    package var live: [UInt64: Int] = [:]
    package var counted: [UInt64: Int] = [:]
    /// By snapshot: blocks of data that nobody else refers to.
    package var exclusive: [UInt64: UInt64] = [:]
    package var problems: [String] = []

    package init() {}
}

/// How a store and its engines are to be set up.
package struct StoreShape: Equatable {
    package var storeBytes: UInt64 = 64 << 20
    package var extentBytes: UInt64 = 1 << 20
    package var streamCount = 1
    package var nodeCacheBytes = 64 * blockBytes
    package var checkpointLogBytes = 4 << 20
    package var checkpointIntervalNanoseconds: UInt64 = 30_000_000_000
    package var maxChunksInFlight = 4
    package var cleanerBatchBlocks = 192
    package var cleaningPermille = 25

    package init() {}
}

/// Formatting and opening, and what there is on the device.
package protocol StoreUnderTest {
    /// Physical slots of the store.
    var slotCount: Int { get }
    func format(_ device: SimulatedDevice) throws(StoreFailure)
    func open(_ device: SimulatedDevice) throws(StoreFailure) -> [any EngineUnderTest]
    func place(of offset: UInt64) -> StorePlace
    /// What `store check` finds wrong with what the device holds; nil: nothing. `isLive`: engines run.
    func check(_ device: SimulatedDevice, isLive: Bool) -> String?
    /// The offset of a chunk of the stream, in one of its slots, which says that the log had been
    /// durable beyond `lsn` when it was written; nil if there is none.
    func witness(
        against lsn: UInt64, stream: Int, slots: [UInt32], device: SimulatedDevice
    ) -> UInt64?
}

/// Why a store could not be formatted or opened.
package struct StoreFailure: Error {
    package var message: String

    package init(_ message: String) { self.message = message }
}

/// What an offset of the device belongs to.
package enum StorePlace: Equatable {
    /// A slot of the pool: of the stream that leases it.
    case slot(UInt32)
    /// Belongs to one stream for good.
    case stream(Int)
    /// Nobody's while the engines run.
    case reserved
}
