// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import Logging
import ParallaxControl
import ParallaxCore
import ParallaxIO
import Synchronization

/// Opens the store, recovers it and starts its shards.
func openStore(
    _ configuration: DaemonConfiguration, log: Logger
) async throws(ControlError) -> StoreRuntime {
    let file = try openFile(configuration.storePath)
    let opened = try openSuperblock(file)
    for notice in opened.notices { log.warning("\(notice)") }
    let choice = try chooseEngine(configuration)
    if let notice = choice.notice { log.notice("\(notice)") }

    let pool = ExtentPreparer(
        store: file, extentBytes: Int(opened.superblock.extentBytes),
        readyCountMax: 2 * Int(opened.superblock.streamCount),
        allocator: SlotAllocator(slotCount: Int(opened.superblock.slotCount)),
        restNanoseconds: opened.superblock.isPreallocated
            ? nil : configuration.punchAfterSeconds.map { $0 * 1_000_000_000 },
        reportUnwritable: { log.error("\($0)") })
    let directory = NBDDirectory()
    let peers = ShardPeers()
    var starts: [ShardStart] = []
    for index in 0..<Int(opened.superblock.streamCount) {
        starts.append(
            try startShard(
                index, configuration, file: file, opened: opened, choice: choice, pool: pool,
                directory: directory, peers: peers, log: log))
    }
    let watch = OwnershipWatch(path: file.path, medium: file, superblock: opened.superblock) {
        [mailboxes = starts.map(\.handle.mailbox)] loss in
        // First the shards: each says why in the log and in its status.
        for mailbox in mailboxes { mailbox.post(.fence(loss.description)) }
        pool.halt()
    }
    try await release(starts, pool: pool, watch: watch)
    directory.connect(starts.map(\.handle.mailbox))
    peers.connect(starts.map(\.handle.mailbox))
    do throws(ControlError) {
        try await listen(starts, configuration)
    } catch {
        watch.stop()
        pool.stop()
        throw error
    }
    let grower = StoreGrower(
        file: file, superblock: opened.superblock, pool: pool, watch: watch,
        shards: starts.map(\.handle))
    return StoreRuntime(
        identity: grower.identity, shards: starts.map(\.handle),
        grow: { try await grower.grow(to: $0) },
        clean: { try await grower.clean(untilFreePercent: $0) },
        scrub: { try await grower.scrub($0) },
        hostSpace: { grower.hostSpace },
        serveSharedNBD: { [first = starts.first?.handle] in first?.mailbox.post(.serveShared) },
        close: { [threads = starts.map(\.thread)] in
            for thread in threads { thread.join() }
            watch.stop()
            pool.stop()
            // The lock goes with the last reference to the file.
            withExtendedLifetime(file) {}
        })
}

/// A shard whose thread recovers, and then waits at the gate.
private struct ShardStart: Sendable {
    let handle: ShardHandle
    let thread: ShardThread
    let gate: StartGate
}

private func openFile(_ path: String) throws(ControlError) -> StoreFile {
    do throws(StoreFileError) {
        return try StoreFile.open(path: path)
    } catch {
        throw ControlError(.ioError, error.description)
    }
}

private func openSuperblock(_ file: StoreFile) throws(ControlError) -> OpenedStore {
    do throws(StoreError) {
        return try Store.open(medium: file)
    } catch {
        throw ControlError(.ioError, "cannot open store \(file.path): \(error.message)")
    }
}

private func chooseEngine(
    _ configuration: DaemonConfiguration
) throws(ControlError) -> IOEngineChoice {
    let preferred: IOEngineKind =
        switch configuration.engine {
        case .libaio: .libaio
        case .ioUring, nil: .ioUring
        }
    do throws(ReactorError) {
        return try IOEngineChoice.make(preferred: preferred)
    } catch {
        throw ControlError(.ioError, error.description)
    }
}

private func startShard(
    _ index: Int, _ configuration: DaemonConfiguration, file: StoreFile, opened: OpenedStore,
    choice: IOEngineChoice, pool: ExtentPreparer, directory: NBDDirectory,
    peers: ShardPeers, log: Logger
) throws(ControlError) -> ShardStart {
    do {
        let mailbox = try ShardMailbox()
        let gate = try StartGate()
        let descriptor = ShardDescriptor(
            index: index, engineKind: choice.kind, mailbox: mailbox, pool: pool,
            directory: directory, peers: peers, log: log)
        var engine = EngineConfiguration()
        engine.stream = index
        engine.nodeCacheBytes =
            Int(configuration.cacheBytes) / Int(opened.superblock.streamCount)
        engine.bufferAlignment = file.transferAlignment
        let thread = try ShardThread(name: "parallax-\(index)") { [engine] in
            runShard(descriptor, engine: engine, file: file, opened: opened, gate: gate)
        }
        return ShardStart(
            handle: ShardHandle(index: index, mailbox: mailbox),
            thread: thread, gate: gate)
    } catch {
        throw ControlError(.internalError, "cannot start shard \(index): \(error)")
    }
}

