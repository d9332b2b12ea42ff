// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The storage engine of one stream: block requests in, device commands and replies out.
///
/// No system calls, no clock, no threads: the shard (or the simulator) hands it requests,
/// completions and the time, and carries out its commands. The story of a request:
///
/// ```
///   submit ----> parts (Engine+Admission)
///     read:   walk the tree, read, verify               (Engine+Read)
///     write:  walk the tree, copy into a chunk          (Engine+Write)
///     turn:   seal the chunk, write it                  (Engine+Log)
///     complete: chunks in order -> apply to the trees   (Engine+Apply)
///     flush:  one sync for all that wait                (Engine+Flush)
///   reply
/// ```
/// Owned by one thread.
/// E1 a write is answered only when its chunk and all chunks before it are on the device and
///    applied (promises 1 and 3).
/// E2 a flush is answered only when a sync that began after everything answered before it has
///    succeeded (promise 2). A sync that failed is never tried again: the engine stops writing.
/// E3 a block is handed to a guest only if its checksum is right (promise 5).
/// E4 nothing goes into a chunk of a request whose memory has gone (`MemoryLoss`), not even what was
///    copied before: a write that fails leaves each block as it was or as the guest wanted it.
package struct Engine: ~Copyable {
    let configuration: EngineConfiguration
    package internal(set) var superblock: Superblock
    var forest: RadixForest
    var log: LogWriter
    var catalog: Catalog
    let cleanerBox: Box<Cleaner>
    var moveLog = MoveLog()
    var renaming = RenamingSweep()
    let scrubberBox = Box(Scrubber())

    var requests: SlotTable<PendingRequest>
    var parts: SlotTable<RequestPart>
    /// For each part, the references of its blocks (reads only).
    let partReferences: UnsafeMutablePointer<BlockReference>
    /// For each part, the buffers of its device reads.
    let partBuffers: UnsafeMutablePointer<DataSegment>
    /// For each node frame, the buffer of its load.
    let nodeBuffers: UnsafeMutablePointer<DataSegment>
    let bounceMemory: UnsafeMutableRawPointer
    var bounces: SlotTable<UInt8>

    /// Requests that wait for parts, oldest first.
    var unissued: FixedRing<UInt32>
    /// Parts to be taken up again.
    var ready = PartList()
    /// Parts that wait for a node frame, for a bounce buffer or for room among the commands.
    var starved = PartList()
    /// Parts that wait for a place in a chunk.
    var staging = PartList()
    /// Parts that wait for a block that another part is modifying, or for the log to be applied.
    var locked = PartList()
    var lockCount = 0
    var nextLockTicket: UInt32 = 1
    /// The parts that are behind a lock.
    var partsBehindLocks: FixedRing<UInt32>
    /// The parts that hold a lock.
    var lockedParts: FixedRing<UInt32>
    /// Requests that wait for a sync.
    var flushing: FixedRing<UInt32>

    var commands: FixedRing<StoreCommand>
    var replies: FixedRing<BlockReply>
    /// Replies that wait until every cut of a group is made, and the groups that they wait for.
    var heldReplies: FixedRing<BlockReply>
    var heldGroups: [UInt64] = []
    var releasedGroups: [UInt64] = []
    /// Groups whose cuts have been made here, one entry for each member.
    var cuts: [UInt64] = []
    var epochs = ReadEpochs()

    var appliedLSN: LogSequenceNumber
    var durableLSN: LogSequenceNumber
    /// A repair writes into memory first, and from there in any order: its chunks do not vouch for each
    /// other.
    var mostClaimed = LogSequenceNumber(.max)
    /// What the sync under way will make durable; nil when none is.
    var syncingLSN: LogSequenceNumber?
    /// Operations in chunks that are not applied.
    var stagedOperations = 0
    /// The node for which the application of the log waits, or -1.
    var applierFrame = -1
    /// The application of the log waits for a node or for frames.
    var applierWaits = false
    /// Parts that may begin to load the nodes of their path, besides those that do already.
    var loadPermits: Int
    /// Requests to the allocator that are not answered, and whether it had none at last.
    package var extentsRequested = 0
    var isStoreFull = false
    /// The allocator's last answer was that it has none.
    var wasRefusedExtent = false
    /// Until then nothing is leased that is not needed.
    var yieldUntil: UInt64 = 0
    var nextExtentRetry: UInt64 = 0
    /// Data found no space in this turn: to look again takes a walk through all extents.
    var hasRefusedData = false
    /// The most that cleaning could have gained when somebody was told that there is no space.
    package var prospectRefused = Int.min
    /// The first of the refusals that followed each other, and when the others last gave hope.
    var refusedSince: UInt64 = 0
    var peersGainedAt: UInt64 = 0

    /// Frames that the replay of the log behind the next checkpoint may count on; at most three quarters of
    /// them are ever dirty.
    var frameLimit: Int

    let checkpointBox: Box<Checkpoint>
    var now: UInt64 = 0
    /// When a turn last found requests of guests.
    private var guestsSeen: UInt64 = 0
    var bytesSinceCheckpoint = 0
    /// Slots on their way back to the allocator: dropped; waiting for reads to end; free.
    var releasing: [ExtentSlot] = []
    var released: [ExtentSlot] = []
    var grace: [ExtentSlot] = []
    /// Changes since the last freeze: operations applied, nodes given back.
    var changesSinceFreeze = 0
    var diffs = DiffQueue()
    var isReplaying = false
    /// Only while a store is checked: what its reading has found.
    var inspection: Inspection?
    /// Deletions and comparisons rest, so that a last checkpoint can be made.
    private(set) var isWindingDown = false
    var syncsStarted: UInt64 = 0
    var syncsCompleted: UInt64 = 0

    let countersBox = Box(EngineStatistics())
    /// Set once a log write or a sync has failed: nothing is written any more, reads go on.
    package internal(set) var failure: StoreError?

    static let partReferenceCount = Limits.partBlocks
    static let partBufferCount = Limits.partBlocks + Limits.directSegments
    static let bounceBlocks = 16
    static let bounceCount = 64
    static let commandCapacity = 4096
    static let commandHeadroom = 64

    init(
        configuration: EngineConfiguration, superblock: Superblock, root: CheckpointRoot,
        frameCount: Int
    ) {
        self.configuration = configuration
        self.superblock = superblock
        forest = RadixForest(
            frameCount: frameCount, slotCount: Int(superblock.slotCount),
            extentBlocks: superblock.extentBlocks)
        log = LogWriter(
            chunkCount: configuration.maxChunksInFlight + 2,
            extentBlocks: superblock.extentBlocks, nextLSN: root.replayLSN,
            extent: root.replayExtent, head: root.replayBlock, nextExtent: root.nextExtent)
        catalog = Catalog(
            stream: configuration.stream, nextNumber: root.nextVDI,
            nextSnapshot: root.nextSnapshot)
        cleanerBox = Box(Cleaner(batchBlocks: configuration.cleanerBatchBlocks))
        requests = SlotTable(
            capacity: Limits.requestsInFlight + Catalog.internalRequests,
            repeating: PendingRequest(
                request: BlockRequest(operation: .flush, vdi: 0, session: 0, tag: 0),
                isInUse: false))
        parts = SlotTable(capacity: Limits.partsInFlight, repeating: RequestPart())
        partReferences = .allocate(capacity: Limits.partsInFlight * Self.partReferenceCount)
        partBuffers = .allocate(capacity: Limits.partsInFlight * Self.partBufferCount)
        nodeBuffers = .allocate(capacity: frameCount)
        bounceMemory = Memory.allocatePages(
            byteCount: Self.bounceCount * Self.bounceBlocks * blockBytes)
        bounces = SlotTable(capacity: Self.bounceCount, repeating: 0)
        unissued = FixedRing(minimumCapacity: requests.capacity)
        flushing = FixedRing(minimumCapacity: requests.capacity)
        lockedParts = FixedRing(minimumCapacity: Limits.partsInFlight)
        partsBehindLocks = FixedRing(minimumCapacity: Limits.partsInFlight)
        commands = FixedRing(minimumCapacity: Self.commandCapacity)
        replies = FixedRing(minimumCapacity: 2 * requests.capacity)
        heldReplies = FixedRing(minimumCapacity: 2 * requests.capacity)
        frameLimit = frameCount
        // A quarter of the frames is never dirty; a path, and as much for what others pin.
        loadPermits = max(1, frameCount / 4 / (2 * Limits.radixLevels))
        let before = LogSequenceNumber(root.replayLSN.rawValue - 1)
        appliedLSN = before
        durableLSN = before
        checkpointBox = Box(Checkpoint(root: root))
        forest.extents.nextCheckpoint = root.sequence + 1
    }

    deinit {
        partReferences.deallocate()
        partBuffers.deallocate()
        nodeBuffers.deallocate()
        bounceMemory.deallocate()
    }
}

