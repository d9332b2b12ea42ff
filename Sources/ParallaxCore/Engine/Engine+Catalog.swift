// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Asks for a change of the catalogue; the answer comes from `nextChangeReply` when the change
    /// is durable. Changes are made one after the other.
    package mutating func submit(change: CatalogChange, ticket: UInt64) {
        catalog.waiting.append((change, ticket))
    }

    package mutating func nextChangeReply() -> CatalogReply? {
        catalog.replies.isEmpty ? nil : catalog.replies.removeFirst()
    }

    /// What to put into `BlockRequest.vdi`. nil when there is no such VDI or it is being deleted.
    package func handle(of identifier: VDIIdentifier) -> UInt32? {
        guard let handle = catalog.handle(of: identifier), !catalog.vdis[Int(handle)].isDeleting
        else { return nil }
        return handle
    }

    /// All VDIs of this stream, those being deleted included.
    package func vdis() -> [VDISummary] {
        var summaries: [VDISummary] = []
        for handle in 0..<catalog.count where catalog.vdis[handle].isOpen {
            summaries.append(catalog.summary(handle))
        }
        return summaries
    }

    package func summary(of identifier: VDIIdentifier) -> VDISummary? {
        catalog.handle(of: identifier).map { catalog.summary(Int($0)) }
    }

    mutating func advanceCatalog() {
        if failure != nil {
            failChanges()
            return
        }
        advancePurge()
        if catalog.active == nil { beginChange() }
        guard let active = catalog.active else { return }
        switch active.phase {
        case .draining: discardBehindEnd(active)
        case .staging: stageCatalogRecord(active)
        case .syncing(let lsn) where durableLSN >= lsn:
            catalog.finishActive(.success(.vdi(identifier(active.record))))
        case .discarding, .logged, .syncing: break
        }
    }

    private func identifier(_ record: CatalogRecord) -> VDIIdentifier {
        switch record {
        case .create(let record): record.identifier
        case .resize(let identifier, _), .rename(let identifier, _), .delete(let identifier),
            .purge(let identifier):
            identifier
        }
    }

    private mutating func failChanges() {
        if catalog.active != nil { catalog.finishActive(.failure(.ioError)) }
        for waiting in catalog.waiting {
            catalog.replies.append(
                CatalogReply(ticket: waiting.ticket, result: .failure(.ioError)))
        }
        catalog.waiting.removeAll()
    }

    private mutating func beginChange() {
        guard !catalog.waiting.isEmpty else { return }
        let (change, ticket) = catalog.waiting.removeFirst()
        do throws(CatalogError) {
            let record = try validate(change)
            catalog.active = Catalog.Active(record: record, ticket: ticket, phase: .staging)
            if case .resize(let identifier, let sizeBytes) = record {
                beginShrinking(identifier, sizeBytes)
            }
        } catch {
            catalog.replies.append(CatalogReply(ticket: ticket, result: .failure(error)))
        }
    }

    private func validate(_ change: CatalogChange) throws(CatalogError) -> CatalogRecord {
        switch change {
        case .create(let name, let sizeBytes, let createdAt):
            try validate(size: sizeBytes)
            try validate(name: name)
            guard catalog.openCount < Limits.vdisPerStream else { throw .tooManyVDIs }
            return .create(
                VDIRecord(
                    identifier: VDIIdentifier(
                        UInt64(catalog.stream) << 48 | catalog.nextNumber), name: name,
                    sizeBytes: sizeBytes, createdAtNanoseconds: createdAt))
        case .resize(let identifier, let sizeBytes):
            guard handle(of: identifier) != nil else { throw .noSuchVDI }
            try validate(size: sizeBytes)
            return .resize(identifier, sizeBytes: sizeBytes)
        case .rename(let identifier, let name):
            guard handle(of: identifier) != nil else { throw .noSuchVDI }
            try validate(name: name)
            return .rename(identifier, name: name)
        case .delete(let identifier):
            guard handle(of: identifier) != nil else { throw .noSuchVDI }
            return .delete(identifier)
        default: throw .noSuchSnapshot
        }
    }

    private func validate(size: UInt64) throws(CatalogError) {
        guard Limits.vdiBytes.contains(size), size % UInt64(blockBytes) == 0 else {
            throw .invalidSize
        }
    }

    private func validate(name: String) throws(CatalogError) {
        guard Limits.vdiNameBytes.contains(name.utf8.count) else { throw .invalidName }
    }

    /// What lies behind a smaller end goes first: else it would come back when the VDI grows again.
    /// And before that, requests that reach there must have ended; new ones are refused.
    private mutating func beginShrinking(_ identifier: VDIIdentifier, _ sizeBytes: UInt64) {
        guard let handle = catalog.handle(of: identifier) else { return }
        let blocks = sizeBytes / UInt64(blockBytes)
        guard blocks < catalog.vdis[Int(handle)].sizeBlocks else { return }
        catalog.vdis[Int(handle)].endWhileShrinking = blocks
        catalog.active?.phase = .draining
    }

    private mutating func discardBehindEnd(_ active: Catalog.Active) {
        guard case .resize(let identifier, let sizeBytes) = active.record,
            let handle = catalog.handle(of: identifier)
        else { return }
        let blocks = sizeBytes / UInt64(blockBytes)
        for index in 0..<requests.capacity {
            let pending = requests[index]
            guard
                !pending.isInUse || pending.request.vdi != handle
                    || pending.endSector <= blocks * UInt64(sectorsPerBlock)
            else { return }
        }
        catalog.active?.phase = .discarding
        submitInternal(
            tag: Catalog.InternalTag.shrink, handle: handle, firstBlock: blocks,
            count: catalog.vdis[Int(handle)].sizeBlocks - blocks)
    }

    private mutating func submitInternal(
        tag: UInt32, handle: UInt32, firstBlock: UInt64, count: UInt64
    ) {
        submit(
            BlockRequest(
                operation: .discard, vdi: handle, session: Catalog.internalSession, tag: tag,
                firstSector: firstBlock * UInt64(sectorsPerBlock),
                sectorCount: count * UInt64(sectorsPerBlock)))
    }

    private mutating func stageCatalogRecord(_ active: Catalog.Active) {
        let bytes = ChunkRecord.vdiFixedBytes + active.record.encodedBytes
        switch prepareChunk(recordBytes: bytes, payloadBlocks: 0, reserve: active.record.reserve) {
        case .go: break
        case .wait: return
        case .full:
            catalog.finishActive(.failure(.noSpace))
            return
        }
        let building = log.building
        var writer = log.chunks[building].recordWriter()
        writer.put(ChunkRecord.Kind.vdi)
        writer.put(active.record.kind)
        writer.put(UInt16(active.record.encodedBytes))
        writer.put(UInt32(0))
        active.record.encode(to: &writer)
        log.chunks[building].recordBytes += bytes
        log.chunks[building].add(
            ChunkOperation(
                kind: .catalog, vdi: 0, part: -1, firstBlock: 0, count: 0, payload: 0,
                checksumsOffset: 0))
        stagedOperations += 1
        catalog.active?.phase = .logged
    }

    /// The active change's record is in a chunk that is on the device: carries it out.
    mutating func applyCatalogRecord(lsn: LogSequenceNumber) {
        guard let active = catalog.active, carryOut(active.record) else {
            preconditionFailure("Engine: a catalogue record without its change")
        }
        catalog.active?.phase = .syncing(lsn)
        if case .purge = active.record { catalog.active = nil }
    }

    /// Changes the catalogue as a record of the log says; false when the two do not fit.
    mutating func carryOut(_ record: CatalogRecord) -> Bool {
        if case .purge(let identifier) = record, let handle = catalog.handle(of: identifier) {
            forest.dropEmptyTree(&catalog.vdis[Int(handle)])
        }
        return catalog.apply(record)
    }

    /// Gives the blocks of deleted VDIs back: discards all of one, then forgets it. Both are in
    /// the log, so after a crash this begins again where it was.
    private mutating func advancePurge() {
        if let handle = catalog.purging {
            guard catalog.purgeIsDone, catalog.active == nil else { return }
            catalog.purging = nil
            catalog.purgeIsDone = false
            catalog.active = Catalog.Active(
                record: .purge(catalog.vdis[Int(handle)].identifier), ticket: nil,
                phase: .staging)
        } else if catalog.active == nil, let handle = catalog.nextPurgeable {
            catalog.purging = handle
            submitInternal(
                tag: Catalog.InternalTag.purge, handle: handle, firstBlock: 0,
                count: catalog.vdis[Int(handle)].sizeBlocks)
        }
    }
}