/// The body of a shard's thread.
private func runShard(
    _ descriptor: ShardDescriptor, engine configuration: EngineConfiguration, file: StoreFile,
    opened: OpenedStore, gate: StartGate
) {
    do {
        var engine = try Engine.open(store: opened, configuration: configuration, medium: file)
        let replayed = engine.statistics.replayedChunks
        if replayed > 0 {
            descriptor.log.info("shard \(descriptor.index): replayed \(replayed) chunks of log")
        }
        let recovered = RecoveredShard(slots: engine.ownedSlots(), lacksSpare: engine.lacksSpare)
        if recovered.lacksSpare { engine.noteExtentRequested() }
        switch descriptor.engineKind {
        case .ioUring:
            let reactor = try UringReactor(
                fileDescriptor: file.fileDescriptor, commandCapacity: ShardLimits.commands,
                watchCapacity: ShardLimits.watches, syncs: file.syncs)
            guard gate.arrive(.success(recovered)) else { return }
            var shard = Shard(descriptor, engine: engine, reactor: reactor)
            shard.run()
        case .libaio:
            let reactor = try AioReactor(
                fileDescriptor: file.fileDescriptor, commandCapacity: ShardLimits.commands,
                watchCapacity: ShardLimits.watches, syncs: file.syncs)
            guard gate.arrive(.success(recovered)) else { return }
            var shard = Shard(descriptor, engine: engine, reactor: reactor)
            shard.run()
        }
    } catch {
        _ = gate.arrive(
            .failure(ControlError(.ioError, "cannot open store \(file.path): \(error)")))
    }
}

enum ShardLimits {
    /// Device commands of one shard in flight.
    static let commands = 1024
    /// File descriptors that one shard watches.
    static let watches = 4096
}

/// What a shard has found.
struct RecoveredShard: Sendable {
    var slots: [ExtentSlot]
    /// It has asked for a slot that comes before all others (`Engine.lacksSpare`).
    var lacksSpare: Bool
}

/// Waits until every shard has recovered, so that the free slots are known; gives each what its cleaner
/// lacks; then lets all go, or none.
private func release(
    _ starts: [ShardStart], pool: ExtentPreparer, watch: OwnershipWatch
) async throws(ControlError) {
    var failure: ControlError?
    var lacking: [ShardMailbox] = []
    for start in starts {
        switch await start.gate.arrival() {
        case .success(let shard):
            if !pool.withAllocator({ free in shard.slots.allSatisfy { free.markUsed($0) } }) {
                failure = ControlError(
                    .ioError, "The store is damaged: two shards own the same extent.")
            }
            if shard.lacksSpare { lacking.append(start.handle.mailbox) }
        case .failure(let error): failure = failure ?? error
        }
    }
    if failure == nil {
        for mailbox in lacking { pool.requestSlot { mailbox.post(.extent($0)) } }
        do throws(ShardThreadError) {
            try watch.start()
            try pool.start()
        } catch {
            failure = ControlError(.internalError, error.description)
        }
    }
    for start in starts { start.gate.open(failure == nil) }
    guard let failure else { return }
    watch.stop()
    for start in starts { start.thread.join() }
    throw failure
}

private func listen(
    _ starts: [ShardStart], _ configuration: DaemonConfiguration
) async throws(ControlError) {
    do {
        try await starts.first?.handle.listen(nbdSocketPath: configuration.nbdSocketPath)
    } catch {
        for start in starts { await start.handle.shutdown() }
        for start in starts { start.thread.join() }
        throw error as? ControlError ?? ControlError(.internalError, "\(error)")
    }
}

/// Where a shard's thread reports what it has recovered, and waits until all have.
final class StartGate: Sendable {
    typealias Arrival = Result<RecoveredShard, ControlError>

    private struct State {
        var arrival: Arrival?
        var waiter: CheckedContinuation<Arrival, Never>?
        var mayGo = false
    }

    private let state = Mutex(State())
    private let opened: Int32

    init() throws(ControlError) {
        opened = parallax_eventfd_create(0, 0)
        guard opened >= 0 else {
            throw ControlError(.internalError, "too many files are open (raise RLIMIT_NOFILE)")
        }
    }

    deinit { close(opened) }

    /// On the shard's thread: reports, and waits. False: do not run.
    func arrive(_ arrival: Arrival) -> Bool {
        let waiter = state.withLock { state in
            state.arrival = arrival
            return state.waiter
        }
        waiter?.resume(returning: arrival)
        guard case .success = arrival else { return false }
        var ignored: UInt64 = 0
        _ = parallax_eventfd_read(opened, &ignored)
        return state.withLock { $0.mayGo }
    }

    func arrival() async -> Arrival {
        await withCheckedContinuation { continuation in
            let arrival = state.withLock { state -> Arrival? in
                if state.arrival == nil { state.waiter = continuation }
                return state.arrival
            }
            if let arrival { continuation.resume(returning: arrival) }
        }
    }

    func open(_ mayGo: Bool) {
        state.withLock { $0.mayGo = mayGo }
        _ = parallax_eventfd_write(opened, 1)
    }
}
