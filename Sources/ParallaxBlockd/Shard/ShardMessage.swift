// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxNBD

typealias ShardMailbox = Mailbox<ShardMessage>

/// The way back from the shard thread to a waiting task of the control plane.
typealias ShardReply<Value: Sendable> = CheckedContinuation<Value, any Error>

typealias VDIDescriptions = DescriptionList<VDIIdentifier, VDISummary>
typealias SnapshotDescriptions = DescriptionList<SnapshotIdentifier, SnapshotSummary>

/// What the control plane, and other shards, ask of a shard.
enum ShardMessage: Sendable {
    case listVDIs(ShardReply<[VDIState]>)
    /// Goes on with the list as far as one turn allows.
    case describeVDIs(VDIDescriptions, ShardReply<VDIDescriptions>)
    /// With a cut the changes are this shard's members of a group snapshot.
    case change([CatalogChange], GroupCut?, ShardReply<[CatalogResult]>)
    /// Every member of the group is cut, or the group is given up.
    case releaseGroup(UInt64)
    case listSnapshots(from: Int, limit: Int, ShardReply<SnapshotPage>)
    case describeSnapshots(SnapshotDescriptions, ShardReply<SnapshotDescriptions>)
    case compare(DiffQuery, ShardReply<DiffAnswer>)
    case attachVhost(VersionReference, path: String, readOnly: Bool, ShardReply<Void>)
    case attachNBD(VersionReference, path: String?, readOnly: Bool, ShardReply<Void>)
    case attachXen(XenAttach, ShardReply<Void>)
    case endedXen(ShardReply<[VersionReference]>)
    case detach(VersionReference, ShardReply<Void>)
    case status(ShardReply<ShardStatus>)
    case shutdown(ShardReply<Void>)
    /// For the shard that has the shared NBD socket.
    case listen(path: String, ShardReply<Void>)
    case serveShared
    case setExports(NBDExportTable)
    case handover(NBDHandover, VersionReference)
    /// The answer to a request for an extent; nil: the store is full.
    case extent(ExtentSlot?)
    /// Another shard finds the store full.
    case spaceIsShort
    /// The superblock on the medium has more slots now.
    case grow(Superblock, ShardReply<Void>)
    /// The allocator has slots again.
    case freeSpace
    /// Clean until so many slots of the store are free, or nothing is left that is worth it.
    case clean(untilFreeSlots: Int, ShardReply<Void>)
    /// Another program writes to the store: this shard writes no more, for this reason.
    case fence(String)
    /// nil: stop.
    case scrub(ShardScrub?, ShardReply<Void>)
}

/// A shard's part of a scrub.
struct ShardScrub: Sendable {
    var bytesPerSecond: UInt64
    /// Where it was interrupted.
    var from: ScrubStatus?
}

extension Mailbox {
    /// Sends a message that must arrive. The mailbox holds far more than shards have to tell each
    /// other, and questions of the control plane leave nearly all of it free
    /// (`ShardHandle.questionLimit`).
    func post(_ message: Message) {
        let isTaken = send(message)
        precondition(isTaken, "Mailbox: full, so its shard has stopped")
    }
}

/// One shard as the control plane sees it.
struct ShardHandle: ShardControl {
    let index: Int
    let mailbox: ShardMailbox

    /// LIMIT: messages that may wait for a shard which is to be asked one more. No request asks two
    /// things of one shard at a time, so a shard that takes its messages hardly ever has so many:
    /// this one hangs in a system call, and who asked it again and again would fill the mailbox.
    static let questionLimit = 2 * HTTPServer.connectionLimit

    private func ask<Value: Sendable>(
        _ message: @escaping (ShardReply<Value>) -> ShardMessage
    ) async throws -> Value {
        try await withCheckedThrowingContinuation { reply in
            guard !mailbox.send(message(reply), ifFewerWaitThan: Self.questionLimit) else { return }
            reply.resume(
                throwing: ControlError(
                    .notReady,
                    "shard \(index) does not answer and too many requests wait for it already; "
                        + "see whether the store's device hangs, and try again when it does not"))
        }
    }