/// What a command's tag says: which of the engine's activities it belongs to, and its index.
struct CommandTag {
    enum Activity: UInt8 { case part, node, chunk, sync, checkpointRoot, clean, scrub }

    var activity: Activity
    var index: Int

    var rawValue: UInt64 { UInt64(activity.rawValue) << 32 | UInt64(index) }

    init(_ activity: Activity, _ index: Int) {
        self.activity = activity
        self.index = index
    }

    init?(rawValue: UInt64) {
        guard let activity = Activity(rawValue: UInt8(truncatingIfNeeded: rawValue >> 32)) else {
            return nil
        }
        self.activity = activity
        index = Int(UInt32(truncatingIfNeeded: rawValue))
    }
}

extension Engine {
    /// Requests that may be submitted now. A fifth of the slots is never more than one turn away.
    package var freeRequestSlots: Int {
        // What is in flight will be answered, and held as well while a group is cut.
        let replyRoom = replies.freeCapacity - heldReplies.count - requests.usedCount - 64
        return max(0, min(requests.freeCount - Catalog.internalRequests, replyRoom))
    }

    /// The next command for the device; the engine keeps those that the device has no room for.
    package mutating func nextCommand() -> StoreCommand? { commands.popFirst() }

    package mutating func nextReply() -> BlockReply? { replies.popFirst() }

