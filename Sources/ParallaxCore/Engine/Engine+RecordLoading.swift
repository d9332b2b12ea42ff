// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Reading the record pages of a checkpoint: versions first, then who continues whom, then VDIs.
extension Engine {
    mutating func loadRecords(
        _ tables: CheckpointTables, _ root: CheckpointRoot, medium: some StoreMedium
    ) throws(StoreError) {
        catalog.pages.index = tables.index
        var references: [BlockReference] = []
        let index = try readBlocks(tables.index, root, .records, medium: medium)
        var reader = ByteReader(index.base, count: index.count)
        while references.count < tables.pageCount, let reference = reader.takeReference() {
            references.append(reference)
        }
        guard references.count == tables.pageCount else {
            throw Self.damaged("the record pages of shard \(root.stream) are incomplete")
        }
        var loaded = LoadedRecords()
        for start in stride(from: 0, to: references.count, by: Self.blocksPerRead) {
            let part = Array(references[start..<min(start + Self.blocksPerRead, references.count)])
            let blocks = try readBlocks(part, from: start, root, .records, medium: medium)
            for (position, reference) in part.enumerated() {
                let page = catalog.pages.load(reference)
                if !reference.isHole {
                    try read(page, blocks, at: position * blockBytes, root, &loaded)
                }
            }
        }
        try link(loaded, root)
        catalog.sumBirths()
        catalog.pages.finishLoad()
        try resumeReclaim(tables, root)
    }

    private struct LoadedRecords {
        var parents: [(row: Int, parent: SnapshotIdentifier)] = []
        var vdis: [(record: VDIRecord, page: UInt32)] = []
    }

    /// Of record pages and forwards there may be gigabytes.
    static let blocksPerRead = 4096

    /// Reads many blocks at once, of record pages, forwards or live bits, and checks them. A hole's
    /// content is zeros. `first`: the number of the first of them among all pages of its kind.
    mutating func readBlocks(
        _ references: [BlockReference], from first: Int = 0, _ root: CheckpointRoot,
        _ structure: CheckFinding.Structure, medium: some StoreMedium
    ) throws(StoreError) -> BlockBuffer {
        guard !references.isEmpty else { return BlockBuffer() }
        let buffer = BlockBuffer(blocks: references.count)
        let segments = UnsafeMutablePointer<DataSegment>.allocate(capacity: references.count)
        defer { segments.deallocate() }
        var commands: [StoreCommand] = []
        for (index, reference) in references.enumerated() where !reference.isHole {
            guard let slot = forest.extents.slot(of: reference.address) else {
                try objectToPage(first + index, structure, "leads nowhere")
                continue
            }
            (segments + index).initialize(
                to: DataSegment(base: buffer.base + index * blockBytes, count: blockBytes))
            commands.append(
                StoreCommand(
                    operation: .read, tag: UInt64(index),
                    offset: superblock.byteOffset(slot: slot, block: reference.address.block),
                    byteCount: blockBytes, buffers: UnsafePointer(segments + index),
                    bufferCount: 1))
        }
        let failure: MediumError? = commands.withUnsafeBufferPointer { buffer in
            do throws(MediumError) {
                try medium.readAll(buffer)
                return nil
            } catch {
                return error
            }
        }
        if let failure {
            guard inspection != nil else { throw StoreError(failure) }
            readOneByOne(commands, into: buffer, medium: medium)
        }
        for (index, reference) in references.enumerated() where !reference.isHole {
            let content = buffer.base + index * blockBytes
            guard Checksum.ofBlock(content) != reference.checksum else { continue }
            try objectToPage(first + index, structure, "fails its checksum")
            Memory.zero(content, count: blockBytes)
        }
        return buffer
    }

