// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The VDIs and versions of one stream, and the changes of them that are under way.
///
/// ```
///   waiting ---> logged ---> syncing ---> replies
///      |  record    |  applied   |  durable
///   validated    in a chunk   E1 holds
/// ```
/// Owned by the shard thread. Handles of VDIs (indices into `vdis`) are not reused while the
/// engine runs: a request with a stale handle finds a closed VDI, never another one. Those of open
/// snapshots are, once nobody reads there any more.
struct Catalog: ~Copyable {
    /// Session of requests that the engine makes itself.
    static let internalSession = UInt32.max
    static let internalRequests = 4

    /// A change whose record is in a chunk.
    struct Logged {
        var record: CatalogRecord
        var ticket: UInt64
    }

    /// A change that has been carried out, and is durable when the log is up to here.
    struct Syncing {
        var ticket: UInt64
        var result: Result<CatalogOutcome, CatalogError>
        var lsn: LogSequenceNumber
    }

    /// A VDI that is being made smaller; nothing else changes meanwhile.
    struct Shrinking {
        enum Phase {
            /// Requests that reach behind the new end are still under way.
            case draining
            /// Blocks behind the new end are being discarded.
            case discarding
            /// The record is to go into a chunk.
            case staging
        }

        var identifier: VDIIdentifier
        var sizeBytes: UInt64
        var ticket: UInt64
        var phase = Phase.draining
    }

    let stream: Int
    var nextNumber: UInt64
    private(set) var vdis: UnsafeMutablePointer<VDI>
    private(set) var count = 0
    private var capacity = 64
    var names: [String] = []
    var policies: [String] = []
    private var createdAt: [UInt64] = []
    private var handles: [UInt64: UInt32] = [:]
    private var freeHandles: [UInt32] = []

    var versions: VersionTable
    var pages = RecordPages()
    /// Rows of the members of groups that are not finished.
    var pendingRows: [UInt32] = []
    /// More was given back than somebody was charged with.
    var isContradicted = false
    /// What is deleted, and what is to be counted.
    var reclaim = ReclaimQueue()

    var waiting = Fifo<(change: CatalogChange, ticket: UInt64)>()
    var shrinking: Shrinking?
    var logged = Fifo<Logged>()
    var syncing = Fifo<Syncing>()
    var replies = Fifo<CatalogReply>()

    init(stream: Int, nextNumber: UInt64, nextSnapshot: UInt64) {
        self.stream = stream
        self.nextNumber = nextNumber
        versions = VersionTable(nextSequence: nextSnapshot)
        vdis = .allocate(capacity: capacity)
    }

    deinit { vdis.deallocate() }

    func isOpen(_ handle: UInt32) -> Bool {
        Int(handle) < count && vdis[Int(handle)].isOpen
    }

    func handle(of identifier: VDIIdentifier) -> UInt32? { handles[identifier.rawValue] }

    /// VDIs, those being deleted included.
    var vdiCount: Int { handles.count }

    /// Whether a change is under way.
    var hasChanges: Bool {
        !waiting.isEmpty || shrinking != nil || !logged.isEmpty || !syncing.isEmpty
    }
}

extension Catalog {
    /// Adds a VDI, from the checkpoint or from a record of the log; its parent must be there. False:
    /// it is not, or the VDI is there already.
    mutating func insert(_ record: VDIRecord, page: UInt32?) -> Int? {
        guard handles[record.identifier.rawValue] == nil else { return nil }
        var parent: Int32 = -1
        if record.parent.rawValue != 0 {
            guard let row = versions.row(of: record.parent) else { return nil }
            parent = Int32(row)
        }
        let handle = takeHandle()
        vdis[handle].identifier = record.identifier
        vdis[handle].kind = .head
        vdis[handle].sizeBlocks = record.sizeBytes / UInt64(blockBytes)
        vdis[handle].root = record.root
        vdis[handle].levels = record.levels
        vdis[handle].epoch = record.epoch
        vdis[handle].allocatedBlocks = record.allocatedBlocks
        vdis[handle].isDeleting = record.isDeleting
        vdis[handle].isTemplate = record.attributes.isTemplate
        names[handle] = record.name
        policies[handle] = record.attributes.policy
        vdis[handle].setQuota(record.attributes.quotaBytes)
        vdis[handle].bornBlocks = record.bornBlocks
        createdAt[handle] = record.createdAtNanoseconds
        handles[record.identifier.rawValue] = UInt32(handle)
        let bytes = record.encodedBytes
        vdis[handle].recordBytes = UInt16(bytes)
        if let page {
            vdis[handle].page = page
            pages.loadMember(.vdi(handle), bytes: bytes, on: page)
        } else {
            vdis[handle].page = pages.place(.vdi(handle), bytes: bytes)
            vdis[handle].isRecordDirty = true
        }
        addChild(.head(handle), to: parent)
        if vdis[handle].countedBelow > 0 { vdis[handle].lostBlocks = record.lostBlocks }
        let number = record.identifier.rawValue & 0xFFFF_FFFF_FFFF
        nextNumber = max(nextNumber, number + 1)
        return handle
    }

