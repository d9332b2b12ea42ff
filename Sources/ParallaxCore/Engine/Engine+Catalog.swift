// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Asks for a change of the catalogue; the answer comes from `nextChangeReply` when the change
    /// is durable. Changes are made in the order in which they are asked for; many may share a
    /// chunk and a sync.
    package mutating func submit(change: CatalogChange, ticket: UInt64) {
        catalog.waiting.append((change, ticket))
    }

    package mutating func nextChangeReply() -> CatalogReply? { catalog.replies.popFirst() }

    /// What to put into `BlockRequest.vdi`. nil when there is no such VDI or it is being deleted.
    package func handle(of identifier: VDIIdentifier) -> UInt32? {
        guard let handle = catalog.handle(of: identifier), !catalog.vdis[Int(handle)].isDeleting
        else { return nil }
        return handle
    }

    /// LIMIT: changes that one turn puts into the log, so that guests' requests find room.
    private static let changesPerTurn = 64

    mutating func advanceCatalog() {
        guard failure == nil else {
            failChanges()
            return
        }
        answerDurableChanges()
        advanceShrinking()
        var budget = Self.changesPerTurn
        while budget > 0, catalog.shrinking == nil, let (change, ticket) = catalog.waiting.first {
            guard begin(change, ticket) else { break }
            _ = catalog.waiting.popFirst()
            budget -= 1
        }
        answerDurableChanges()
    }

    private mutating func answerDurableChanges() {
        while let change = catalog.syncing.first, change.lsn <= durableLSN {
            _ = catalog.syncing.popFirst()
            catalog.replies.append(CatalogReply(ticket: change.ticket, result: change.result))
        }
    }

    private mutating func failChanges() {
        var tickets: [UInt64] = []
        while let change = catalog.syncing.popFirst() { tickets.append(change.ticket) }
        while let change = catalog.logged.popFirst() { tickets.append(change.ticket) }
        if let shrinking = catalog.shrinking { giveUp(shrinking, &tickets) }
        while let change = catalog.waiting.popFirst() { tickets.append(change.ticket) }
        for ticket in tickets {
            catalog.replies.append(CatalogReply(ticket: ticket, result: .failure(.ioError)))
        }
    }

    private mutating func giveUp(_ shrinking: Catalog.Shrinking, _ tickets: inout [UInt64]) {
        tickets.append(shrinking.ticket)
        catalog.shrinking = nil
        guard let handle = catalog.handle(of: shrinking.identifier) else { return }
        catalog.vdis[Int(handle)].endWhileShrinking = .max
    }

    /// Puts the change into the log, or answers that it is not possible. False: it has to wait.
    private mutating func begin(_ change: CatalogChange, _ ticket: UInt64) -> Bool {
        if let error = refusal(change) { return refuse(ticket, error) }
        if case .resize(let identifier, let sizeBytes) = change {
            // Whether it makes the disk smaller, what is in the log already may decide.
            guard catalog.logged.isEmpty else { return false }
            if isShrinking(change) {
                beginShrinking(identifier, sizeBytes, ticket)
                return true
            }
        }
        switch prepareChunk(
            recordBytes: Self.recordBytes(of: change), payloadBlocks: 0,
            reserve: reserve(of: change))
        {
        case .go:
            stage(makeRecord(change), ticket: ticket)
            return true
        case .wait: return false
        case .full: return refuse(ticket, .noSpace)
        }
    }

    /// Answers come in the order of the questions. False: what is in the log already comes first,
    /// and may decide otherwise.
    private mutating func refuse(_ ticket: UInt64, _ error: CatalogError) -> Bool {
        guard catalog.logged.isEmpty else { return false }
        catalog.syncing.append(
            Catalog.Syncing(ticket: ticket, result: .failure(error), lsn: LogSequenceNumber(0)))
        return true
    }

    private mutating func stage(_ record: CatalogRecord, ticket: UInt64) {
        let building = log.building
        var writer = log.chunks[building].recordWriter()
        writer.put(ChunkRecord.Kind.vdi)
        writer.put(record.kind)
        writer.put(UInt16(record.encodedBytes))
        writer.put(UInt32(0))
        record.encode(to: &writer)
        log.chunks[building].recordBytes += ChunkRecord.vdiFixedBytes + record.encodedBytes
        log.chunks[building].add(
            ChunkOperation(
                kind: .catalog, vdi: replacedHead(record) ?? .max, part: -1, firstBlock: 0,
                count: 0, payload: 0, checksumsOffset: 0))
        stagedOperations += 1
        catalog.logged.append(Catalog.Logged(record: record, ticket: ticket))
    }

    /// The disk all of whose blocks the change replaces.
    private func replacedHead(_ record: CatalogRecord) -> UInt32? {
        guard case .rollback(let vdi, _, _, _, _, _) = record else { return nil }
        return handle(of: vdi)
    }

    /// The oldest logged change's record is on the device: carries it out.
    mutating func applyCatalogRecord(lsn: LogSequenceNumber) {
        guard let change = catalog.logged.popFirst() else {
            preconditionFailure("Engine: a catalogue record without its change")
        }
        let result = carryOut(change.record)
        catalog.syncing.append(
            Catalog.Syncing(ticket: change.ticket, result: result, lsn: lsn))
    }
}

