// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Serves the version and remembers that. Replaces a remembered attachment that does not
    /// serve, but not one of the tool stack's: its guest may be running on the disk.
    package func attach(
        _ name: VersionName, _ request: AttachRequest
    ) async throws(ControlError) -> AttachmentDescription {
        let socketPath = try Self.checkSocket(request)
        if request.kind == .xen { await restoreXen(except: try? version(name).reference) }
        let description = try await changing([name.vdi]) {
            let version = try version(name)
            if let existing = attachments[version.reference],
                existing.problem == nil || existing.record.isXenNode
            {
                throw attached(version, existing, "is already attached")
            }
            let record = AttachmentRecord(
                identifier: version.entry.identifier, snapshot: version.snapshot?.identifier,
                kind: request.kind, socketPath: socketPath,
                isReadOnly: try Self.isReadOnly(request, version))
            try await serve(record, entry: version.entry)
            do {
                try remember(record, for: version.reference)
            } catch {
                // The caller is told that it failed, so it must not serve either.
                try? await shard(of: version.entry).detach(version: version.reference)
                unclaim(version.reference)
                throw error
            }
            let attachment = Attachment(record: record, snapshotName: version.snapshot?.name)
            attachments[version.reference] = attachment
            let description = describe(attachment, vdi: version.entry.name)
            log.info(
                "attached",
                metadata: ["vdi": "\(version.name)", "at": "\(description.location)"])
            return description
        }
        updateStateUnlessStarting()
        return description
    }

    static func isReadOnly(
        _ request: AttachRequest, _ version: Version
    ) throws(ControlError) -> Bool {
        if version.snapshot != nil {
            guard request.readOnly ?? true else {
                throw ControlError(
                    .invalid,
                    "\(version.title) can only be attached read-only; clone it to write")
            }
            return true
        }
        let isReadOnly = request.readOnly ?? false
        guard isReadOnly || !version.entry.attributes.isTemplate else {
            throw ControlError(
                .template,
                "\(version.title) is a template and takes no writes; attach it with --read-only, "
                    + "or clone a snapshot of it")
        }
        return isReadOnly
    }

    /// With `record`: only if that is still what is attached there.
    package func detach(
        _ name: VersionName, only record: AttachmentRecord? = nil
    ) async throws(ControlError) {
        try await changing([name.vdi]) {
            let version = try version(name)
            if let record, attachments[version.reference]?.record != record { return }
            guard let attachment = attachments[version.reference] else {
                throw ControlError(.notAttached, "\(version.title) is not attached")
            }
            // Forgotten first: a crash in between leaves it detached, as was asked.
            try remember(nil, for: version.reference)
            do {
                if attachment.problem == nil {
                    try await shard(of: version.entry).detach(version: version.reference)
                }
            } catch {
                try? remember(attachment.record, for: version.reference)
                throw error
            }
            attachments[version.reference] = nil
            unclaim(version.reference)
            log.info("detached", metadata: ["vdi": "\(version.name)"])
        }
        updateStateUnlessStarting()
    }

    /// Changes the attachments file, and `remembered` with it (I3).
    func remember(
        _ record: AttachmentRecord?, for version: VersionReference
    ) throws(ControlError) {
        var next = remembered
        next[version] = record
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
                    version: record.version, socketPath: record.socketPath ?? "",
                    readOnly: record.isReadOnly)
            case .nbd:
                try await shard.attachNBD(
                    version: record.version, socketPath: record.socketPath,
                    readOnly: record.isReadOnly)
            case .xen: try await serveXen(record, on: shard)
            }
        } catch {
            unclaim(record.version)
            throw error
        }
    }

    /// Our own sockets are told from the table and not by trying them: to a vhost-user listener of
    /// ours a trial connection would look like its one client.
    private func claim(_ record: AttachmentRecord) throws(ControlError) {
        guard let path = record.socketPath else { return }
        guard record.kind != .xen else { return try claimXen(path, for: record) }
        let canonical = SocketPlace.canonicalPath(path)
        if let owner = claimedSockets[canonical] {
            throw ControlError(
                .socketUnusable,
                "the socket \(path) is in use by \(name(of: owner)); use another path")
        }
        try requireForgotten(canonical, for: record)
        _ = try SocketPlace.inspect(UnixAddress(path: path), purpose: "the socket")
        claimedSockets[canonical] = .version(record)
    }

    /// A place is kept for the version that is remembered there, also while that does not serve:
    /// after a restart its client would meet whichever came first. What is remembered itself has
    /// been admitted already.
    private func requireForgotten(
        _ canonical: String, for record: AttachmentRecord
    ) throws(ControlError) {
        guard remembered[record.version] != record else { return }
        for other in remembered.values where other.version != record.version && other.kind != .xen {
            guard let path = other.socketPath, SocketPlace.canonicalPath(path) == canonical else {
                continue
            }
            throw ControlError(
                .socketUnusable,
                "the socket \(path) is kept for \(name(of: .version(other))), which does not "
                    + "serve at the moment; detach that first, or use another path")
        }
    }

    func unclaim(_ version: VersionReference) {
        claimedSockets = claimedSockets.filter { _, owner in
            guard case .version(let record) = owner else { return true }
            return record.version != version
        }
    }

    func name(of owner: SocketOwner) -> String {
        switch owner {
        case .daemon(let what): return what
        case .version(let record):
            guard let vdi = names[record.identifier] else { return "another VDI" }
            let snapshot = attachments[record.version]?.snapshotName
            return "VDI \(quoted(VersionName(vdi: vdi, snapshot: snapshot).description))"
        }
    }

    func describe(_ attachment: Attachment, vdi name: String) -> AttachmentDescription {
        let record = attachment.record
        let socket = record.socketPath ?? nbdSocketPath
        let export = VersionName(vdi: name, snapshot: attachment.snapshotName).description
        return AttachmentDescription(
            vdi: name, snapshot: attachment.snapshotName, kind: record.kind, socket: socket,
            uri: record.kind == .nbd ? nbdURI(export: export, socketPath: socket) : nil,
            readOnly: record.isReadOnly, serving: attachment.problem == nil,
            problem: attachment.problem)
    }

    func attached(_ version: Version, _ attachment: Attachment, _ what: String) -> ControlError {
        let location = describe(attachment, vdi: version.entry.name).location
        return ControlError(
            .attached, "\(version.title) \(what) (at \(location)); detach it first")
    }

    func attached(_ entry: Entry, _ attachment: Attachment, _ what: String) -> ControlError {
        attached(Version(entry: entry, snapshot: nil), attachment, what)
    }
}
