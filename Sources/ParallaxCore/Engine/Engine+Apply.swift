// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Applies completed chunks to the trees, strictly in the order of the log (E1), as far as the
    /// nodes that they need are there.
    mutating func applyChunks() {
        while failure == nil, !log.inFlight.isEmpty {
            let index = Int(log.inFlight[0])
            guard log.chunks[index].state == .complete else { return }
            while log.chunks[index].appliedCount < log.chunks[index].operationCount {
                let position = log.chunks[index].appliedCount
                let operation = log.chunks[index].operations[position]
                applierWaits = !apply(operation, chunk: index)
                if applierWaits { return }
                log.chunks[index].appliedCount += 1
                stagedOperations -= 1
                changesSinceFreeze += 1
                notePieceApplied(Int(operation.part))
            }
            retire(index)
        }
    }

    private mutating func notePieceApplied(_ part: Int) {
        guard part >= 0 else { return }
        parts[part].outstanding -= 1
        if parts[part].outstanding == 0 && parts[part].phase == .staged { finishPart(part) }
    }

    private mutating func retire(_ index: Int) {
        for block in 0..<log.chunks[index].payloadBlocks {
            let frame = Int(log.chunks[index].nodeFrames[block])
            if frame >= 0 { forest.cache.finishWrite(frame) }
        }
        appliedLSN = log.chunks[index].lsn
        log.retireOldest()
        if !locked.isEmpty { wakeLocked() }
    }

    private mutating func apply(_ operation: ChunkOperation, chunk index: Int) -> Bool {
        let handle = Int(operation.vdi)
        switch operation.kind {
        case .catalog:
            applyCatalogRecord(lsn: log.chunks[index].lsn)
            return true
        case .hole:
            return applyHole(
                handle, firstBlock: operation.firstBlock, count: Int(operation.count),
                kind: operation.holeKind)
        case .data:
            let chunk = log.chunks[index]
            return applyData(
                handle, firstBlock: operation.firstBlock, count: Int(operation.count),
                address: chunk.address(ofPayload: Int(operation.payload)),
                checksums: UnsafeRawPointer(chunk.base) + Int(operation.checksumsOffset))
        }
    }

    /// Maps blocks of one leaf. False: a node is missing, or a frame; again later.
    mutating func applyData(
        _ handle: Int, firstBlock: UInt64, count: Int, address: BlockAddress,
        checksums: UnsafeRawPointer
    ) -> Bool {
        guard forest.cache.ensureFree(RadixForest.framesPerChange) else { return false }
        switch forest.walk(catalog.vdis[handle], to: firstBlock) {
        case .leaf, .hole: break
        case .loading(let frame):
            applierFrame = frame
            return false
        case .starved: return false
        }
        catalog.touch(handle)
        let leaf = forest.writableLeaf(&catalog.vdis[handle], for: firstBlock)
        forest.map(
            &catalog.vdis[handle], leaf: leaf, block: firstBlock, count: count, address: address,
            checksums: checksums)
        return true
    }

    /// Unmaps blocks of one leaf. False: a node is missing, or a frame; again later.
    mutating func applyHole(
        _ handle: Int, firstBlock: UInt64, count: Int, kind: HoleKind
    ) -> Bool {
        guard forest.cache.ensureFree(RadixForest.framesPerChange) else { return false }
        switch forest.walk(catalog.vdis[handle], to: firstBlock) {
        case .leaf(let leaf):
            guard forest.isAnyMapped(leaf: leaf, block: firstBlock, count: count) else {
                return true
            }
        case .hole: return true
        case .loading(let frame):
            applierFrame = frame
            return false
        case .starved: return false
        }
        catalog.touch(handle)
        let leaf = forest.writableLeaf(&catalog.vdis[handle], for: firstBlock)
        forest.unmap(
            &catalog.vdis[handle], leaf: leaf, block: firstBlock, count: count, kind: kind)
        return true
    }
}
