// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl

@testable import ParallaxCore

/// A small model of the versions of one shard: contents are dictionaries of blocks, and every
/// snapshot has a copy of its own.
struct FakeVersions {
    struct Disk {
        var name: String
        var sizeBytes: UInt64
        var createdAtNanoseconds: UInt64
        var attributes = VDIAttributes()
        var parent: SnapshotIdentifier?
        var blocks: [UInt64: UInt64] = [:]
        var isDeleting = false
    }

    struct Snapshot {
        var vdi: VDIIdentifier
        var parent: SnapshotIdentifier?
        var createdAtNanoseconds: UInt64
        var sizeBytes: UInt64
        var details: SnapshotDetails
        var blocks: [UInt64: UInt64]
        var pendingGroup: UInt64
    }

    let stream: Int
    var disks: [VDIIdentifier: Disk] = [:]
    var snapshots: [SnapshotIdentifier: Snapshot] = [:]
    var open: Set<SnapshotIdentifier> = []
    private var nextNumber: UInt64 = 1

    init(stream: Int) { self.stream = stream }

    mutating func apply(
        _ change: CatalogChange
    ) throws(CatalogError) -> CatalogOutcome {
        switch change {
        case .create(let name, let sizeBytes, let createdAt):
            return .vdi(
                add(Disk(name: name, sizeBytes: sizeBytes, createdAtNanoseconds: createdAt)))
        case .clone(let source, let name, let sizeBytes, let createdAt):
            let from = try snapshot(source)
            guard sizeBytes >= from.sizeBytes else { throw .invalidSize }
            return .vdi(
                add(
                    Disk(
                        name: name, sizeBytes: sizeBytes, createdAtNanoseconds: createdAt,
                        parent: source, blocks: from.blocks)))
        case .resize(let vdi, let sizeBytes): try self.change(vdi) { $0.sizeBytes = sizeBytes }
        case .rename(let vdi, let name): try self.change(vdi) { $0.name = name }
        case .setAttributes(let vdi, let attributes):
            try self.change(vdi) { $0.attributes = attributes }
        case .delete(let vdi): try delete(vdi)
        default: return try applyToSnapshots(change)
        }
        return .vdi(change.vdi ?? VDIIdentifier(0))
    }

    private mutating func applyToSnapshots(
        _ change: CatalogChange
    ) throws(CatalogError) -> CatalogOutcome {
        switch change {
        case .snapshot(let vdi, let details, let createdAt, let group):
            return .snapshot(try cut(vdi, details, createdAt, group))
        case .setDetails(let identifier, let details):
            guard details.isValid else { throw .invalidDetails }
            _ = try snapshot(identifier)
            snapshots[identifier]?.details = details
            return .snapshot(identifier)
        case .deleteSnapshot(let identifier):
            try delete(identifier)
            return .snapshot(identifier)
        case .rollback(let vdi, let target, let keeping, let createdAt):
            var kept: SnapshotIdentifier?
            let source = try snapshot(target)
            if let keeping { kept = try cut(vdi, keeping, createdAt, 0) }
            try self.change(vdi) { disk in
                disk.blocks = source.blocks
                disk.sizeBytes = source.sizeBytes
                disk.parent = target
            }
            return .rollback(vdi, kept: kept)
        case .finishGroup(let group, let commit):
            let members = snapshots.filter { $0.value.pendingGroup == group }.map(\.key)
            guard !members.isEmpty else { throw .noSuchGroup }
            for member in members {
                if commit { snapshots[member]?.pendingGroup = 0 } else { snapshots[member] = nil }
            }
            return .group(group)
        default: throw .noSuchVDI
        }
    }

    mutating func add(_ disk: Disk) -> VDIIdentifier {
        let identifier = VDIIdentifier(UInt64(stream) << 48 | nextNumber)
        nextNumber += 1
        disks[identifier] = disk
        return identifier
    }

    private func snapshot(
        _ identifier: SnapshotIdentifier
    ) throws(CatalogError) -> Snapshot {
        guard let snapshot = snapshots[identifier] else { throw .noSuchSnapshot }
        return snapshot
    }

    private mutating func change(
        _ vdi: VDIIdentifier, _ body: (inout Disk) -> Void
    ) throws(CatalogError) {
        guard var disk = disks[vdi], !disk.isDeleting else { throw .noSuchVDI }
        body(&disk)
        disks[vdi] = disk
    }

    private mutating func cut(
        _ vdi: VDIIdentifier, _ details: SnapshotDetails, _ createdAt: UInt64, _ group: UInt64
    ) throws(CatalogError) -> SnapshotIdentifier {
        guard let disk = disks[vdi] else { throw .noSuchVDI }
        guard details.isValid else { throw .invalidDetails }
        let identifier = SnapshotIdentifier(stream: stream, row: 0, sequence: nextNumber)
        snapshots[identifier] = Snapshot(
            vdi: vdi, parent: disk.parent, createdAtNanoseconds: createdAt,
            sizeBytes: disk.sizeBytes, details: details, blocks: disk.blocks,
            pendingGroup: group)
        nextNumber += 1
        disks[vdi]?.parent = identifier
        return identifier
    }

    private mutating func delete(_ identifier: SnapshotIdentifier) throws(CatalogError) {
        let gone = try snapshot(identifier)
        guard !gone.details.isHeld else { throw .held }
        guard !open.contains(identifier) else { throw .inUse }
        snapshots[identifier] = nil
        // Only children know their parent; all are looked at, as models may.
        for (other, snapshot) in snapshots where snapshot.parent == identifier {
            snapshots[other]?.parent = gone.parent
        }
        for (vdi, disk) in disks where disk.parent == identifier {
            disks[vdi]?.parent = gone.parent
        }
    }

