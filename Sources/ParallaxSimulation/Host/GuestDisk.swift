// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// What the simulated administrator knows of one VDI.
package final class GuestDisk {
    package let identifier: UInt64
    package let stream: Int
    /// More than one while a change is in flight or was cut off by a crash.
    package var names: Set<String>
    package var sizes: Set<UInt64>
    /// The deletion was asked for; the VDI may be there or not.
    package var isDeletionPending = false
    package var requestsInFlight = 0
    package var changesInFlight = 0
    /// Snapshots of it that are asked for and not answered, or members of unfinished groups.
    package var snapshotsInFlight = 0
    /// The head is being replaced: a guest would not be attached.
    package var isRollingBack = false
    package var attributes: [VDIAttributes] = [VDIAttributes()]
    /// The snapshot that the head continues.
    package var parent: UInt64?
    /// That one is deleted, and `parent` is the nearest of its ancestors.
    package var hasLostParent = false
    /// Where this guest likes to write: first sector and length of a hot spot.
    package var hotSpot: Range<UInt64>

    package init(
        identifier: UInt64, stream: Int, name: String, sizeBytes: UInt64, hotSpot: Range<UInt64>
    ) {
        self.identifier = identifier
        self.stream = stream
        names = [name]
        sizes = [sizeBytes]
        self.hotSpot = hotSpot
    }

    package var mustBeTemplate: Bool { attributes.allSatisfy { $0.isTemplate } }
    package var mayBeTemplate: Bool { attributes.contains { $0.isTemplate } }

    /// Sectors that are there whatever becomes of a resize in flight.
    package var sectorCount: UInt64 { (sizes.min() ?? 0) / UInt64(sectorBytes) }
}

/// A request that was submitted and not answered.
package struct RequestInFlight {
    package enum Expectation {
        case read(submittedAt: Int, isScribbled: Bool)
        /// A read of a snapshot, or a question of what is allocated in it.
        case snapshotRead(ModelSnapshot)
        case snapshotAllocation(ModelSnapshot)
        /// `covered`: what was acknowledged when a write with FUA was submitted.
        case mutation(Stamp, covered: Int?)
        case flush(covers: Int)
        /// The request is wrong; this is the only right answer.
        case refusal(BlockStatus)
        case allocation(submittedAt: Int)
    }

    package var expectation: Expectation
    package var disk: UInt64
    package var sectors: Range<UInt64>
    package var memory: RequestMemory?
    /// Whether the store was out of space, or a device error happened, since then.
    package var nilSuppliesBefore: Int
    package var wasFullBefore = false
    package var errorsBefore: Int
    package var isVerification: Bool
    /// The disk was a template, for sure, when the request was submitted.
    package var wasTemplate = false
}

/// One stream: its engine, what the oracle knows, and what the administrator has asked for.
package final class SimulatedStream {
    package let index: Int
    package var engine: (any EngineUnderTest)?
    package let oracle: StreamOracle
    package var requests: [UInt32: RequestInFlight] = [:]
    package var changes: [UInt64: ChangeInFlight] = [:]
    /// Changes that a crash, or an error of the device, has cut off, in the order of submission.
    package var interrupted: [ChangeInFlight] = []
    package var diffs: [UInt64: DiffInFlight] = [:]
    /// Extents on their way to the engine: an allocator in another thread takes its time.
    package var extentsOnTheWay: [UInt32?] = []
    package var nilSupplies = 0
    package var lastSupplyWasNil = false
    /// How far the log was applied, and how far it was durable, before the crash.
    package var claimed: (applied: UInt64, durable: UInt64) = (0, 0)
    /// Errors that the device had reported when the engine was opened.
    package var errorsAtOpen = 0

    package init(index: Int, time: ModelClock) {
        self.index = index
        oracle = StreamOracle(time: time)
    }
}
