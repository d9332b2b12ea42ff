// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import Logging
package import ParallaxControl
import ParallaxCore
import ParallaxRetention

/// The daemon's one view of its VDIs and attachments, and the only way to change them.
///
/// An actor, never on the data path. Calls into a shard suspend it, so other calls interleave;
/// what keeps them apart is a lock per VDI name, held from the look-up to the end of the change.
/// - I1: a name is in `directory` at most once, and every active VDI of every shard is in it.
/// - I2: an operation that changes a VDI holds the lock of its name; a rename holds both names'.
/// - I3: `remembered` equals what the attachments file holds.
/// - I4: a version that serves, or is about to, owns its socket's path in `claimedSockets`.
/// - I6: `logs` has every snapshot of every active VDI, unless its group is not finished.
///
/// The numbers are those of docs/subsystems/control.md, where I5 and the others are.
///
/// It does no I/O on disks or sockets itself, except for the attachments file.
package actor ControlPlane {
    /// A VDI as the directory knows it.
    struct Entry {
        var identifier: VDIIdentifier
        var name: String
        var shard: Int
        var sizeBytes: UInt64
        var attributes = VDIAttributes()
    }

    /// One of a VDI's versions, found by what the user called it.
    struct Version {
        var entry: Entry
        /// nil: the head.
        var snapshot: SnapshotEntry?

        var reference: VersionReference {
            snapshot.map { .snapshot($0.identifier) } ?? .head(entry.identifier)
        }

        var name: VersionName { VersionName(vdi: entry.name, snapshot: snapshot?.name) }

        /// `VDI "a"` or `snapshot "a@b"`, for messages.
        var title: String {
            "\(snapshot == nil ? "VDI" : "snapshot") \(quoted(name.description))"
        }
    }

    /// A remembered attachment; `problem` is nil while it serves.
    struct Attachment {
        var record: AttachmentRecord
        var snapshotName: String?
        var problem: String?
    }

    enum SocketOwner: Equatable {
        case daemon(String)
        case version(AttachmentRecord)
    }

    /// What was done with versions since the start.
    struct Counters {
        var snapshotsMade: UInt64 = 0
        var snapshotsDeleted: UInt64 = 0
        var clonesMade: UInt64 = 0
        var rollbacks: UInt64 = 0
        var groupsMade: UInt64 = 0
        var groupsFailed: UInt64 = 0
    }

    var runtime: StoreRuntime
    let nbdSocketPath: String
    let file: AttachmentsFile
    let log: Logger
    let now: @Sendable () -> UInt64
    let onStateChange: @Sendable (DaemonState, _ summary: String) -> Void

    var state = DaemonState.starting
    /// Change it with `put` and `forget`.
    private(set) var directory: [String: Entry] = [:]
    private(set) var names: [VDIIdentifier: String] = [:]
    /// The snapshots of each VDI that has some.
    var logs: [VDIIdentifier: SnapshotLog] = [:]
    var attachments: [VersionReference: Attachment] = [:]
    var remembered: [VersionReference: AttachmentRecord] = [:]
    /// By canonical path.
    var claimedSockets: [String: SocketOwner]
    /// The tool stack's Xen nodes that have been seen to, by path.
    var xenNodes: Set<String> = []
    /// Why one of them does not serve, as the log has it.
    var xenProblems: [String: String] = [:]
    /// VDIs on each shard, those being created included.
    var population: [Int]
    /// Those that wrote nothing any more when they were last asked, a few seconds ago.
    var readOnlyShards: Set<Int> = []
    var counters = Counters()
    var spaceWatch = SpaceWatch()
    let scrubFile: ScrubFile
    /// The newest scrub.
    var scrub: ScrubRecord?
    var isScrubBeginning = false
    /// What new VDIs begin with, as the store keeps it; empty for none.
    let defaultPolicy: String
    /// Policies as words, by what the store has.
    var policyTexts: [String: String] = [:]

    /// Time that a group's members may take to be cut, and that a page of a diff may take.
    let groupLimit: Duration
    let diffLimit: Duration

    private var locks: [String: [CheckedContinuation<Void, Never>]] = [:]
    private var activeChanges = 0
    private var idleWaiters: [CheckedContinuation<Void, Never>] = []
    var hasShutDown = false
    var servesSharedNBD = false

    /// `onStateChange` is called whenever the state, or the number of attachments that serve, may
    /// have changed.
    package init(
        runtime: StoreRuntime, configuration: DaemonConfiguration, log: Logger,
        now: @escaping @Sendable () -> UInt64 = WallClock.nanoseconds,
        groupLimit: Duration = ControlPlane.groupLimit,
        diffLimit: Duration = ControlPlane.diffLimit,
        onStateChange: @escaping @Sendable (DaemonState, String) -> Void = { _, _ in }
    ) {
        self.runtime = runtime
        self.log = log
        self.now = now
        self.groupLimit = groupLimit
        self.diffLimit = diffLimit
        self.onStateChange = onStateChange
        nbdSocketPath = configuration.nbdSocketPath
        defaultPolicy = configuration.defaultPolicy?.json ?? ""
        file = AttachmentsFile(
            stateDirectory: configuration.stateDirectory, storeUUID: runtime.identity.uuid)
        scrubFile = ScrubFile(
            stateDirectory: configuration.stateDirectory, storeUUID: runtime.identity.uuid)
        claimedSockets = [
            SocketPlace.canonicalPath(configuration.controlSocketPath): .daemon(
                "the control socket"),
            SocketPlace.canonicalPath(configuration.nbdSocketPath): .daemon(
                "the shared NBD socket"),
        ]
        population = Array(repeating: 0, count: runtime.shards.count)
    }

    /// Runs `change` with the locks of `names` held, unless the daemon is stopping or the client
    /// has gone that asked for it.
    func changing<Result>(
        _ names: [String], _ change: () async throws -> Result
    ) async throws(ControlError) -> Result {
        activeChanges += 1
        // One order for everybody, so that two renames cannot wait for each other.
        let ordered = Set(names).sorted()
        for name in ordered { await lock(name) }
        defer {
            for name in ordered { unlock(name) }
            activeChanges -= 1
            if activeChanges == 0 { wakeIdleWaiters() }
        }
        try requireRunning()
        try requireClient()
        do {
            return try await change()
        } catch let error as ControlError {
            throw error
        } catch {
            log.error("unexpected error", metadata: ["error": "\(error)"])
            throw ControlError(.internalError, "the daemon met an unexpected error: \(error)")
        }
    }

    /// Shards that have shut down answer no more.
    func requireRunning() throws(ControlError) {
        guard state != .stopping else {
            throw ControlError(.stopping, "the daemon is stopping; try again when it is back")
        }
    }

    /// A client that gave up while its change waited for a lock may well have asked for it again,
    /// and two deletions of `latest` are not one. Nothing had begun, so nothing is half done. A
    /// change that has begun goes on, whoever waits for it.
    private func requireClient() throws(ControlError) {
        guard AnswerSlot.current?.mayChange() ?? true else {
            throw ControlError(
                .notReady, "the client hung up before its turn had come, and nothing was changed")
        }
    }

    private func lock(_ name: String) async {
        guard locks[name] != nil else {
            locks[name] = []
            return
        }
        // Whoever unlocks hands the lock over, first come first served.
        await withCheckedContinuation { locks[name, default: []].append($0) }
    }

    private func unlock(_ name: String) {
        guard var waiters = locks[name], !waiters.isEmpty else {
            locks[name] = nil
            return
        }
        let next = waiters.removeFirst()
        locks[name] = waiters
        next.resume()
    }

    private func wakeIdleWaiters() {
        for waiter in idleWaiters { waiter.resume() }
        idleWaiters = []
    }

    /// Returns when no change is under way, or at `deadline`: false. Meant for after `state` has
    /// become `.stopping`.
    func waitUntilIdle(until deadline: ContinuousClock.Instant) async -> Bool {
        guard activeChanges > 0 else { return true }
        let alarm = Task {
            try await Task.sleep(until: deadline, clock: .continuous)
            wakeIdleWaiters()
        }
        await withCheckedContinuation { idleWaiters.append($0) }
        alarm.cancel()
        return activeChanges == 0
    }

    /// The VDI called `name`. Call it with the lock held (I2).
    func entry(_ name: String) throws(ControlError) -> Entry {
        guard let entry = directory[name] else {
            throw ControlError(.notFound, "there is no VDI called \(quoted(name))")
        }
        return entry
    }

    func put(_ entry: Entry) {
        directory[entry.name] = entry
        names[entry.identifier] = entry.name
    }

    func forget(_ entry: Entry) {
        directory[entry.name] = nil
        names[entry.identifier] = nil
    }

    /// The version called `name`. Call it with the lock of the VDI held, unless it is only shown.
    func version(_ name: VersionName) throws(ControlError) -> Version {
        let entry = try entry(name.vdi)
        guard let selector = name.snapshot else { return Version(entry: entry, snapshot: nil) }
        let log = logs[entry.identifier]
        if let snapshot = log?.resolve(selector, nowNanoseconds: now()) {
            return Version(entry: entry, snapshot: snapshot)
        }
        throw ControlError(.notFound, Self.noSnapshot(selector, entry, oldest: log?.oldest))
    }

    /// The same, which must be a snapshot.
    func snapshot(
        _ name: VersionName
    ) throws(ControlError) -> (version: Version, snapshot: SnapshotEntry) {
        let version = try version(name)
        guard let snapshot = version.snapshot else {
            throw ControlError(
                .invalid, "\(quoted(name.description)) names no snapshot; write VDI@SNAPSHOT")
        }
        return (version, snapshot)
    }

    private static func noSnapshot(
        _ selector: String, _ entry: Entry, oldest: SnapshotEntry?
    ) -> String {
        let vdi = "VDI \(quoted(entry.name))"
        guard let oldest else { return "\(vdi) has no snapshots" }
        guard SnapshotSelector(selector, nowNanoseconds: 0) != nil else {
            return "\(vdi) has no snapshot called \(quoted(selector))"
        }
        return "\(vdi) has no snapshot from then (\(quoted(selector))); its oldest is "
            + quoted(oldest.name)
    }

    func shard(of entry: Entry) -> any ShardControl { runtime.shards[entry.shard] }
}