    private mutating func read(
        _ page: UInt32, _ blocks: borrowing BlockBuffer, at offset: Int, _ root: CheckpointRoot,
        _ loaded: inout LoadedRecords
    ) throws(StoreError) {
        var reader = ByteReader(blocks.base, count: offset + blockBytes, at: offset)
        guard let count = reader.take(UInt32.self), reader.take(UInt32.self) != nil else { return }
        for _ in 0..<count {
            var ahead = reader
            let kind = ahead.skip(2) ? ahead.take(UInt8.self) : nil
            if kind == VDIRecord.kind, let record = VDIRecord.decode(from: &reader) {
                loaded.vdis.append((record, page))
            } else if kind == VersionRecord.kind, let record = VersionRecord.decode(from: &reader),
                insert(record, page)
            {
                loaded.parents.append((record.version.identifier.row, record.parent))
            } else {
                try object(
                    "a record of shard \(root.stream) makes no sense", .records,
                    consequence: "it and those behind it on its page are lost")
                return
            }
        }
    }

    private mutating func insert(_ record: VersionRecord, _ page: UInt32) -> Bool {
        var version = record.version
        version.page = page
        version.recordBytes = UInt16(record.encodedBytes)
        guard version.identifier.stream == catalog.stream,
            catalog.versions.insert(version, details: record.details)
        else { return false }
        let row = version.identifier.row
        catalog.versions[row].isHeld = catalog.versions.decodedDetails(row).isHeld
        catalog.pages.loadMember(.version(row), bytes: record.encodedBytes, on: page)
        return true
    }

    private mutating func link(
        _ loaded: LoadedRecords, _ root: CheckpointRoot
    ) throws(StoreError) {
        for (row, parent) in loaded.parents where parent.rawValue != 0 {
            guard let parentRow = catalog.versions.row(of: parent),
                catalog.versions[parentRow].epoch < catalog.versions[row].epoch
            else {
                try objectToParent(of: "snapshot \(catalog.versions.decodedDetails(row).name)")
                continue
            }
            catalog.addChild(.snapshot(row), to: Int32(parentRow))
        }
        for (record, page) in loaded.vdis {
            if catalog.insert(record, page: page) != nil { continue }
            try objectToParent(of: "VDI \(record.name)")
            var orphan = record
            orphan.parent = SnapshotIdentifier(0)
            _ = catalog.insert(orphan, page: page)
        }
        var lostVDIs: Set<VDIIdentifier> = []
        // In the order in which they were made.
        for (row, _) in loaded.parents.sorted(by: {
            catalog.versions[$0.row].identifier.sequence
                < catalog.versions[$1.row].identifier.sequence
        }) {
            let version = catalog.versions[row]
            guard version.state != .deleted else { continue }
            guard let handle = catalog.handle(of: version.vdi) else {
                guard lostVDIs.insert(version.vdi).inserted else { continue }
                try object(
                    "shard \(root.stream) has snapshots of a VDI that is not there", .records,
                    consequence: "the record of VDI \(version.vdi.rawValue) is lost; a repair puts "
                        + "them under an empty disk, \(Self.nameOfLost(version.vdi))")
                continue
            }
            catalog.appendSnapshot(row, to: Int(handle))
            if version.state == .pending { catalog.pendingRows.append(UInt32(row)) }
        }
    }

    /// What was deleted and not given back when the checkpoint was made is taken up again.
    private mutating func resumeReclaim(
        _ tables: CheckpointTables, _ root: CheckpointRoot
    ) throws(StoreError) {
        var target: RecordOwner?
        if let deletion = tables.deletion {
            switch VersionReference(rawValue: deletion.target) {
            case .head(let identifier):
                target = catalog.handle(of: identifier).map { .vdi(Int($0)) }
            case .snapshot(let identifier):
                target = catalog.versions.row(of: identifier).map { .version($0) }
            }
            if let target {
                let job = ReclaimJob(
                    purpose: .free, target: target, level: deletion.level,
                    cursor: deletion.cursor)
                catalog.reclaim.job = job
                showProgress(job)
            } else {
                try object(
                    "shard \(root.stream) is deleting what is not there", .records, .repairable,
                    consequence: "a repair forgets it")
            }
        }
        for row in 0..<catalog.versions.count where catalog.versions[row].state != .free {
            if target != .version(row) { queue(row) }
        }
        for handle in 0..<catalog.count
        where catalog.vdis[handle].kind == .head && catalog.vdis[handle].isDeleting
            && target != .vdi(handle)
        {
            catalog.reclaim.vdis.append(UInt32(handle))
        }
    }
}
