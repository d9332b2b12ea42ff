// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Serves the VDI and remembers that. Replaces a remembered attachment that does not serve.
    package func attach(
        _ name: String, _ request: AttachRequest
    ) async throws(ControlError) -> AttachmentDescription {
        let socketPath = try Self.checkSocket(request)
        let description = try await changing([name]) {
            let entry = try entry(name)
            if let existing = attachments[entry.identifier], existing.problem == nil {
                throw attached(entry, existing, "is already attached")
            }
            let record = AttachmentRecord(
                identifier: entry.identifier, kind: request.kind, socketPath: socketPath,
                isReadOnly: request.readOnly ?? false)
            try await serve(record, entry: entry)
            do {
                try remember(record, for: entry.identifier)
            } catch {
                // The caller is told that it failed, so it must not serve either.
                try? await shard(of: entry).detach(identifier: entry.identifier)
                unclaim(entry.identifier)
                throw error
            }
            let attachment = Attachment(record: record, problem: nil)
            attachments[entry.identifier] = attachment
            let description = describe(attachment, vdi: name)
            log.info("attached", metadata: ["vdi": "\(name)", "at": "\(description.location)"])
            return description
        }
        updateStateUnlessStarting()
        return description
    }

    package func detach(_ name: String) async throws(ControlError) {
        try await changing([name]) {
            let entry = try entry(name)
            guard let attachment = attachments[entry.identifier] else {
                throw ControlError(.notAttached, "VDI \(quoted(name)) is not attached")
            }
            // Forgotten first: a crash in between leaves the VDI detached, as was asked.
            try remember(nil, for: entry.identifier)
            do {
                if attachment.problem == nil {
                    try await shard(of: entry).detach(identifier: entry.identifier)
                }
            } catch {
                try? remember(attachment.record, for: entry.identifier)
                throw error
            }
            attachments[entry.identifier] = nil
            unclaim(entry.identifier)
            log.info("detached", metadata: ["vdi": "\(name)"])
        }
        updateStateUnlessStarting()
    }

    /// Changes the attachments file, and `remembered` with it (I3).
    func remember(
        _ record: AttachmentRecord?, for identifier: VDIIdentifier
    ) throws(ControlError) {
        var next = remembered
        next[identifier] = record
        try file.save(Array(next.values))
        remembered = next
    }

    /// While attachments are being restored only the end of that decides on the state.
    func updateStateUnlessStarting() {
        if state != .starting { updateState() }
    }

    /// The socket of a request, absolute and short enough; nil for the shared NBD socket.
    private static func checkSocket(_ request: AttachRequest) throws(ControlError) -> String? {
        if request.kind == .xen { return try checkXenAddress(request.socket) }
        guard let socket = request.socket else {
            guard request.kind == .nbd else {
                throw ControlError(.invalid, "a vhost-user attachment needs the path of a socket")
            }
            return nil
        }
        guard socket.hasPrefix("/") else {
            throw ControlError(
                .invalid, "the socket path \(quoted(socket)) must be absolute, beginning with /")
        }
        return try UnixAddress(path: socket).path
    }

    /// Makes the shard serve the record, once its socket's path is known to be free.
    func serve(_ record: AttachmentRecord, entry: Entry) async throws {
        try claim(record)
        do {
            let shard = shard(of: entry)
            switch record.kind {
            case .vhostUser:
                try await shard.attachVhost(
                    identifier: record.identifier, socketPath: record.socketPath ?? "",
                    readOnly: record.isReadOnly)
            case .nbd:
                try await shard.attachNBD(
                    identifier: record.identifier, socketPath: record.socketPath,
                    readOnly: record.isReadOnly)
            case .xen: try await serveXen(record, on: shard)
            }
        } catch {
            unclaim(record.identifier)
            throw error
        }
    }

    /// Our own sockets are told from the table and not by trying them: to a vhost-user listener of
    /// ours a trial connection would look like its one client.
    private func claim(_ record: AttachmentRecord) throws(ControlError) {
        guard let path = record.socketPath else { return }
        guard record.kind != .xen else { return try claimXen(path, for: record.identifier) }
        let canonical = SocketPlace.canonicalPath(path)
        if let owner = claimedSockets[canonical] {
            throw ControlError(
                .socketUnusable,
                "the socket \(path) is in use by \(name(of: owner)); use another path")
        }
        _ = try SocketPlace.inspect(UnixAddress(path: path), purpose: "the socket")
        claimedSockets[canonical] = .vdi(record.identifier)
    }

    func unclaim(_ identifier: VDIIdentifier) {
        claimedSockets = claimedSockets.filter { $0.value != .vdi(identifier) }
    }

    func name(of owner: SocketOwner) -> String {
        switch owner {
        case .daemon(let what): what
        case .vdi(let identifier):
            directory.values.first { $0.identifier == identifier }.map { "VDI \(quoted($0.name))" }
                ?? "another VDI"
        }
    }

    func describe(_ attachment: Attachment, vdi name: String) -> AttachmentDescription {
        let record = attachment.record
        let socket = record.socketPath ?? nbdSocketPath
        return AttachmentDescription(
            vdi: name, kind: record.kind, socket: socket,
            uri: record.kind == .nbd ? nbdURI(export: name, socketPath: socket) : nil,
            readOnly: record.isReadOnly, serving: attachment.problem == nil,
            problem: attachment.problem)
    }

    func attached(_ entry: Entry, _ attachment: Attachment, _ what: String) -> ControlError {
        let location = describe(attachment, vdi: entry.name).location
        return ControlError(
            .attached, "VDI \(quoted(entry.name)) \(what) (at \(location)); detach it first")
    }
}
