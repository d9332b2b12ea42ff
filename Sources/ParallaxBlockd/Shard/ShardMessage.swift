// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxNBD

typealias ShardMailbox = Mailbox<ShardMessage>

/// The way back from the shard thread to a waiting task of the control plane.
typealias ShardReply<Value: Sendable> = CheckedContinuation<Value, any Error>

/// What the control plane, and other shards, ask of a shard.
enum ShardMessage: Sendable {
    case listVDIs(ShardReply<[VDIState]>)
    case change(CatalogChange, ShardReply<UInt64>)
    case describe(vdi: UInt64, ShardReply<VDIState>)
    case attachVhost(vdi: UInt64, path: String, readOnly: Bool, ShardReply<Void>)
    case attachNBD(vdi: UInt64, path: String?, readOnly: Bool, ShardReply<Void>)
    case attachXen(XenAttach, ShardReply<Void>)
    case endedXen(ShardReply<[UInt64]>)
    case detach(vdi: UInt64, ShardReply<Void>)
    case status(ShardReply<ShardStatus>)
    case shutdown(ShardReply<Void>)
    /// For the shard that has the shared NBD socket.
    case listen(path: String, ShardReply<Void>)
    case setExports(NBDExportTable)
    case handover(NBDHandover, vdi: UInt64)
    /// The answer to a request for an extent; nil: the store is full.
    case extent(ExtentSlot?)
    /// Another shard finds the store full.
    case spaceIsShort
}

extension Mailbox {
    /// Sends a message that must arrive. The mailbox holds far more than the control plane can
    /// have under way.
    func post(_ message: Message) {
        let isTaken = send(message)
        precondition(isTaken, "Mailbox: full, so its shard has stopped")
    }
}

/// One shard as the control plane sees it.
struct ShardHandle: ShardControl {
    let index: Int
    let mailbox: ShardMailbox
    let now: @Sendable () -> UInt64

    private func ask<Value: Sendable>(
        _ message: @escaping (ShardReply<Value>) -> ShardMessage
    ) async throws -> Value {
        try await withCheckedThrowingContinuation { mailbox.post(message($0)) }
    }

    func vdis() async throws -> [VDIState] { try await ask { .listVDIs($0) } }

    func create(name: String, sizeBytes: UInt64) async throws -> VDIState {
        let change = CatalogChange.create(
            name: name, sizeBytes: sizeBytes, createdAtNanoseconds: now())
        let identifier = try await ask { .change(change, $0) }
        return try await ask { .describe(vdi: identifier, $0) }
    }

    func resize(identifier: VDIIdentifier, sizeBytes: UInt64) async throws {
        _ = try await ask { .change(.resize(identifier, sizeBytes: sizeBytes), $0) }
    }

    func rename(identifier: VDIIdentifier, name: String) async throws {
        _ = try await ask { .change(.rename(identifier, name: name), $0) }
    }

    func delete(identifier: VDIIdentifier) async throws {
        _ = try await ask { .change(.delete(identifier), $0) }
    }

    func attachVhost(
        identifier: VDIIdentifier, socketPath: String, readOnly: Bool
    ) async throws {
        try await ask {
            .attachVhost(
                vdi: identifier.rawValue, path: socketPath, readOnly: readOnly, $0)
        }
    }

    func attachNBD(
        identifier: VDIIdentifier, socketPath: String?, readOnly: Bool
    ) async throws {
        try await ask {
            .attachNBD(vdi: identifier.rawValue, path: socketPath, readOnly: readOnly, $0)
        }
    }

    func attachXen(
        identifier: VDIIdentifier, place: String, readOnly: Bool, isNew: Bool
    ) async throws {
        let attach = XenAttach(
            vdi: identifier.rawValue, place: place, readOnly: readOnly, isNew: isNew)
        try await ask { .attachXen(attach, $0) }
    }

    func endedXen() async throws -> [VDIIdentifier] {
        try await ask { .endedXen($0) }.map { VDIIdentifier($0) }
    }

    func detach(identifier: VDIIdentifier) async throws {
        try await ask { .detach(vdi: identifier.rawValue, $0) }
    }

    func status() async throws -> ShardStatus { try await ask { .status($0) } }

    func shutdown() async {
        // The shard always answers; it has nothing to throw.
        try? await ask { .shutdown($0) }
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
            allocatedBytes: summary.allocatedBytes,
            phase: summary.isDeleting ? .deleting : .active)
    }
}
