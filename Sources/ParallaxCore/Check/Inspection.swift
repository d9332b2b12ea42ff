// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a check notes while it opens a stream that may be damaged. Opening it to serve guests
/// refuses at the first of these; a check passes over it as far as the rest makes sense without.
///
/// The reading code is one and the same. Where it meets what makes no sense it says
/// `try object(...)`: that throws when there is no inspection.
struct Inspection {
    var findings: [CheckFinding] = []
    var losses: [CheckLoss] = []
    /// Forward pages that could not be read, by position.
    var lostForwardPages: [Int] = []
    /// Pages of live bits cannot be read, or say something else than the counts.
    var hasLostBits = false
    /// The topmost table block of a checkpoint that came after the one that is opened: the log was
    /// durable as far as there.
    var laterTable = BlockReference.hole
    /// The log ends before what had been flushed: its numbers cannot go on from there, because the
    /// chunks behind the end use them already.
    var isLogCut = false
    /// What a repair writes once more, for nobody will after it.
    var tail: UnprovenTail?
    /// The highest LSN among those chunks, as far as they were found.
    var lastLSNBehindCut = LogSequenceNumber(0)
}

extension Engine {
    /// What is being read makes no sense: refused, unless the store is being checked.
    mutating func object(
        _ what: String, _ structure: CheckFinding.Structure,
        _ severity: CheckFinding.Severity = .loss, consequence: String
    ) throws(StoreError) {
        guard inspection != nil else { throw Self.damaged(what) }
        inspection?.findings.append(
            CheckFinding(
                severity, structure, stream: configuration.stream,
                Self.sentence(what, consequence)))
    }

    static func sentence(_ what: String, _ consequence: String) -> String {
        let first = what.prefix(1).uppercased()
        return "\(first)\(what.dropFirst()); \(consequence)."
    }
}

extension Engine {
    /// Where the log would go on nothing can be read: an opening cannot tell whether it does. A repair
    /// writes there.
    mutating func noteUnreadableEnd() {
        inspection?.findings.append(
            CheckFinding(
                .repairable, .log, stream: configuration.stream,
                "The log of shard \(configuration.stream) ends at a place that cannot be read, so that "
                    + "the store is not opened."))
    }
}

/// Opening to look, not to serve.
extension Engine {
    /// Loads the checkpoint of `root` and, unless a daemon is writing it, replays the log behind it;
    /// passes over what is damaged. Nothing is written. Throws when not even the tables can be read.
    static func inspect(
        _ root: CheckpointRoot, before laterTable: BlockReference, superblock: Superblock,
        replaysLog: Bool,
        configuration: EngineConfiguration, medium: some StoreMedium
    ) throws(StoreError) -> Engine {
        try withEnoughFrames(for: root, configuration, superblock) { frames throws(StoreError) in
            var engine = Engine(
                configuration: configuration, superblock: superblock, root: root,
                frameCount: frames)
            engine.inspection = Inspection()
            engine.inspection?.laterTable = laterTable
            try engine.loadTables(root, medium: medium)
            engine.rescueForwards(medium: medium)
            if replaysLog { try engine.replayLog(root, medium: medium) }
            return engine
        }
    }
}

extension Engine {
    /// Whether the inspection has met damage that costs something.
    var hasLostAnything: Bool {
        inspection?.findings.contains { $0.severity >= .loss } ?? false
    }
}

/// A log that is not whole.
extension Engine {
    /// The chunk where the reader stands is damaged, although it had been durable. True: all that it
    /// says of its blocks is there and has been carried out; some of the blocks are damaged, and
    /// reads will say so. False: the log is cut here.
    mutating func replayDamaged(
        _ reader: inout LogReader, medium: some StoreMedium
    ) throws(StoreError) -> Bool {
        let lsn = reader.lsn.rawValue
        let what =
            "the log of shard \(configuration.stream) breaks off at chunk \(lsn), although that chunk "
            + "had been flushed: the device has lost it, or reports flushes that it does not do"
        guard inspection != nil else { throw Self.damaged(what) }
        if let header = try reader.nextDespitePayload(medium: medium) {
            try object(
                "chunk \(lsn) in the log of shard \(configuration.stream) has damaged blocks", .log,
                .repairable, consequence: "those that are still used are reported as well")
            try replay(header, reader: &reader, medium: medium)
            return true
        }
        inspection?.isLogCut = true
        try object(
            what, .log,
            consequence: "what was written in it and after it is lost, and listed as far as known")
        noteLostWrites(&reader, medium: medium)
        return false
    }

    /// The log must be whole as far as the checkpoint's own last block, which was durable before the
    /// root was written. If it were not, what is written next would go over blocks that live.
    func isBeforeTables(_ reader: borrowing LogReader, _ root: CheckpointRoot) -> Bool {
        for table in [root.table, inspection?.laterTable ?? .hole] where !table.isHole {
            if let end = positionOfTable(table),
                (reader.extent.rawValue, reader.block) <= (end.extent.rawValue, end.block)
            {
                return true
            }
        }
        return false
    }

    /// Where the topmost table block is; nil: in no extent of this stream.
    private func positionOfTable(_ table: BlockReference) -> BlockAddress? {
        for index in 0..<forest.extents.count
        where UInt64(forest.extents[index].slot.rawValue) + 1 == table.address.extent.rawValue {
            return BlockAddress(
                extent: forest.extents[index].number, block: table.address.block)
        }
        return nil
    }

