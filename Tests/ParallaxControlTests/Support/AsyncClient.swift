// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl

/// The blocking client, called from threads of its own: the server under test needs the threads of
/// Swift concurrency, and with two cores there are two.
struct AsyncClient: Sendable {
    let blocking: ControlClient

    func status() async throws -> DaemonStatus { try await offPool { try blocking.status() } }

    func ready() async throws { try await offPool { try blocking.ready() } }

    func vdis() async throws -> [VDIDescription] { try await offPool { try blocking.vdis() } }

    func vdi(_ name: String) async throws -> VDIDescription {
        try await offPool { try blocking.vdi(name) }
    }

    @discardableResult
    func create(name: String, sizeBytes: UInt64) async throws -> VDIDescription {
        try await offPool { try blocking.create(name: name, sizeBytes: sizeBytes) }
    }

    @discardableResult
    func change(_ name: String, _ change: ChangeVDIRequest) async throws -> VDIDescription {
        try await offPool { try blocking.change(name, change) }
    }

    func delete(_ name: String) async throws { try await offPool { try blocking.delete(name) } }

    @discardableResult
    func attach(_ name: String, _ request: AttachRequest) async throws -> AttachmentDescription {
        try await offPool { try blocking.attach(name, request) }
    }

    func detach(_ name: String) async throws { try await offPool { try blocking.detach(name) } }

    /// Any other call.
    @discardableResult
    func call<Value: Sendable>(
        _ body: @escaping @Sendable (ControlClient) throws -> Value
    ) async throws -> Value {
        try await offPool { try body(blocking) }
    }

    func exchange(_ method: String, _ target: String, _ body: [UInt8]) async throws -> HTTPMessage {
        try await offPool { try blocking.exchange(method, target, body) }
    }
}

/// Runs `body` on a new thread.
func offPool<Result: Sendable>(
    _ body: @escaping @Sendable () throws -> Result
) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        startDetachedThread {
            do {
                continuation.resume(returning: try body())
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }
}
