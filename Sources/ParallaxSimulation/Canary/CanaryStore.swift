// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// The shipping engine with a fault put in on purpose. A simulator that does not find it is not
/// worth running.
package struct CanaryStore: StoreUnderTest {
    package enum Fault: String, CaseIterable, Sendable {
        /// A sync is said to be done without the device having heard of it.
        case skipsSyncs
        /// FUA is taken for a plain write.
        case ignoresForceUnitAccess
        /// Now and then a discard is answered and not carried out.
        case forgetsDiscards
        /// Now and then a write is answered and not carried out.
        case forgetsWrites
        /// A bit of what was read is wrong.
        case misreads
        /// A byte behind the request's memory is written.
        case overruns
        /// Now and then a request is never answered.
        case loses
        /// A log write counts as done before the device has carried it out.
        case acknowledgesEarly
        /// Who opens a snapshot reads the head: later writes show.
        case sharesSnapshots
        /// Now and then a write goes to a clone instead of to the VDI that was cloned.
        case confusesBranches
        /// The head stays as it was.
        case forgetsRollbacks
        /// Each member of a group is cut in its own time, and writes go on meanwhile.
        case cutsApart
        /// With a snapshot, a block goes that the head still refers to.
        case freesShared
        /// The blocks of a deleted snapshot are counted on.
        case miscounts
        /// A deletion is answered and not carried out.
        case keepsDeleted
        /// A discard ends the program, as a broken invariant does.
        case traps
    }

    private let store: ShippingStore
    private let fault: Fault

    package init(_ shape: StoreShape, fault: Fault) {
        store = ShippingStore(shape)
        self.fault = fault
    }

    package var slotCount: Int { store.slotCount }
    package func place(of offset: UInt64) -> StorePlace { store.place(of: offset) }

    package func check(_ device: SimulatedDevice, isLive: Bool) -> String? {
        store.check(device, isLive: isLive)
    }

    package func witness(
        against lsn: UInt64, stream: Int, slots: [UInt32], device: SimulatedDevice
    ) -> UInt64? {
        store.witness(against: lsn, stream: stream, slots: slots, device: device)
    }

    package func format(_ device: SimulatedDevice) throws(StoreFailure) {
        try store.format(device)
    }

    package func open(_ device: SimulatedDevice) throws(StoreFailure) -> [any EngineUnderTest] {
        var canaries: [any EngineUnderTest] = []
        for engine in try store.open(device) {
            canaries.append(CanaryEngine(engine, fault: fault))
        }
        return canaries
    }
}
