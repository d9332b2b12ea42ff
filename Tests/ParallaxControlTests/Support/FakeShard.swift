// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxBlockd
import ParallaxControl
import ParallaxCore

/// A shard in memory. It gives other tasks a chance in the middle of each operation, notices when
/// two operations on one VDI overlap, and fails when told to.
actor FakeShard: ShardControl {
    nonisolated let index: Int
    private var disks: [VDIIdentifier: VDIState] = [:]
    private var busy: Set<VDIIdentifier> = []
    private var nextNumber: UInt64 = 1
    private var failures: [String: ControlError] = [:]
    /// Where each attached VDI is served; "shared" for the shared NBD socket.
    private(set) var served: [VDIIdentifier: String] = [:]
    /// Attached to domains that have gone.
    private(set) var gone: [VDIIdentifier] = []

    func lose(_ identifiers: [VDIIdentifier]) { gone = identifiers }

    private(set) var overlaps = 0
    private(set) var isShutDown = false

    init(index: Int) { self.index = index }

    /// The next `operation` fails once with `error`.
    func failNext(_ operation: String, with error: ControlError) { failures[operation] = error }

    /// What a restarted daemon finds: the same VDIs, none of them served.
    func restart() {
        served = [:]
        isShutDown = false
    }

    func add(_ state: VDIState) { disks[state.identifier] = state }

    func vdis() async throws -> [VDIState] {
        try takeFailure("vdis")
        return disks.values.sorted { $0.identifier.rawValue < $1.identifier.rawValue }
    }

    func create(name: String, sizeBytes: UInt64) async throws -> VDIState {
        await pause()
        try takeFailure("create")
        let identifier = VDIIdentifier(UInt64(index) << 48 | nextNumber)
        nextNumber += 1
        let state = VDIState(
            identifier: identifier, name: name, sizeBytes: sizeBytes,
            createdAtSeconds: 1_700_000_000, allocatedBytes: 0)
        disks[identifier] = state
        return state
    }

    func resize(identifier: VDIIdentifier, sizeBytes: UInt64) async throws {
        try await changing(identifier, "resize") { $0.sizeBytes = sizeBytes }
    }

    func rename(identifier: VDIIdentifier, name: String) async throws {
        try await changing(identifier, "rename") { $0.name = name }
    }

    func delete(identifier: VDIIdentifier) async throws {
        try await changing(identifier, "delete") { _ in }
        guard served[identifier] == nil else {
            throw ControlError(.internalError, "deleted while served")
        }
        disks[identifier] = nil
    }

    func attachVhost(identifier: VDIIdentifier, socketPath: String, readOnly: Bool) async throws {
        try await changing(identifier, "attach") { _ in }
        guard served[identifier] == nil else {
            throw ControlError(.internalError, "attached twice")
        }
        served[identifier] = socketPath
    }

    func attachNBD(identifier: VDIIdentifier, socketPath: String?, readOnly: Bool) async throws {
        try await attachVhost(
            identifier: identifier, socketPath: socketPath ?? "shared", readOnly: readOnly)
    }

    func detach(identifier: VDIIdentifier) async throws {
        try await changing(identifier, "detach") { _ in }
        guard served.removeValue(forKey: identifier) != nil else {
            throw ControlError(.internalError, "detached what was not attached")
        }
    }

    func status() async throws -> ShardStatus {
        try takeFailure("status")
        var status = ShardStatus(index: index)
        status.engine = "fake"
        status.reads = 7
        status.lsn = 42
        status.extentsUsed = 3
        status.extentsFree = 5
        return status
    }

    func shutdown() async {
        await pause()
        served = [:]
        isShutDown = true
    }

    private func changing(
        _ identifier: VDIIdentifier, _ operation: String, _ change: (inout VDIState) -> Void
    ) async throws {
        guard busy.insert(identifier).inserted else {
            overlaps += 1
            throw ControlError(.internalError, "two operations on one VDI overlap")
        }
        await pause()
        busy.remove(identifier)
        try takeFailure(operation)
        guard var state = disks[identifier] else {
            throw ControlError(.internalError, "no such VDI on the shard")
        }
        change(&state)
        disks[identifier] = state
    }

    private func pause() async { for _ in 0..<5 { await Task.yield() } }

    private func takeFailure(_ operation: String) throws {
        if let error = failures.removeValue(forKey: operation) { throw error }
    }
}