    /// A closed entry of `vdis`.
    private mutating func takeHandle() -> Int {
        if count == capacity { grow() }
        (vdis + count).initialize(to: VDI())
        names.append("")
        policies.append("")
        createdAt.append(0)
        count += 1
        return count - 1
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<VDI>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: vdis, count: count)
        vdis.deallocate()
        vdis = larger
        capacity *= 2
    }

    /// Forgets a VDI of which nothing is left.
    mutating func close(_ handle: Int) {
        precondition(
            vdis[handle].isDeleting && vdis[handle].firstSnapshot < 0,
            "Catalog: closing a VDI that is in use")
        pages.remove(
            .vdi(handle), bytes: Int(vdis[handle].recordBytes), from: vdis[handle].page)
        handles[vdis[handle].identifier.rawValue] = nil
        names[handle] = ""
        policies[handle] = ""
        vdis[handle] = VDI()
    }

    /// A handle to read a version by.
    mutating func openHandle(row: Int) -> Int {
        let handle = freeHandles.popLast().map(Int.init) ?? takeHandle()
        let version = versions[row]
        vdis[handle] = VDI()
        vdis[handle].kind = .snapshot
        vdis[handle].version = Int32(row)
        vdis[handle].sizeBlocks = version.sizeBlocks
        vdis[handle].root = version.root
        vdis[handle].levels = Int(version.levels)
        vdis[handle].epoch = version.epoch
        vdis[handle].allocatedBlocks = version.allocatedBlocks
        return handle
    }

    mutating func closeHandle(_ handle: Int) {
        vdis[handle] = VDI()
        freeHandles.append(UInt32(handle))
    }
}

extension Catalog {
    func record(_ handle: Int) -> VDIRecord {
        let vdi = vdis[handle]
        var record = VDIRecord(
            identifier: vdi.identifier, name: names[handle],
            sizeBytes: vdi.sizeBlocks * UInt64(blockBytes),
            createdAtNanoseconds: createdAt[handle])
        if vdi.version >= 0 { record.parent = versions[Int(vdi.version)].identifier }
        record.epoch = vdi.epoch
        record.isDeleting = vdi.isDeleting
        record.levels = vdi.levels
        record.root = vdi.root
        record.allocatedBlocks = vdi.allocatedBlocks
        record.lostBlocks = vdi.lostBlocks
        record.bornBlocks = vdi.bornBlocks
        record.attributes = attributes(handle)
        return record
    }

    private func attributes(_ handle: Int) -> VDIAttributes {
        VDIAttributes(
            isTemplate: vdis[handle].isTemplate, policy: policies[handle],
            quotaBytes: vdis[handle].quotaBytes)
    }

    func record(row: Int) -> VersionRecord {
        let version = versions[row]
        let parent =
            version.parent >= 0
            ? versions[Int(version.parent)].identifier : SnapshotIdentifier(0)
        return VersionRecord(
            version: version, parent: parent, details: versions.encodedDetails(row))
    }

    /// The record of the VDI is no longer the one in the store.
    @inline(__always)
    mutating func touch(_ handle: Int) {
        if !vdis[handle].isRecordDirty { markRecordDirty(handle) }
    }

    @inline(never)
    private mutating func markRecordDirty(_ handle: Int) {
        vdis[handle].isRecordDirty = true
        pages.touch(vdis[handle].page)
    }

    mutating func touch(row: Int) {
        guard !versions[row].isRecordDirty else { return }
        versions[row].isRecordDirty = true
        pages.touch(versions[row].page)
    }

    /// After a change of its name or policy.
    mutating func resizeRecord(_ handle: Int) {
        let bytes = record(handle).encodedBytes
        vdis[handle].page = pages.resize(
            .vdi(handle), from: Int(vdis[handle].recordBytes), to: bytes, on: vdis[handle].page)
        vdis[handle].recordBytes = UInt16(bytes)
        vdis[handle].isRecordDirty = true
    }

