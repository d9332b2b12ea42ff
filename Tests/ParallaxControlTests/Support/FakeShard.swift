// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Synchronization

/// A shard in memory. It gives other tasks a chance in the middle of each operation, notices when
/// two operations on one VDI overlap, and fails when told to.
actor FakeShard: ShardControl {
    nonisolated let index: Int
    private(set) var versions: FakeVersions
    private var busy: Set<UInt64> = []
    private var failures: [String: ControlError] = [:]
    /// Where each attached version is served; "shared" for the shared NBD socket.
    private(set) var served: [VersionReference: String] = [:]
    /// Attached to domains that have gone.
    private(set) var gone: [VersionReference] = []

    func lose(_ versions: [VersionReference]) { gone = versions }

    /// What happens while the next `operation` is under way.
    private var hook: (operation: String, body: @Sendable () async -> Void)?

    func during(_ operation: String, _ body: @escaping @Sendable () async -> Void) {
        hook = (operation, body)
    }

    func runHook(_ operation: String) async {
        guard let (wanted, body) = hook, wanted == operation else { return }
        hook = nil
        await body()
    }

    private(set) var overlaps = 0
    private(set) var isShutDown = false
    /// How often it was asked for all of its VDIs, and for how much at most otherwise.
    private(set) var fullLists = 0
    private(set) var largestBatch = 0
    /// The groups that it was told to release.
    nonisolated let releases = Mutex<[UInt64]>([])
    var rangesPerAnswer = 3
    private var space = SpaceDescription()
    private var scrub = ScrubDescription()

    func set(_ scrub: ScrubDescription) { self.scrub = scrub }

    func set(_ space: SpaceDescription) { self.space = space }

    private var readOnlyReason: String?

    /// Nothing is written any more, as after a failed flush.
    func becomeReadOnly(_ reason: String) { readOnlyReason = reason }

    init(index: Int) {
        self.index = index
        versions = FakeVersions(stream: index)
    }

    /// The next `operation` fails once with `error`.
    func failNext(_ operation: String, with error: ControlError) { failures[operation] = error }

    /// What a restarted daemon finds: the same VDIs, none of them served.
    func restart() {
        served = [:]
        versions.open = []
        isShutDown = false
    }

    func add(_ disk: FakeVersions.Disk) { _ = versions.add(disk) }

    func write(_ vdi: String, _ blocks: [UInt64: UInt64?]) {
        for (identifier, disk) in versions.disks where disk.name == vdi {
            for (block, value) in blocks { versions.disks[identifier]?.blocks[block] = value }
        }
    }

    func vdis() async throws -> [VDIState] {
        try takeFailure("vdis")
        await runHook("vdis")
        fullLists += 1
        return versions.disks.keys.sorted { $0.rawValue < $1.rawValue }
            .compactMap(versions.state)
    }

    func vdis(_ identifiers: [VDIIdentifier]) async throws -> [VDIState] {
        try takeFailure("vdis")
        largestBatch = max(largestBatch, identifiers.count)
        return identifiers.compactMap(versions.state)
    }

    func change(_ changes: [CatalogChange]) async throws -> [CatalogResult] {
        largestBatch = max(largestBatch, changes.count)
        return await apply(changes)
    }

    func snapshot(_ members: [CatalogChange], in cut: GroupCut) async throws -> [CatalogResult] {
        let results = await apply(members)
        for result in results {
            if case .failure = result { cut.giveUp() } else { cut.arrive(1) }
        }
        return results
    }

    nonisolated func releaseGroup(_ group: UInt64) { releases.withLock { $0.append(group) } }

    private func apply(_ changes: [CatalogChange]) async -> [CatalogResult] {
        var results: [CatalogResult] = []
        for change in changes {
            let key = change.vdi?.rawValue
            if let key, !busy.insert(key).inserted {
                overlaps += 1
                results.append(
                    .failure(ControlError(.internalError, "two operations on one VDI overlap")))
                continue
            }
            await pause()
            await runHook(change.operation)
            if let key { busy.remove(key) }
            results.append(result(change))
        }
        return results
    }

    private func result(_ change: CatalogChange) -> CatalogResult {
        if let error = failures.removeValue(forKey: change.operation) { return .failure(error) }
        if case .delete(let vdi) = change, served[.head(vdi)] != nil {
            return .failure(ControlError(.internalError, "deleted while served"))
        }
        do throws(CatalogError) {
            return .success(try versions.apply(change))
        } catch {
            return .failure(ControlError(.internalError, "the model refused: \(error)"))
        }
    }

    func snapshots(from cursor: Int, limit: Int) async throws -> SnapshotPage {
        versions.page(from: cursor, limit: limit)
    }

    func snapshots(_ identifiers: [SnapshotIdentifier]) async throws -> [SnapshotSummary] {
        largestBatch = max(largestBatch, identifiers.count)
        return identifiers.compactMap(versions.summary)
    }

    func compare(_ query: DiffQuery) async throws -> DiffAnswer {
        do throws(DiffError) {
            return try versions.compare(query, limit: rangesPerAnswer)
        } catch {
            throw ControlError(.notFound, "one of the two versions has been deleted meanwhile")
        }
    }

    func attachVhost(version: VersionReference, socketPath: String, readOnly: Bool) async throws {
        try await using(version, "attach")
        guard served[version] == nil else {
            throw ControlError(.internalError, "attached twice")
        }
        served[version] = socketPath
        if case .snapshot(let snapshot) = version { versions.open.insert(snapshot) }
    }

    func attachNBD(version: VersionReference, socketPath: String?, readOnly: Bool) async throws {
        try await attachVhost(
            version: version, socketPath: socketPath ?? "shared", readOnly: readOnly)
    }

    func detach(version: VersionReference) async throws {
        try await using(version, "detach")
        guard served.removeValue(forKey: version) != nil else {
            throw ControlError(.internalError, "detached what was not attached")
        }
        if case .snapshot(let snapshot) = version { versions.open.remove(snapshot) }
    }

    func status() async throws -> ShardStatus {
        try takeFailure("status")
        var status = ShardStatus(index: index)
        status.engine = "fake"
        status.reads = 7
        status.lsn = 42
        status.extentsUsed = 3
        status.extentsFree = 5
        status.space = space
        status.scrub = scrub
        status.readOnlyReason = readOnlyReason
        return status
    }

    func shutdown() async {
        await pause()
        served = [:]
        isShutDown = true
    }

    private func using(_ version: VersionReference, _ operation: String) async throws {
        guard busy.insert(version.rawValue).inserted else {
            overlaps += 1
            throw ControlError(.internalError, "two operations on one version overlap")
        }
        await pause()
        await runHook(operation)
        busy.remove(version.rawValue)
        try takeFailure(operation)
        guard versions.blocks(version) != nil else {
            throw ControlError(.internalError, "no such version on the shard")
        }
    }

    private func pause() async { for _ in 0..<5 { await Task.yield() } }

    private func takeFailure(_ operation: String) throws {
        if let error = failures.removeValue(forKey: operation) { throw error }
    }
}
