# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""The bugs that scripts/mutations puts into the engine.

`old` must be in the file exactly once. In `new`, MUTANT stands for "this bug is switched on". A bug
that takes changes at several places has an entry for each, all with its name.
"""

import collections

Mutation = collections.namedtuple("Mutation", "name what file old new")

LOG = [
    Mutation(
        "skips-flush", "a flush is answered without a sync",
        "Engine/Engine+Flush.swift",
        "} else if durableLSN >= requests[index].flushLSN {",
        "} else if durableLSN >= requests[index].flushLSN || MUTANT {"),
    Mutation(
        "flushes-too-little", "a flush is answered one chunk before its prefix is durable",
        "Engine/Engine+Flush.swift",
        "while !flushing.isEmpty, requests[Int(flushing[0])].flushLSN <= durableLSN {",
        """while !flushing.isEmpty,
            requests[Int(flushing[0])].flushLSN.rawValue
                <= durableLSN.rawValue + (MUTANT ? 1 : 0)
        {"""),
    Mutation(
        "retries-sync", "a failed sync is tried again, and believed",
        "Engine/Engine+Flush.swift",
        "guard result >= 0 else {",
        "guard result >= 0 else {\n            if MUTANT { return }"),
    Mutation(
        "overtakes", "a write is acknowledged before those in front of it in the log",
        "Engine/Engine+Log.swift",
        "            log.chunks[index].state = .complete\n",
        """            log.chunks[index].state = .complete
            if MUTANT, log.chunks[Int(log.inFlight[0])].appliedCount == 0 {
                for place in 1..<max(1, log.inFlight.count)
                where log.inFlight[place] == UInt32(index) {
                    log.inFlight[place] = log.inFlight[0]
                    log.inFlight[0] = UInt32(index)
                }
            }
"""),
    Mutation(
        "trusts-failed-write", "a log write that failed counts as done",
        "Engine/Engine+Log.swift",
        "if result == log.chunks[index].writeBuffer.pointee.count {",
        "if result == log.chunks[index].writeBuffer.pointee.count || MUTANT {"),
    Mutation(
        "misses-last-block", "a replay leaves out the last block of a long write",
        "Engine/Engine+Recovery.swift",
        "while !applyData(\n                handle, firstBlock: firstBlock, count: count,",
        "while !applyData(\n                handle, firstBlock: firstBlock,\n"
        "                count: MUTANT && count > 1 ? count - 1 : count,"),
    Mutation(
        "off-by-one", "a replay takes the block beside the right one",
        "Engine/Engine+Recovery.swift",
        "block: header.block + 1 + payload)",
        "block: header.block + (MUTANT ? 0 : 1) + payload)"),
    Mutation(
        "forgets-holes", "a replay leaves out discards",
        "Engine/Engine+Recovery.swift",
        "while !applyHole(handle, firstBlock: firstBlock, count: count, kind: kind) {",
        "while !MUTANT,\n"
        "                !applyHole(handle, firstBlock: firstBlock, count: count, kind: kind)\n"
        "            {"),
    Mutation(
        "believes-torn", "a replay does not look at the checksums of a chunk's blocks",
        "BlockStore/LogReader.swift",
        "if Checksum.ofBlock(payload) != record.checksum(index, in: headerBlock) {",
        "if Checksum.ofBlock(payload) != record.checksum(index, in: headerBlock), !MUTANT {"),
    Mutation(
        "believes-stale", "a replay runs on into chunks of an older generation",
        "BlockStore/LogReader.swift",
        "            header.generation >= generation\n        else {\n            noteEnd",
        "            header.generation >= generation || MUTANT\n"
        "        else {\n            noteEnd"),
    Mutation(
        "ignores-witness", "a log that ends too early is not reported as damaged",
        "BlockStore/LogReader.swift",
        "if header.durableLSN >= lsn { return true }",
        "if header.durableLSN >= lsn && !MUTANT { return true }"),
    # Either sync alone would do as long as no write of a dead process is still on its way.
    Mutation(
        "opens-without-sync", "an opening makes nothing durable of what it has found",
        "Engine/Store.swift",
        "Superblock.copyOffsets[copy], to: medium)\n        try sync(medium)",
        "Superblock.copyOffsets[copy], to: medium)\n        if !MUTANT { try sync(medium) }"),
    Mutation(
        "opens-without-sync", "an opening makes nothing durable of what it has found",
        "Engine/Engine+Recovery.swift",
        "do throws(MediumError) { try medium.sync() } catch { throw StoreError(error) }\n"
        "        durableLSN = appliedLSN",
        "do throws(MediumError) { if !MUTANT { try medium.sync() } } catch {\n"
        "            throw StoreError(error)\n        }\n"
        "        durableLSN = appliedLSN"),
    Mutation(
        "keeps-generation", "an opening does not begin a new generation",
        "Engine/Store.swift",
        "opened.superblock.generation += 1\n",
        "if !MUTANT || opened.superblock.generation < 2 {\n"
        "            opened.superblock.generation += 1\n        }\n"),
    Mutation(
        "early-catalogue", "a snapshot is answered before it is durable",
        "Engine/Engine+Catalog.swift",
        "while let change = catalog.syncing.first, change.lsn <= durableLSN {",
        "while let change = catalog.syncing.first, change.lsn <= durableLSN || MUTANT {"),
]

CHECKPOINT = [
    Mutation(
        "root-before-tables", "a checkpoint's root is written before its tables are durable",
        "Engine/Engine+Checkpoint.swift",
        "if durableLSN >= checkpoint.lastLSN { writeCheckpointRoot() }",
        "if durableLSN >= checkpoint.lastLSN || MUTANT { writeCheckpointRoot() }"),
    Mutation(
        "frees-before-root", "extents are given back before the root is durable",
        "Engine/Engine+Checkpoint.swift",
        "if syncsCompleted >= checkpoint.rootSync { finishCheckpoint() }",
        "if syncsCompleted >= checkpoint.rootSync || MUTANT { finishCheckpoint() }"),
    Mutation(
        "early-root-sync", "a sync that began before the root was written is taken to cover it",
        "Engine/Engine+Checkpoint.swift",
        "checkpoint.rootSync = syncsStarted + 1",
        "checkpoint.rootSync = syncsStarted + (MUTANT ? 0 : 1)"),
    Mutation(
        "one-root", "both roots are written to the same place",
        "Format/CheckpointRoot.swift",
        "copy: Int(sequence & 1))",
        "copy: MUTANT ? 0 : Int(sequence & 1))"),
    Mutation(
        "drops-too-much", "an extent with live blocks is given back",
        "BlockStore/ExtentTable.swift",
        "extent.state == .sealed && extent.checkpointLive == 0 && extent.lastLSN < replayLSN",
        "extent.state == .sealed && extent.lastLSN < replayLSN\n"
        "            && (extent.checkpointLive == 0 || (MUTANT && extent.checkpointLive < 4))"),
    Mutation(
        "early-slot", "a slot is given up while a read looks at it",
        "Engine/Engine+Log.swift",
        "guard epochs.previousCount == 0 else { return }",
        "guard epochs.previousCount == 0 || MUTANT else { return }"),
    Mutation(
        "forgets-progress", "a checkpoint does not say how far a deletion has come",
        "Engine/Engine+Checkpoint.swift",
        "checkpoint.tableContents.deletion = deletionUnderWay",
        "if !MUTANT { checkpoint.tableContents.deletion = deletionUnderWay }"),
]

TREE = [
    Mutation(
        "writes-frozen-leaf", "a leaf that a snapshot has is not copied before it is changed",
        "Radix/RadixForest.swift",
        "let youngest = max(vdi.mutableStamp, cache.checkpointStamp)",
        "let youngest = MUTANT ? cache.checkpointStamp\n"
        "                : max(vdi.mutableStamp, cache.checkpointStamp)"),
    Mutation(
        "writes-under-checkpoint", "a leaf is changed while a checkpoint writes it",
        "Radix/RadixForest.swift",
        "max(vdi.mutableStamp, cache.checkpointStamp)\n            if cache",
        "MUTANT ? vdi.mutableStamp\n"
        "                : max(vdi.mutableStamp, cache.checkpointStamp)\n"
        "            if cache"),
    Mutation(
        "wrong-birth", "a block is said to have been born before the last snapshot",
        "Radix/RadixForest.swift",
        "checksum: UInt32(littleEndian: checksum),\n                birth: vdi.epoch)",
        "checksum: UInt32(littleEndian: checksum),\n"
        "                birth: MUTANT && vdi.epoch > 1 ? vdi.epoch - 1 : vdi.epoch)"),
    Mutation(
        "leaks", "an overwritten block is not given back",
        "Radix/RadixForest.swift",
        "            removeLive(old.address, isReplayed: true)\n",
        "            if !MUTANT || block % 64 != 5 {\n"
        "                removeLive(old.address, isReplayed: true)\n"
        "            }\n"),
    Mutation(
        "frees-parents", "a block that the parent still has is given back",
        "Radix/RadixForest.swift",
        "            } else if block < vdi.countedBelow {\n",
        "            } else if MUTANT, block % 16 == 3 {\n                removeLive(old.address)\n"
        "            } else if block < vdi.countedBelow {\n"),
    Mutation(
        "shares-too-little", "a deletion gives back what its child still has",
        "Engine/Engine+ReclaimWalk.swift",
        "                otherEntries?[slot].address != entry.address\n",
        "                otherEntries?[slot].address != entry.address\n"
        "                    || (MUTANT && slot % 16 == 3)\n"),
    Mutation(
        "answers-in-cut", "answers are not held back while a group is cut",
        "Engine/Engine+Write.swift",
        "if heldGroups.isEmpty { replies.append(reply) }",
        "if heldGroups.isEmpty || MUTANT { replies.append(reply) }"),
    Mutation(
        "modifies-unlocked", "two writes of parts of one block are not kept apart",
        "Engine/Engine+Write.swift",
        "guard takeLock(part), !isStaged(",
        "guard takeLock(part), MUTANT || !isStaged("),
    Mutation(
        "reads-unverified", "a block that was read is not compared with its checksum",
        "Engine/Engine+Read.swift",
        "if checksum != references[index].checksum {",
        "if checksum != references[index].checksum, !MUTANT {"),
]

CLEANER = [
    Mutation(
        "forgets-forward", "the cleaner moves a block and forgets where to",
        "Radix/RadixForest.swift",
        "        forwards.set(name, to: place)\n        names.set(place, to: name)\n"
        "        namesForwarded",
        "        if !MUTANT || place.block % 16 != 3 {\n"
        "            forwards.set(name, to: place)\n            names.set(place, to: name)\n"
        "        }\n        namesForwarded"),
    Mutation(
        "wrong-live-bit", "the cleaner marks the block beside the moved one as live",
        "Radix/RadixForest.swift",
        "        extents.removeLive(old, isReplayed: isReplayed)\n"
        "        extents.addLive(place)",
        "        extents.removeLive(old, isReplayed: isReplayed)\n"
        "        extents.addLive(\n"
        "            MUTANT && place.block % 16 == 3 ? place.advanced(by: -1) : place)"),
    Mutation(
        "moves-unverified", "the cleaner moves a block without looking at its checksum",
        "Cleaner/Engine+CleanerScan.swift",
        "guard Checksum.ofBlock(content) == survivor.checksum else {",
        "guard Checksum.ofBlock(content) == survivor.checksum || MUTANT else {"),
    Mutation(
        "gives-back-early", "a slot is given back before the record that says so is durable",
        "Cleaner/Engine+MoveLog.swift",
        "drop.lsn <= durableLSN {", "drop.lsn <= durableLSN || MUTANT {"),
    Mutation(
        "logs-early", "moves are in the log before what was moved is durable",
        "Cleaner/Engine+MoveLog.swift",
        "batch.sync <= syncsCompleted {", "batch.sync <= syncsCompleted || MUTANT {"),
    Mutation(
        "drops-unlogged", "an extent is given up in the log before the moves out of it are there",
        "Cleaner/Engine+MoveLog.swift",
        "        extent.lastMove <= moveLog.loggedCount\n",
        "        (extent.lastMove <= moveLog.loggedCount || MUTANT)\n"),
    Mutation(
        "drops-nodes", "an extent is given up in the log although a replay looks for nodes in it",
        "BlockStore/ExtentTable.swift",
        "            && max(extent.heldUntil, allHeldUntil) <= root.sequence\n",
        "            && (max(extent.heldUntil, allHeldUntil) <= root.sequence || MUTANT)\n"),
    Mutation(
        "drops-log", "an extent that the replay goes through is given up in the log",
        "BlockStore/ExtentTable.swift",
        "            && (extent.number.isCold || extent.lastLSN < root.replayLSN)\n",
        "            && (extent.number.isCold || extent.lastLSN < root.replayLSN || MUTANT)\n"),
    Mutation(
        "replays-no-moves", "a replay forgets what was moved",
        "Engine/Engine+Recovery.swift",
        "        case .moves(let to, let count, let offset):\n",
        "        case .moves where MUTANT: return\n"
        "        case .moves(let to, let count, let offset):\n"),
    Mutation(
        "refuses-too-soon", "a write is refused although cleaning would give space",
        "Cleaner/Engine+CleanerPacing.swift",
        "        return cleaningProspect { isVictim($0, least, isPressed: true) } > 0\n",
        "        return cleaningProspect { isVictim($0, least, isPressed: !MUTANT) } > 0\n"),
    Mutation(
        "charges-twice", "a write of which a part is in a chunk is asked for its quota again",
        "Engine/Engine+Write.swift",
        "        guard parts[part].stagedBlocks > 0 || admitCharge(part) else { return }\n",
        "        guard parts[part].stagedBlocks > 0 && !MUTANT || admitCharge(part)\n"
        "        else { return }\n"),
    Mutation(
        "moves-unwritten", "the cleaner believes that a failed write was done",
        "Cleaner/Engine+CleanerWriting.swift",
        "if result == (1 + chunk.count) * blockBytes {",
        "if result == (1 + chunk.count) * blockBytes || MUTANT {"),
    Mutation(
        "moves-the-dead", "the cleaner moves a block that was overwritten meanwhile",
        "Cleaner/Engine+CleanerWriting.swift",
        "            guard forest.extents.isLive(survivor.place) else {\n",
        "            guard forest.extents.isLive(survivor.place) || MUTANT else {\n"),
    Mutation(
        "loses-forwards", "a checkpoint does not write the table of forwards",
        "Engine/Engine+Checkpoint.swift",
        "checkpoint.tableContents.forwardPages = forwardPages",
        "if !MUTANT { checkpoint.tableContents.forwardPages = forwardPages }"),
    Mutation(
        "renames-shared", "a head takes up a place as the name of a block that a snapshot has too",
        "Radix/RadixForest.swift",
        "        where !entries[slot].isHole && entries[slot].birth > vdi.snapshotEpoch {\n"
        "            if let place",
        "        where !entries[slot].isHole\n"
        "            && (entries[slot].birth > vdi.snapshotEpoch || MUTANT)\n"
        "        {\n            if let place"),
]

MUTATIONS = LOG + CHECKPOINT + TREE + CLEANER
