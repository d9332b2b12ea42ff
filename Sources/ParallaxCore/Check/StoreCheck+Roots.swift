// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A stream as far as it could be opened.
struct OpenedStream {
    /// nil: not at all.
    var opening: StreamOpening?
    var findings: [CheckFinding] = []
}

/// An engine that was opened to be looked at, and perhaps repaired.
final class StreamOpening {
    var engine: Engine

    init(_ engine: consuming Engine) { self.engine = engine }
}

/// Both superblocks, and both checkpoint roots of each stream.
extension StoreCheck {
    /// The superblock that counts; nil: there is none, and a finding says so.
    mutating func checkSuperblocks(medium: some StoreMedium) -> Superblock? {
        let opened: OpenedStore
        do throws(StoreError) {
            opened = try Store.inspect(medium: medium)
        } catch {
            report.findings.append(CheckFinding(.unreadable, .superblock, error.message))
            return nil
        }
        let block = BlockBuffer()
        for (copy, offset) in Superblock.copyOffsets.enumerated() {
            guard let other = superblock(at: offset, block, medium: medium) else {
                report.findings.append(
                    CheckFinding(
                        .repairable, .superblock,
                        "Superblock copy \(copy) is damaged; copy \(1 - copy) counts."))
                continue
            }
            // A crash between the two writes leaves another generation, or size, and nothing else.
            var expected = opened.superblock
            expected.generation = other.generation
            expected.storeBytes = other.storeBytes
            expected.slotCount = other.slotCount
            if other != expected {
                report.findings.append(
                    CheckFinding(
                        .repairable, .superblock,
                        "Superblock copy \(copy) is that of another store; copy "
                            + "\(opened.newestCopy) counts."))
            }
        }
        var superblock = opened.superblock
        // As an opening would have it: what the last one wrote is older than this one.
        superblock.generation += 1
        return superblock
    }

    private func superblock(
        at offset: UInt64, _ block: borrowing BlockBuffer, medium: some StoreMedium
    ) -> Superblock? {
        do {
            try medium.read(at: offset, into: block.bytes)
            return try Superblock.decode(from: block.base)
        } catch {
            return nil
        }
    }

    /// The sequences of the newest roots: they move on while a daemon writes.
    func sequences(medium: some StoreMedium) -> [UInt64] {
        guard let opened = try? Store.inspect(medium: medium) else { return [] }
        return (0..<Int(opened.superblock.streamCount)).map { stream in
            roots(stream, opened.superblock, medium: medium).compactMap { $0?.sequence }.max() ?? 0
        }
    }

    /// Both roots of a stream; nil: no root, or a damaged one, in both of its places.
    func roots(
        _ stream: Int, _ superblock: Superblock, medium: some StoreMedium
    ) -> [CheckpointRoot?] {
        (0..<2).map { copy in
            let root = CheckpointRoot.newest(
                of: CheckpointRoot.places(superblock, stream: stream, copy: copy, medium: medium))
            return root.flatMap { $0.replayBlock <= superblock.extentBlocks ? $0 : nil }
        }
    }

    /// Opens a stream by its newest root, or by the one before if that one, with the log behind it,
    /// has what the newest has lost.
    func openStream(
        _ stream: Int, _ superblock: Superblock, medium: some StoreMedium
    ) -> OpenedStream {
        var opened = OpenedStream()
        let roots = roots(stream, superblock, medium: medium)
        noteRoots(roots, stream, superblock, &opened, medium: medium)
        let candidates = roots.compactMap { $0 }.sorted { $0.sequence > $1.sequence }
        guard let newest = candidates.first else {
            opened.findings.append(
                CheckFinding(
                    .unreadable, .root, stream: stream,
                    "No checkpoint root of shard \(stream) can be read: its VDIs are lost."))
            return opened
        }
        var fault = "it has lost pages"
        var wanted = newest.replayLSN
        do throws(StoreError) {
            let opening = try open(newest, before: .hole, superblock, medium: medium)
            opened.opening = opening
            if !opening.engine.hasLostAnything || options.isLive { return opened }
            wanted = max(wanted, opening.engine.log.nextLSN)
        } catch {
            fault = error.message
        }
        if candidates.count > 1, !options.isLive {
            fallBack(
                to: candidates[1], from: newest, wanted, fault, &opened, superblock,
                medium: medium)
        }
        if opened.opening == nil {
            opened.findings.append(
                CheckFinding(
                    .unreadable, .tables, stream: stream,
                    "No checkpoint of shard \(stream) can be used (\(fault)): its VDIs are lost."))
        }
        return opened
    }

    /// Takes the older checkpoint if it and its log reach as far as `wanted` without loss, or if there
    /// is nothing else.
    private func fallBack(
        to root: CheckpointRoot, from newest: CheckpointRoot, _ wanted: LogSequenceNumber,
        _ fault: String,
        _ opened: inout OpenedStream, _ superblock: Superblock, medium: some StoreMedium
    ) {
        guard
            let opening = try? open(root, before: newest.table, superblock, medium: medium)
        else { return }
        var isWhole = !opening.engine.hasLostAnything && opening.engine.log.nextLSN >= wanted
        if isWhole {
            let report = opening.engine.report(for: self, medium: medium)
            isWhole = report.severity ?? .repairable < .loss
        }
        guard isWhole || opened.opening == nil else { return }
        opened.findings.append(
            CheckFinding(
                isWhole ? .repairable : .loss, .tables, stream: root.stream,
                "The newest checkpoint of shard \(root.stream) is damaged (\(fault)); the one before "
                    + "it and the log behind that have \(isWhole ? "everything" : "less")."))
        // What the newest checkpoint and the log behind it had may still be there, and says so.
        if !isWhole { opening.engine.inspection?.isLogCut = true }
        opened.opening = opening
    }

    func open(
        _ root: CheckpointRoot, before laterTable: BlockReference, _ superblock: Superblock,
        medium: some StoreMedium
    ) throws(StoreError) -> StreamOpening {
        var configuration = EngineConfiguration()
        configuration.stream = root.stream
        configuration.nodeCacheBytes = options.nodeCacheBytes
        return StreamOpening(
            try Engine.inspect(
                root, before: laterTable, superblock: superblock, replaysLog: !options.isLive,
                configuration: configuration, medium: medium))
    }

    private func noteRoots(
        _ roots: [CheckpointRoot?], _ stream: Int, _ superblock: Superblock,
        _ opened: inout OpenedStream, medium: some StoreMedium
    ) {
        for copy in 0..<2 {
            let places = CheckpointRoot.places(
                superblock, stream: stream, copy: copy, medium: medium)
            for (place, content) in places.enumerated() {
                // A stream that was never written to has one root, and an older program wrote no twins.
                let mayBeZeros = place == 1 || copy == 1 && roots[0]?.sequence == 0
                guard content.isDamaged || content == .zeros && !mayBeZeros else { continue }
                opened.findings.append(
                    CheckFinding(
                        .repairable, .root, stream: stream,
                        "Copy \(copy) of the checkpoint root of shard \(stream)"
                            + "\(place == 0 ? "" : ", its twin,") is damaged, or was torn by a loss of "
                            + "power."))
            }
            let found = places.compactMap(\.root)
            if found.count == 2, found[0].sequence == found[1].sequence, found[0] != found[1] {
                opened.findings.append(
                    CheckFinding(
                        .repairable, .root, stream: stream,
                        "Copy \(copy) of the checkpoint root of shard \(stream) and its twin are of "
                            + "two checkpoints, as a repair leaves them that was cut off."))
            }
        }
    }
}
