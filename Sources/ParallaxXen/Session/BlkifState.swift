// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What all queues of a device share: the disk's properties, the guest's grants, scratch space.
struct BlkifState: ~Copyable {
    let session: UInt32
    let vdi: UInt32
    let isReadOnly: Bool
    var sectors: UInt64

    /// Open while connected.
    var grants: GrantTable
    var cache: GrantCache
    var lists = SegmentLists()
    /// The request that is being admitted: a private copy of its ring entry.
    let entry: UnsafeMutableRawPointer
    /// Its segments, decoded.
    let wanted: UnsafeMutablePointer<GrantSegment>
    /// Its grant references, for a mapping in one call.
    let references: UnsafeMutablePointer<UInt32>
    /// A private copy of an indirect page.
    let page: UnsafeMutableRawPointer

    /// Both ends keep grants mapped.
    var isPersistent = false
    /// Requests that the engine has.
    var inFlight = 0
    var count = XenCounters()

    init(session: UInt32, vdi: UInt32, export: borrowing XenExport, library: XenLibrary) {
        self.session = session
        self.vdi = vdi
        isReadOnly = export.readOnly
        sectors = export.sectors
        grants = GrantTable(library)
        cache = GrantCache(capacity: XenLimits.persistentGrantsMax, budget: library.budget)
        entry = .allocate(byteCount: BlkifLayout.entryBytesMax, alignment: 8)
        wanted = .allocate(capacity: XenLimits.indirectSegmentsMax)
        references = .allocate(capacity: XenLimits.indirectSegmentsMax)
        page = .allocate(byteCount: XenLimits.pageBytes, alignment: 8)
    }

    deinit {
        entry.deallocate()
        wanted.deallocate()
        references.deallocate()
        page.deallocate()
    }

    /// No more requests of this guest for now, so that others get theirs. Each is one of the engine.
    var isAtItsShare: Bool { inFlight >= XenLimits.engineRequestsMax }

    /// Pages of the guest that are mapped now.
    var mappedCount: Int { grants.mappedCount }

    /// Lets go of what the task had of the guest's memory.
    mutating func release(_ task: UnsafeMutablePointer<BlkifTask>, _ storage: SegmentStorage) {
        for index in 0..<Int(task.pointee.pinCount) { cache.unpin(storage.pins[index]) }
        task.pointee.pinCount = 0
        if let mapped = task.pointee.mapped {
            grants.unmap(mapped, count: Int(task.pointee.mappedCount))
            task.pointee.mapped = nil
            task.pointee.mappedCount = 0
        }
        if task.pointee.pooledList >= 0 {
            lists.giveBack(task.pointee.pooledList)
            task.pointee.pooledList = -1
        }
    }

    /// Unmaps everything of the guest. Nothing may be in flight.
    mutating func releaseGrants() {
        precondition(inFlight == 0, "XenDevice I1: unmapped under a request")
        cache.removeAll(&grants)
        precondition(grants.mappedCount == 0, "XenDevice I2: a grant was left mapped")
        grants.close()
    }
}