    /// What the device says to one command.
    package mutating func complete(_ completion: StoreCompletion) {
        guard let tag = CommandTag(rawValue: completion.tag) else { return }
        if completion.isDeviceError { counters.deviceErrors += 1 }
        switch tag.activity {
        case .part: completePartRead(tag.index, result: completion.result)
        case .node: completeNodeLoad(tag.index, result: completion.result)
        case .chunk: completeChunk(tag.index, result: completion.result)
        case .sync: completeSync(result: completion.result)
        case .checkpointRoot: completeCheckpointRoot(result: completion.result)
        case .clean: completeClean(tag.index, result: completion.result)
        case .scrub: completeScrub(result: completion.result)
        }
        runReadyParts()
    }

    /// To be called after a sleep, before anything is submitted, which must not be judged by what was
    /// true when that began.
    package mutating func wake(nowNanoseconds: UInt64, freeSlots: Int) {
        noteTime(nowNanoseconds)
        noteFreeSlots(freeSlots)
    }

    private mutating func noteTime(_ time: UInt64) {
        now = time
        hasRefusedData = false
        // That the store was full a while ago says nothing.
        if isStoreFull && now >= nextExtentRetry { isStoreFull = false }
    }

    /// To be called once at the end of each turn of the shard's loop: seals what the turn has
    /// gathered, and moves checkpoints, deletions and waiting requests on.
    package mutating func turn(nowNanoseconds: UInt64) {
        noteTime(nowNanoseconds)
        if requests.usedCount > 0 { guestsSeen = now }
        applyChunks()
        retryStarvedParts()
        runReadyParts()
        issueParts()
        runReadyParts()
        advanceCatalog()
        advanceReclaim()
        advanceDiffs()
        advanceCleaner()
        advanceRenaming()
        advanceScrub()
        stopAtContradiction()
        advanceCheckpoint()
        advanceMoveLog()
        stageWaitingParts()
        sealIfWorthwhile()
        advanceFlushes()
        advanceReleases()
    }

