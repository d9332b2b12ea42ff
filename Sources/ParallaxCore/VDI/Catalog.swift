// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The VDIs of one stream, and the one change of them that is under way.
///
/// Owned by the shard thread. Handles (indices into `vdis`) are not reused while the engine runs:
/// a request with a stale handle finds a closed VDI, never another one.
struct Catalog: ~Copyable {
    /// Session of requests that the engine makes itself.
    static let internalSession = UInt32.max
    static let internalRequests = 4

    /// Why a change waits.
    enum Phase: Equatable {
        /// Blocks behind the new end are being discarded.
        case discarding
        /// Requests that reach behind the new end are still under way.
        case draining
        /// The record is to go into a chunk.
        case staging
        /// The record is in a chunk that is not applied.
        case logged
        /// Applied; durable when the log is durable up to here.
        case syncing(LogSequenceNumber)
    }

    struct Active {
        var record: CatalogRecord
        /// nil: the engine's own, as the purge of a deleted VDI.
        var ticket: UInt64?
        var phase: Phase
    }

    let stream: Int
    var nextNumber: UInt64
    private(set) var vdis: UnsafeMutablePointer<VDI>
    private(set) var count = 0
    private var capacity = 64
    private var names: [String] = []
    private var createdAt: [UInt64] = []
    private var handles: [UInt64: UInt32] = [:]
    var waiting: [(change: CatalogChange, ticket: UInt64)] = []
    var active: Active?
    var replies: [CatalogReply] = []
    /// The deleted VDI whose blocks are being discarded, and whether that is done.
    var purging: UInt32?
    var purgeIsDone = false

    init(stream: Int, nextNumber: UInt64) {
        self.stream = stream
        self.nextNumber = nextNumber
        vdis = .allocate(capacity: capacity)
    }

    deinit { vdis.deallocate() }

    func isOpen(_ handle: UInt32) -> Bool {
        Int(handle) < count && vdis[Int(handle)].isOpen
    }

    func handle(of identifier: VDIIdentifier) -> UInt32? { handles[identifier.rawValue] }

    var openCount: Int { handles.count }

    /// Whether a change or a deletion is under way.
    var hasWork: Bool { active != nil || !waiting.isEmpty || purging != nil || nextDeleting != nil }

    var nextDeleting: UInt32? { firstDeleting { _ in true } }

    /// A deleted VDI that no request can write to any more.
    var nextPurgeable: UInt32? { firstDeleting { $0.requestsInFlight == 0 } }

    private func firstDeleting(_ isFit: (VDI) -> Bool) -> UInt32? {
        for handle in 0..<count
        where vdis[handle].isOpen && vdis[handle].isDeleting && isFit(vdis[handle]) {
            return UInt32(handle)
        }
        return nil
    }

    func record(_ handle: Int) -> VDIRecord {
        let vdi = vdis[handle]
        return VDIRecord(
            identifier: vdi.identifier, name: names[handle],
            sizeBytes: vdi.sizeBlocks * UInt64(blockBytes),
            createdAtNanoseconds: createdAt[handle], epoch: vdi.epoch,
            snapshotEpoch: vdi.snapshotEpoch, isDeleting: vdi.isDeleting, levels: vdi.levels,
            root: vdi.root, allocatedBlocks: vdi.allocatedBlocks)
    }

    func summary(_ handle: Int) -> VDISummary {
        let vdi = vdis[handle]
        return VDISummary(
            identifier: vdi.identifier, name: names[handle],
            sizeBytes: vdi.sizeBlocks * UInt64(blockBytes),
            allocatedBytes: vdi.allocatedBlocks * UInt64(blockBytes),
            createdAtNanoseconds: createdAt[handle], isDeleting: vdi.isDeleting)
    }

    /// Adds a VDI, from the checkpoint or from a record of the log.
    mutating func insert(_ record: VDIRecord) {
        if count == capacity { grow() }
        var vdi = VDI()
        vdi.identifier = record.identifier
        vdi.sizeBlocks = record.sizeBytes / UInt64(blockBytes)
        vdi.root = record.root
        vdi.levels = record.levels
        vdi.epoch = record.epoch
        vdi.snapshotEpoch = record.snapshotEpoch
        vdi.allocatedBlocks = record.allocatedBlocks
        vdi.isOpen = true
        vdi.isDeleting = record.isDeleting
        (vdis + count).initialize(to: vdi)
        names.append(record.name)
        createdAt.append(record.createdAtNanoseconds)
        handles[record.identifier.rawValue] = UInt32(count)
        count += 1
        let number = record.identifier.rawValue & 0xFFFF_FFFF_FFFF
        nextNumber = max(nextNumber, number + 1)
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<VDI>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: vdis, count: count)
        vdis.deallocate()
        vdis = larger
        capacity *= 2
    }

    /// Carries out a record of the log. False when it names a VDI that is not there, or one that
    /// is there already: the log is not this catalogue's.
    mutating func apply(_ record: CatalogRecord) -> Bool {
        switch record {
        case .create(let record):
            guard handles[record.identifier.rawValue] == nil else { return false }
            insert(record)
        case .resize(let identifier, let sizeBytes):
            guard let handle = handle(of: identifier) else { return false }
            vdis[Int(handle)].sizeBlocks = sizeBytes / UInt64(blockBytes)
        case .rename(let identifier, let name):
            guard let handle = handle(of: identifier) else { return false }
            names[Int(handle)] = name
        case .delete(let identifier):
            guard let handle = handle(of: identifier) else { return false }
            vdis[Int(handle)].isDeleting = true
        case .purge(let identifier):
            guard let handle = handle(of: identifier) else { return false }
            vdis[Int(handle)].isOpen = false
            names[Int(handle)] = ""
            handles[identifier.rawValue] = nil
        }
        return true
    }

    /// One of the engine's own requests is over.
    mutating func finishInternal(tag: UInt32, status: BlockStatus) {
        if tag == InternalTag.purge {
            if status == .ok { purgeIsDone = true } else { purging = nil }
        } else if var change = active, change.phase == .discarding {
            change.phase = .staging
            active = change
            if status != .ok { finishActive(.failure(status == .noSpace ? .noSpace : .ioError)) }
        }
    }

    /// Answers the active change and makes room for the next.
    mutating func finishActive(_ result: Result<CatalogOutcome, CatalogError>) {
        if case .resize(let identifier, _) = active?.record, let handle = handle(of: identifier) {
            vdis[Int(handle)].endWhileShrinking = .max
        }
        if let ticket = active?.ticket {
            replies.append(CatalogReply(ticket: ticket, result: result))
        }
        active = nil
    }

    enum InternalTag {
        static let purge: UInt32 = 1
        static let shrink: UInt32 = 2
    }
}
