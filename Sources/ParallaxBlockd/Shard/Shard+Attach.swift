// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore
import ParallaxNBD
import ParallaxVhost

extension Shard where ShardReactor: ~Copyable {
    /// What an attach has in its hands until it succeeds.
    struct Opened {
        var session: UInt32
        var handle: UInt32
        var attachment: Attachment
    }

    mutating func attachVhost(
        _ version: VersionReference, path: String, readOnly: Bool
    ) throws(ControlError) {
        guard let (name, sizeBytes) = nameAndSize(version) else { throw Self.gone(version) }
        let opened = try open(version, .vhost, readOnly: readOnly)
        let export = VhostExport(
            name: name, sectors: sizeBytes / UInt64(sectorBytes), readOnly: readOnly,
            socketPath: path,
            identity: VhostDiskIdentity(
                store: engine.superblock.uuid, version: version.rawValue))
        do throws(VhostError) {
            sessions.insert(
                opened.session,
                try VhostDevice(session: opened.session, vdi: opened.handle, export: export),
                version: version.rawValue)
        } catch {
            cancel(opened)
            throw ControlError(.socketUnusable, "\(error)")
        }
        sessions.vhost(opened.session).pointee.start(registrar: &reactor)
        attachments[version] = opened.attachment
    }

    mutating func attachNBD(
        _ version: VersionReference, path: String?, readOnly: Bool
    ) throws(ControlError) {
        let opened = try open(version, path == nil ? .sharedNBD : .nbd, readOnly: readOnly)
        guard let path else {
            sessions.cancel(opened.session)
            attachments[version] = opened.attachment
            noteChanged(version)
            return
        }
        do throws(NBDError) {
            sessions.insert(
                opened.session, try NBDListener(session: opened.session, path: path),
                version: version.rawValue)
        } catch {
            cancel(opened)
            throw ControlError(.socketUnusable, "\(error)")
        }
        sessions.nbdListener(opened.session).pointee.start(registrar: &reactor)
        attachments[version] = opened.attachment
        noteChanged(version)
    }

    mutating func open(
        _ version: VersionReference, _ kind: Attachment.Kind, readOnly: Bool
    ) throws(ControlError) -> Opened {
        guard attachments[version] == nil else {
            throw ControlError(.attached, "It is attached already; detach it first.")
        }
        guard !isStopping else { throw ControlError(.stopping, "The daemon is stopping.") }
        guard let session = sessions.reserve() else {
            throw ControlError(
                .internalError, "Shard \(index) serves too many clients; detach a VDI first.")
        }
        switch version {
        case .head(let vdi):
            if let handle = engine.handle(of: vdi) {
                let attachment = Attachment(kind: kind, isReadOnly: readOnly, vdi: vdi)
                return Opened(session: session, handle: handle, attachment: attachment)
            }
        case .snapshot(let snapshot):
            if let vdi = engine.summary(of: snapshot)?.vdi,
                let handle = engine.openSnapshot(snapshot)
            {
                let attachment = Attachment(
                    kind: kind, isReadOnly: true, vdi: vdi, snapshotHandle: handle)
                return Opened(session: session, handle: handle, attachment: attachment)
            }
        }
        sessions.cancel(session)
        throw Self.gone(version)
    }

    mutating func cancel(_ opened: Opened) {
        sessions.cancel(opened.session)
        if let handle = opened.attachment.snapshotHandle { engine.closeSnapshot(handle) }
    }

    static func gone(_ version: VersionReference) -> ControlError {
        switch version {
        case .head: ControlError(.notFound, "There is no such VDI.")
        case .snapshot: ControlError(.notFound, "There is no such snapshot.")
        }
    }

    /// Opens the shared NBD socket; those who connect wait for `serveShared`.
    mutating func listen(path: String) throws(ControlError) {
        guard let session = sessions.reserve() else {
            throw ControlError(.internalError, "Shard \(index) serves too many clients.")
        }
        do throws(NBDError) {
            sessions.insert(session, try NBDListener(session: session, path: path), version: 0)
        } catch {
            sessions.cancel(session)
            throw ControlError(.socketUnusable, "\(error)")
        }
        sharedListener = session
    }

    /// Clients of the shared socket are heard from now on: before, one whose export is about to come back
    /// would be told that there is none.
    mutating func serveShared() {
        guard let sharedListener else { return }
        sessions.nbdListener(sharedListener).pointee.start(registrar: &reactor)
    }

    mutating func detach(_ version: VersionReference, _ reply: ShardReply<Void>) {
        guard let attachment = attachments[version] else {
            reply.resume(throwing: ControlError(.notAttached, "It is not attached."))
            return
        }
        if attachment.kind == .sharedNBD { directory.remove(version) }
        attachments[version]?.detaching = (attachment.detaching ?? []) + [reply]
        for session in sessions.sessions(of: version.rawValue) { stop(session) }
        finishDetach(version)
    }

    /// Ends a session, now or when its last reply has come.
    mutating func stop(_ session: UInt32) {
        switch sessions.kind(session) {
        case .free: return
        case .vhost: sessions.vhost(session).pointee.stop(registrar: &reactor)
        case .nbdConnection:
            sessions.nbdConnection(session).pointee.stop(
                isLeaving: isStopping, registrar: &reactor)
        case .xen: stopXen(session)
        case .nbdListener:
            sessions.nbdListener(session).pointee.stop(registrar: &reactor)
            sessions.remove(session)
            return
        }
        sessions.touch(session)
    }

    /// Answers a detach when the version's last session is over: no request refers to it then.
    mutating func finishDetach(_ version: VersionReference) {
        guard let attachment = attachments[version], let replies = attachment.detaching,
            sessions.sessions(of: version.rawValue).isEmpty
        else { return }
        attachments[version] = nil
        if let handle = attachment.snapshotHandle { engine.closeSnapshot(handle) }
        for reply in replies { reply.resume() }
    }
}