    /// Whether nothing is in flight and everything that was written is in a durable checkpoint, as
    /// far as there is space for one; after a failure, whether every request has been answered.
    package var isIdle: Bool {
        guard requests.usedCount == 0, commands.isEmpty else { return false }
        if failure != nil { return true }
        return log.isQuiet && checkpoint.phase == .idle && !catalog.hasChanges
            && !scrubber.isBusy && (isWindingDown || !scrubber.status.isRunning)
            && (isWindingDown || !(catalog.reclaim.hasWork || diffs.hasWork))
            && (isWindingDown ? !cleaner.isBusy : cleaner.isQuiet && cleaner.pacing.goal == nil)
            && releasing.isEmpty && grace.isEmpty && moveLog.drops.isEmpty
            && (changesSinceFreeze == 0 || isShortOfSpace)
    }

    /// Whether guests have asked for something in the last while. That nothing is under way at this moment
    /// says little: a guest may be about to take up its answers.
    var isServing: Bool { now < guestsSeen + Self.servingNanoseconds }

    private static let servingNanoseconds: UInt64 = 20_000_000

    /// Before the end: what goes on in the background stops where it is, and is taken up again after
    /// the next start.
    package mutating func windDown() { isWindingDown = true }

    /// Whether a turn would do more work at once, without waiting for anything.
    package var wantsTurn: Bool {
        if !ready.isEmpty || (!unissued.isEmpty && parts.freeCount > 0) { return true }
        return !isWindingDown && (catalog.reclaim.hasMore || diffs.hasMore)
    }

    /// Counters since the engine was opened, and its present state.
    package var statistics: EngineStatistics {
        var statistics = counters
        statistics.nodeLoads = forest.cache.loads
        statistics.nodeEvictions = forest.cache.evictions
        statistics.lsn = appliedLSN.rawValue
        statistics.durableLSN = durableLSN.rawValue
        statistics.checkpointLSN = checkpoint.root.replayLSN.rawValue - 1
        statistics.extents = forest.extents.count
        statistics.leasedExtents = log.leases.count
        statistics.nodeFrames = forest.cache.frameCount
        statistics.nodeFramesUsed = forest.cache.frameCount - forest.cache.freeCount
        statistics.dirtyNodes = forest.cache.dirtyCount
        statistics.requestsInFlight = requests.usedCount
        statistics.forwardedBlocks = forest.forwards.count
        statistics.isCleanerBroken = cleaner.isBroken
        statistics.isCleaning = !cleaner.isQuiet
        statistics.isCleaningUrgent = cleaner.pacing.isUrgent
        statistics.liveBlocks = UInt64(forest.extents.liveTotal)
        addSpace(to: &statistics)
        return statistics
    }

    /// Blocks of this engine that failed their checksum since it was opened.
    package var checksumFailures: UInt64 { counters.checksumFailures }

    /// The trees and the books disagree on what lives or to whom it is charged: a fault of this program,
    /// or a store that somebody has tampered with. No checkpoint is written with what follows from it.
    package var isContradicted: Bool {
        forest.isContradicted || forest.extents.isContradicted || catalog.isContradicted
    }

    /// A repair has made the books say what the trees do.
    mutating func forgetContradictions() {
        forest.isContradicted = false
        forest.extents.isContradicted = false
        catalog.isContradicted = false
    }

    private mutating func stopAtContradiction() {
        guard isContradicted else { return }
        fail(
            StoreError(
                .damaged,
                "What lives in the store is not what its books say; the disks of this shard are "
                    + "read-only: stop the daemon and run `parallax-ctl store check`."))
    }

    /// Stops writing for good; reads go on.
    mutating func fail(_ error: StoreError) {
        guard failure == nil else { return }
        failure = error
        cleaner.pacing.goal = nil
        scrubber.status.isRunning = false
        failWaitingWrites()
    }
}