    mutating func setDetails(row: Int, _ details: [UInt8]) {
        versions.setDetails(row, details)
        let bytes = VersionRecord.fixedBytes + details.count
        versions[row].page = pages.resize(
            .version(row), from: Int(versions[row].recordBytes), to: bytes,
            on: versions[row].page)
        versions[row].recordBytes = UInt16(bytes)
        versions[row].isRecordDirty = true
    }
}

extension Catalog {
    func summary(_ handle: Int) -> VDISummary {
        let vdi = vdis[handle]
        return VDISummary(
            identifier: vdi.identifier, name: names[handle],
            sizeBytes: vdi.sizeBlocks * UInt64(blockBytes),
            allocatedBytes: vdi.allocatedBlocks * UInt64(blockBytes),
            createdAtNanoseconds: createdAt[handle], isDeleting: vdi.isDeleting,
            attributes: attributes(handle), parent: visibleAncestor(vdi.version),
            snapshotCount: Int(vdi.snapshotCount),
            chargedBytes: vdi.chargedBlocks * UInt64(blockBytes),
            exclusiveBytes: vdi.bornBlocks * UInt64(blockBytes))
    }

    /// Whether the version is there for people: not deleted, nor its VDI.
    func isVisible(_ row: Int) -> Bool {
        guard versions[row].state == .visible || versions[row].state == .pending,
            let handle = handle(of: versions[row].vdi)
        else { return false }
        return !vdis[Int(handle)].isDeleting
    }

    func summary(row: Int) -> SnapshotSummary {
        let version = versions[row]
        return SnapshotSummary(
            identifier: version.identifier, vdi: version.vdi,
            parent: visibleAncestor(version.parent),
            createdAtNanoseconds: version.createdAtNanoseconds,
            sizeBytes: version.sizeBlocks * UInt64(blockBytes),
            allocatedBytes: version.allocatedBlocks * UInt64(blockBytes),
            exclusiveBytes: exclusiveBytes(row: row),
            bornBytes: version.bornBlocks * UInt64(blockBytes),
            childCount: Int(version.childCount),
            details: versions.decodedDetails(row), pendingGroup: version.group,
            isOpen: version.openCount > 0)
    }

    /// nil: it is still to be counted.
    func exclusiveBytes(row: Int) -> UInt64? {
        let version = versions[row]
        guard version.isCounted else { return nil }
        var blocks = version.exclusiveBlocks
        if version.childCount == 1, let head = version.firstChild.handle {
            blocks += vdis[head].lostBlocks
        }
        return blocks * UInt64(blockBytes)
    }
}

/// The ancestor that people see. Above it may be very many that they do not: deleted ones that stay as
/// branching points. Shortcuts lead past them.
///
/// A shortcut stays true. What is hidden is never shown again; nothing is ever put between a version and
/// its parent; and one that is gone is not found by its name, whatever is in its row now.
extension Catalog {
    private func visibleAncestor(_ row: Int32) -> SnapshotIdentifier? {
        var row = row
        while row >= 0 {
            if isVisible(Int(row)) { return versions[Int(row)].identifier }
            row = above(row)
        }
        return nil
    }

    /// An ancestor of a hidden version with none between them that people see; -1: none is left.
    private func above(_ row: Int32) -> Int32 {
        let version = versions[Int(row)]
        return versions.row(of: version.shortcut).map(Int32.init) ?? version.parent
    }

    /// Leaves shortcuts on the way from `start` (-1: none) to the nearest version that people see, itself
    /// included, so that it is near from now on. Every other version on the way is led past the next one,
    /// too, so that many ways with a common end take together little more than one. False: `hops` are used
    /// up; the next call goes on from there.
    mutating func findVisibleAncestor(_ start: Int32, hops: inout Int) -> Bool {
        var row = start
        var isFound = true
        while row >= 0, !isVisible(Int(row)) {
            isFound = hops > 0
            guard isFound else { break }
            hops -= 1
            let next = above(row)
            guard next >= 0 else { break }
            let second = isVisible(Int(next)) ? -1 : above(next)
            if second >= 0 { versions[Int(row)].shortcut = versions[Int(second)].identifier }
            row = second >= 0 ? second : next
        }
        if row != start { versions[Int(start)].shortcut = versions[Int(row)].identifier }
        return isFound
    }
}