    func vdis() async throws -> [VDIState] { try await ask { .listVDIs($0) } }

    func vdis(_ identifiers: [VDIIdentifier]) async throws -> [VDIState] {
        var list = VDIDescriptions(identifiers)
        while !list.isComplete { list = try await ask { [list] in .describeVDIs(list, $0) } }
        return list.summaries.map(VDIState.init)
    }

    func change(_ changes: [CatalogChange]) async throws -> [CatalogResult] {
        try await ask { .change(changes, nil, $0) }
    }

    func snapshot(_ members: [CatalogChange], in cut: GroupCut) async throws -> [CatalogResult] {
        try await ask { .change(members, cut, $0) }
    }

    func releaseGroup(_ group: UInt64) { mailbox.post(.releaseGroup(group)) }

    func snapshots(from cursor: Int, limit: Int) async throws -> SnapshotPage {
        try await ask { .listSnapshots(from: cursor, limit: limit, $0) }
    }

    func snapshots(_ identifiers: [SnapshotIdentifier]) async throws -> [SnapshotSummary] {
        var list = SnapshotDescriptions(identifiers)
        while !list.isComplete { list = try await ask { [list] in .describeSnapshots(list, $0) } }
        return list.summaries
    }

    func compare(_ query: DiffQuery) async throws -> DiffAnswer {
        try await ask { .compare(query, $0) }
    }

    func attachVhost(
        version: VersionReference, socketPath: String, readOnly: Bool
    ) async throws {
        try await ask { .attachVhost(version, path: socketPath, readOnly: readOnly, $0) }
    }

    func attachNBD(
        version: VersionReference, socketPath: String?, readOnly: Bool
    ) async throws {
        try await ask { .attachNBD(version, path: socketPath, readOnly: readOnly, $0) }
    }

    func attachXen(
        version: VersionReference, place: String, readOnly: Bool, isNew: Bool
    ) async throws {
        let attach = XenAttach(version: version, place: place, readOnly: readOnly, isNew: isNew)
        try await ask { .attachXen(attach, $0) }
    }

    func endedXen() async throws -> [VersionReference] { try await ask { .endedXen($0) } }

    func detach(version: VersionReference) async throws {
        try await ask { .detach(version, $0) }
    }

    func status() async throws -> ShardStatus { try await ask { .status($0) } }

    func grow(to superblock: Superblock) async throws { try await ask { .grow(superblock, $0) } }

    func noteFreeSpace() { mailbox.post(.freeSpace) }

    func clean(untilFreeSlots goal: Int) async throws {
        try await ask { .clean(untilFreeSlots: goal, $0) }
    }

    func scrub(_ scrub: ShardScrub?) async throws { try await ask { .scrub(scrub, $0) } }

    func shutdown() async {
        // Never refused, since the store is closed when this returns: a shard that hangs has to
        // come to its end before that. It always answers; it has nothing to throw.
        try? await withCheckedThrowingContinuation { mailbox.post(.shutdown($0)) }
    }

    /// Opens the daemon's shared NBD socket on this shard.
    func listen(nbdSocketPath: String) async throws {
        try await ask { .listen(path: nbdSocketPath, $0) }
    }
}

extension VDIState {
    init(_ summary: VDISummary) {
        self.init(
            identifier: summary.identifier,
            name: summary.name, sizeBytes: summary.sizeBytes,
            createdAtSeconds: Int64(summary.createdAtNanoseconds / 1_000_000_000),
            allocatedBytes: summary.allocatedBytes, chargedBytes: summary.chargedBytes,
            exclusiveBytes: summary.exclusiveBytes,
            phase: summary.isDeleting ? .deleting : .active,
            attributes: summary.attributes, parent: summary.parent)
    }
}