/// Making a VDI smaller: what lies behind the new end goes first, else it would come back when the
/// VDI grows again. And before that, requests that reach there must have ended; new ones are
/// refused.
extension Engine {
    private func isShrinking(_ change: CatalogChange) -> Bool {
        guard case .resize(let identifier, let sizeBytes) = change,
            let handle = catalog.handle(of: identifier)
        else { return false }
        return sizeBytes / UInt64(blockBytes) < catalog.vdis[Int(handle)].sizeBlocks
    }

    private mutating func beginShrinking(
        _ identifier: VDIIdentifier, _ sizeBytes: UInt64, _ ticket: UInt64
    ) {
        guard let handle = catalog.handle(of: identifier) else { return }
        catalog.vdis[Int(handle)].endWhileShrinking = sizeBytes / UInt64(blockBytes)
        catalog.shrinking = Catalog.Shrinking(
            identifier: identifier, sizeBytes: sizeBytes, ticket: ticket)
    }

    private mutating func advanceShrinking() {
        guard let shrinking = catalog.shrinking,
            let handle = catalog.handle(of: shrinking.identifier)
        else { return }
        switch shrinking.phase {
        case .draining: discardBehindEnd(shrinking, handle)
        case .discarding: return
        case .staging:
            let change = CatalogChange.resize(
                shrinking.identifier, sizeBytes: shrinking.sizeBytes)
            switch prepareChunk(
                recordBytes: Self.recordBytes(of: change), payloadBlocks: 0,
                reserve: change.reserve)
            {
            case .go:
                stage(
                    .resize(shrinking.identifier, sizeBytes: shrinking.sizeBytes),
                    ticket: shrinking.ticket)
                catalog.shrinking = nil
            case .wait: return
            case .full: giveUpShrinking(.noSpace)
            }
        }
    }

    private mutating func discardBehindEnd(_ shrinking: Catalog.Shrinking, _ handle: UInt32) {
        let blocks = shrinking.sizeBytes / UInt64(blockBytes)
        for index in 0..<requests.capacity {
            let pending = requests[index]
            guard
                !pending.isInUse || pending.request.vdi != handle
                    || pending.endSector <= blocks * UInt64(sectorsPerBlock)
            else { return }
        }
        catalog.shrinking?.phase = .discarding
        submit(
            BlockRequest(
                operation: .discard, vdi: handle, session: Catalog.internalSession, tag: 0,
                firstSector: blocks * UInt64(sectorsPerBlock),
                sectorCount: (catalog.vdis[Int(handle)].sizeBlocks - blocks)
                    * UInt64(sectorsPerBlock)))
    }

    /// The discard behind the new end is over.
    mutating func finishInternalRequest(status: BlockStatus) {
        guard catalog.shrinking != nil else { return }
        if status == .ok {
            catalog.shrinking?.phase = .staging
        } else {
            giveUpShrinking(status == .noSpace ? .noSpace : .ioError)
        }
    }

    private mutating func giveUpShrinking(_ error: CatalogError) {
        guard let shrinking = catalog.shrinking else { return }
        if let handle = catalog.handle(of: shrinking.identifier) {
            catalog.vdis[Int(handle)].endWhileShrinking = .max
        }
        catalog.replies.append(
            CatalogReply(ticket: shrinking.ticket, result: .failure(error)))
        catalog.shrinking = nil
    }
}