    private mutating func delete(_ vdi: VDIIdentifier) throws(CatalogError) {
        guard disks[vdi] != nil else { throw .noSuchVDI }
        let own = snapshots.filter { $0.value.vdi == vdi }
        guard own.values.allSatisfy({ !$0.details.isHeld }) else { throw .held }
        guard open.isDisjoint(with: own.keys) else { throw .inUse }
        for identifier in own.keys { try delete(identifier) }
        disks[vdi] = nil
    }
}

/// What lists show.
extension FakeVersions {
    func state(_ identifier: VDIIdentifier) -> VDIState? {
        disks[identifier].map { disk in
            VDIState(
                identifier: identifier, name: disk.name, sizeBytes: disk.sizeBytes,
                createdAtSeconds: Int64(disk.createdAtNanoseconds / 1_000_000_000),
                allocatedBytes: UInt64(disk.blocks.count) * 4096,
                chargedBytes: UInt64(disk.blocks.count) * 4096,
                exclusiveBytes: UInt64(disk.blocks.count) * 4096,
                phase: disk.isDeleting ? .deleting : .active, attributes: disk.attributes,
                parent: disk.parent)
        }
    }

    func summary(_ identifier: SnapshotIdentifier) -> SnapshotSummary? {
        guard let snapshot = snapshots[identifier] else { return nil }
        let children =
            snapshots.values.count { $0.parent == identifier }
            + disks.values.count { $0.parent == identifier }
        return SnapshotSummary(
            identifier: identifier, vdi: snapshot.vdi, parent: snapshot.parent,
            createdAtNanoseconds: snapshot.createdAtNanoseconds, sizeBytes: snapshot.sizeBytes,
            allocatedBytes: UInt64(snapshot.blocks.count) * 4096,
            exclusiveBytes: UInt64(snapshot.blocks.count) * 4096, childCount: children,
            details: snapshot.details, pendingGroup: snapshot.pendingGroup,
            isOpen: open.contains(identifier))
    }

    func page(from cursor: Int, limit: Int) -> SnapshotPage {
        let all = snapshots.keys.sorted { $0.rawValue < $1.rawValue }
        let page = all.dropFirst(cursor).prefix(limit)
        let end = cursor + page.count
        return SnapshotPage(
            snapshots: page.compactMap(summary), next: end < all.count ? end : nil)
    }

    func blocks(_ version: VersionReference) -> [UInt64: UInt64]? {
        switch version {
        case .head(let vdi): disks[vdi]?.blocks
        case .snapshot(let snapshot): snapshots[snapshot]?.blocks
        }
    }

    /// At most `limit` ranges an answer. A value of 0 is a block of written zeros.
    func compare(_ query: DiffQuery, limit: Int) throws(DiffError) -> DiffAnswer {
        guard let new = blocks(query.new), let old = query.old.map(blocks) ?? [:] else {
            throw .noSuchVersion
        }
        if let leaves = query.layoutOfLeaves { return layout(new, from: query.firstBlock, leaves) }
        var ranges: [DiffRange] = []
        let span = query.firstBlock..<max(query.firstBlock, query.endBlock)
        for block in Set(old.keys).union(new.keys).filter(span.contains).sorted()
        where old[block] != new[block] {
            let kind: DiffRange.Kind =
                new[block] == nil ? .discarded : new[block] == 0 ? .zeroed : .changed
            if ranges.count == limit { return DiffAnswer(ranges: ranges, nextBlock: block) }
            ranges.append(DiffRange(firstBlock: block, blockCount: 1, kind: kind))
        }
        return DiffAnswer(ranges: ranges, nextBlock: nil)
    }

    /// Every block lies by itself.
    private func layout(_ blocks: [UInt64: UInt64], from first: UInt64, _ leaves: Int) -> DiffAnswer
    {
        var seen: Set<UInt64> = []
        var answer = DiffAnswer(ranges: [], nextBlock: nil)
        for block in blocks.keys.filter({ $0 >= first }).sorted() {
            let leaf = block / UInt64(radixFanout)
            if seen.insert(leaf).inserted, seen.count > leaves {
                answer.nextBlock = leaf * UInt64(radixFanout)
                break
            }
            answer.layout.blockCount += 1
            answer.layout.runCount += 1
        }
        return answer
    }
}

extension CatalogChange {
    /// The VDI whose operations must not overlap.
    var vdi: VDIIdentifier? {
        switch self {
        case .resize(let vdi, _), .rename(let vdi, _), .delete(let vdi), .setAttributes(let vdi, _),
            .snapshot(let vdi, _, _, _), .rollback(let vdi, _, _, _):
            vdi
        case .create, .clone, .setDetails, .deleteSnapshot, .finishGroup: nil
        }
    }

    /// What `FakeShard.failNext` calls it.
    var operation: String {
        switch self {
        case .create: "create"
        case .clone: "clone"
        case .resize: "resize"
        case .rename: "rename"
        case .delete: "delete"
        case .setAttributes: "attributes"
        case .snapshot: "snapshot"
        case .setDetails: "details"
        case .deleteSnapshot: "delete snapshot"
        case .rollback: "rollback"
        case .finishGroup: "finish group"
        }
    }
}
