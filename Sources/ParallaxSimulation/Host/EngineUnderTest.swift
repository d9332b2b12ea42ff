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
    func noteExtentRequested()
    func supplyExtent(slot: UInt32?)
    func takeReleasedSlot() -> UInt32?
    func ownedSlots() -> [UInt32]

    func submit(change: DiskChange, ticket: UInt64)
    func nextChangeReply() -> DiskChangeReply?
    func handle(of identifier: UInt64) -> UInt32?
    func disks() -> [DiskSummary]

    func requestCheckpoint()
    var isIdle: Bool { get }
    var failureMessage: String? { get }
    /// For the report of a run that hangs.
    var diagnosis: String { get }
}

/// A change of the catalog, as the simulator asks for it.
package enum DiskChange: Equatable {
    case create(name: String, sizeBytes: UInt64, createdAtNanoseconds: UInt64)
    case resize(UInt64, sizeBytes: UInt64)
    case rename(UInt64, name: String)
    case delete(UInt64)
}

/// The answer to a `DiskChange`.
package struct DiskChangeReply {
    package enum Outcome: Equatable {
        case done(UInt64)
        /// The request was wrong or came at the wrong time; nothing has changed.
        case refused(String)
        case noSpace
        /// The device failed: nobody knows before the next recovery.
        case failed(String)
    }

    package var ticket: UInt64
    package var outcome: Outcome

    package init(ticket: UInt64, outcome: Outcome) {
        self.ticket = ticket
        self.outcome = outcome
    }
}

/// One VDI as the engine lists it.
package struct DiskSummary: Equatable {
    package var identifier: UInt64
    package var name: String
    package var sizeBytes: UInt64
    package var allocatedBlocks: UInt64
    package var isDeleting: Bool

    package init(
        identifier: UInt64, name: String, sizeBytes: UInt64, allocatedBlocks: UInt64,
        isDeleting: Bool
    ) {
        self.identifier = identifier
        self.name = name
        self.sizeBytes = sizeBytes
        self.allocatedBlocks = allocatedBlocks
        self.isDeleting = isDeleting
    }
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

    package init() {}
}

/// Formatting and opening, and what there is on the device.
package protocol StoreUnderTest {
    /// Physical slots of the store.
    var slotCount: Int { get }
    func format(_ device: SimulatedDevice) throws(StoreFailure)
    func open(_ device: SimulatedDevice) throws(StoreFailure) -> [any EngineUnderTest]
    func place(of offset: UInt64) -> StorePlace
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