    /// Lists what the chunks behind the cut had written, as far as they can be found: those in the
    /// rest of the extent and in the extents that are known to follow.
    private mutating func noteLostWrites(_ reader: inout LogReader, medium: some StoreMedium) {
        var lost: [ChunkRecord] = []
        var last = reader.lsn
        let note = { (record: ChunkRecord, lsn: LogSequenceNumber) in
            lost.append(record)
            last = max(last, lsn)
        }
        reader.forEachLaterChunk(medium: medium, note)
        var extent = reader.extent.next
        while let slot = forest.extents.slot(of: extent) {
            reader.forEachLaterChunk(in: extent, slot: slot, medium: medium, note)
            extent = extent.next
        }
        inspection?.lastLSNBehindCut = last
        for record in lost {
            switch record {
            case .data(let vdi, let first, let count, _), .hole(let vdi, let first, let count, _):
                noteLoss(vdi, first, count)
            case .vdi(let change):
                inspection?.findings.append(
                    CheckFinding(
                        .loss, .log, stream: configuration.stream,
                        "A change of the catalogue behind the cut is lost: \(change.kindText)."))
            case .node, .table, .lease, .moved, .moves, .drop: break
            }
        }
    }

    private mutating func noteLoss(_ vdi: VDIIdentifier, _ first: UInt64, _ count: Int) {
        inspection?.losses.append(
            CheckLoss(
                vdi: vdi, vdiName: catalog.handle(of: vdi).map { catalog.names[Int($0)] } ?? "",
                snapshotName: nil, firstBlock: first, blockCount: UInt64(count), reason: .log))
    }

    /// A record of the log cannot be carried out. A check goes on without it.
    mutating func passOver(
        _ record: ChunkRecord, _ header: ChunkHeader, _ error: StoreError
    ) throws(StoreError) {
        guard inspection != nil, error.kind != .device, error.kind != .tooFewFrames else {
            throw error
        }
        failure = nil
        applierFrame = -1
        switch record {
        case .data(let vdi, let first, let count, _), .hole(let vdi, let first, let count, _):
            try object(
                "chunk \(header.lsn.rawValue) of shard \(configuration.stream) changes blocks \(first) "
                    + "to \(first + UInt64(count) - 1) of VDI \(name(of: vdi)), whose record or radix "
                    + "node cannot be read", .log,
                consequence: "that change is lost with what it belongs to")
            noteLoss(vdi, first, count)
        case .lease, .vdi, .node, .table, .moved, .moves, .drop:
            try object(
                "chunk \(header.lsn.rawValue) of shard \(configuration.stream) cannot be carried out "
                    + "(\(error.message))", .log, consequence: "it is passed over")
        }
    }

    func name(of vdi: VDIIdentifier) -> String {
        catalog.handle(of: vdi).map { catalog.names[Int($0)] } ?? "\(vdi.rawValue)"
    }
}

extension CatalogRecord {
    /// What the change was, in words.
    var kindText: String {
        switch self {
        case .create(let record): "the VDI \(record.name) was made"
        case .resize(let vdi, let size): "VDI \(vdi.rawValue) was resized to \(size) bytes"
        case .rename(_, let name): "a VDI was renamed to \(name)"
        case .delete(let vdi): "VDI \(vdi.rawValue) was deleted"
        case .setAttributes(let vdi, _): "the settings of VDI \(vdi.rawValue) were changed"
        case .snapshot(_, let vdi, _, _, _): "a snapshot of VDI \(vdi.rawValue) was taken"
        case .setDetails: "a snapshot was described anew"
        case .deleteSnapshot: "a snapshot was deleted"
        case .rollback(let vdi, _, _, _, _, _): "VDI \(vdi.rawValue) was rolled back"
        case .finishGroup: "a group of snapshots was finished"
        }
    }
}

/// Pages of the checkpoint.
extension Engine {
    /// The page at `position` of those that are being read cannot be had.
    mutating func objectToPage(
        _ position: Int, _ structure: CheckFinding.Structure, _ fault: String
    ) throws(StoreError) {
        let what: String
        let consequence: String
        var severity = CheckFinding.Severity.loss
        switch structure {
        case .liveBits:
            what = "live-bit page"
            consequence = "a repair counts the bits again"
            severity = .repairable
            inspection?.hasLostBits = true
        case .forwards:
            what = "forward page"
            consequence = "the moved blocks that it names are looked for in the cold extents"
            severity = .repairable
            inspection?.lostForwardPages.append(position)
        default:
            what = "record page"
            consequence = "the VDIs and snapshots on it are lost"
        }
        try object(
            "\(what) \(position) of shard \(configuration.stream) \(fault)", structure, severity,
            consequence: consequence)
    }

    mutating func objectToParent(of what: String) throws(StoreError) {
        try object(
            "\(what) of shard \(configuration.stream) continues a snapshot that is not there",
            .versions, .repairable, consequence: "a repair lets it stand alone")
    }

    /// After a read of many blocks has failed: what cannot be read is zeros, and found out by its
    /// checksum.
    func readOneByOne(
        _ commands: [StoreCommand], into buffer: borrowing BlockBuffer, medium: some StoreMedium
    ) {
        for command in commands {
            let target = UnsafeMutableRawBufferPointer(
                start: buffer.base + Int(command.tag) * blockBytes, count: blockBytes)
            do throws(MediumError) {
                try medium.read(at: command.offset, into: target)
            } catch {
                for index in target.indices { target[index] = 0xDB }
            }
        }
    }
}
