// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxNBD
import ParallaxVhost
import ParallaxXen

/// How a version of one of this shard's VDIs is served.
struct Attachment {
    enum Kind: Equatable {
        case vhost
        /// A socket of its own.
        case nbd
        /// The daemon's shared NBD socket.
        case sharedNBD
        /// A disk of a Xen domain.
        case xen
    }

    var kind: Kind
    var isReadOnly: Bool
    var vdi: VDIIdentifier
    /// The handle of an open snapshot, closed with the attachment; nil: the VDI's head.
    var snapshotHandle: UInt32?
    /// When the log was last told that there are too many NBD clients; 0: never.
    var crowdedNanoseconds: UInt64 = 0
    /// Set while it is being detached.
    var detaching: [ShardReply<Void>]?
}

extension Shard where ShardReactor: ~Copyable {
    mutating func finishBatch(vhost session: UInt32) {
        let device = sessions.vhost(session)
        device.pointee.finishBatch(registrar: &reactor, requests: &requests)
        passOnNotices(of: device, session)
        if device.pointee.isDrained { end(session) }
    }

    mutating func finishBatch(nbd session: UInt32) {
        let connection = sessions.nbdConnection(session)
        connection.pointee.finishBatch(registrar: &reactor, requests: &requests)
        if heldVersions.contains(sessions.version(session)) {
            startClients(of: sessions.version(session))
        }
        if connection.pointee.isFinished { end(session) }
    }

    /// Those who have waited until what a client before them has left is carried out.
    private mutating func startClients(of version: UInt64) {
        let clients = sessions.sessions(of: version).filter {
            sessions.kind($0) == .nbdConnection
        }
        guard !clients.contains(where: { sessions.nbdConnection($0).pointee.holdsUpSuccessors })
        else {
            heldVersions.insert(version)
            return
        }
        heldVersions.remove(version)
        for session in clients where sessions.nbdConnection(session).pointee.isWaiting {
            sessions.nbdConnection(session).pointee.start(registrar: &reactor)
            sessions.touch(session)
        }
    }

    private mutating func noteSuccessor(of version: UInt64) {
        for session in sessions.sessions(of: version)
        where sessions.kind(session) == .nbdConnection
            && sessions.nbdConnection(session).pointee.noteSuccessor()
        {
            stop(session)
        }
    }

    /// The session is over and nothing refers to it.
    mutating func end(_ session: UInt32) {
        let version = VersionReference(rawValue: sessions.version(session))
        sessions.remove(session)
        finishDetach(version)
    }

    mutating func handleListener(_ token: EventToken, _ interest: EventInterest) {
        let listener = sessions.nbdListener(token.session)
        listener.pointee.handleEvent(
            source: token.source, interest: interest, registrar: &reactor)
        while let handover = listener.pointee.takeHandover() {
            let version = sessions.version(token.session)
            if version == 0 {
                directory.pass(handover)
            } else {
                welcome(handover, to: VersionReference(rawValue: version))
            }
        }
    }

    /// A client has chosen an export of this shard.
    mutating func welcome(_ handover: NBDHandover, to version: VersionReference) {
        guard !isStopping, let attachment = attachments[version], attachment.detaching == nil,
            attachment.kind != .vhost, attachment.kind != .xen,
            let export = export(version, attachment),
            let handle = attachment.snapshotHandle ?? engine.handle(of: attachment.vdi)
        else { return handover.refuse() }
        noteSuccessor(of: version.rawValue)
        guard sessions.clientCount(of: version.rawValue) < NBDLimits.connectionsPerExport,
            let session = sessions.reserve()
        else {
            noteCrowd(version, export.name)
            return handover.refuse()
        }
        do throws(NBDError) {
            sessions.insert(
                session,
                try NBDConnection(
                    session: session, vdi: handle, handover: handover, export: export),
                version: version.rawValue)
        } catch {
            sessions.cancel(session)
            log.warning("VDI \(export.name): an NBD client was refused: \(error)")
            return
        }
        startClients(of: version.rawValue)
    }

    /// Once a minute: a client that is refused may try again at once, for ever.
    private mutating func noteCrowd(_ version: VersionReference, _ name: String) {
        let now = monotonicNanoseconds()
        let last = attachments[version]?.crowdedNanoseconds ?? 0
        guard last == 0 || now - last > 60_000_000_000 else { return }
        attachments[version]?.crowdedNanoseconds = now
        log.warning(
            "VDI \(name): an NBD client was turned away; at most \(NBDLimits.connectionsPerExport) connections are served at a time"
        )
    }

    func export(_ version: VersionReference, _ attachment: Attachment) -> NBDExport? {
        guard let (name, sizeBytes) = nameAndSize(version) else { return nil }
        return NBDExport(
            name: name, byteCount: sizeBytes, isReadOnly: attachment.isReadOnly,
            description: attachment.snapshotHandle == nil ? "Parallax VDI" : "Parallax snapshot",
            identity: version.rawValue)
    }

    /// `VDI` or `VDI@SNAPSHOT`, and how large it is.
    func nameAndSize(_ version: VersionReference) -> (name: String, sizeBytes: UInt64)? {
        switch version {
        case .head(let identifier):
            return engine.summary(of: identifier).map { ($0.name, $0.sizeBytes) }
        case .snapshot(let identifier):
            guard let snapshot = engine.summary(of: identifier),
                let vdi = engine.summary(of: snapshot.vdi)
            else { return nil }
            return ("\(vdi.name)@\(snapshot.details.name)", snapshot.sizeBytes)
        }
    }

    /// Tells whoever serves the VDI, or a snapshot of it, of its new size or name.
    mutating func noteChanged(_ vdi: VDIIdentifier) {
        let versions = attachments.filter { $0.value.vdi == vdi }.map(\.key)
        for version in versions { noteChanged(version) }
    }

    mutating func noteChanged(_ version: VersionReference) {
        guard let attachment = attachments[version], let export = export(version, attachment)
        else { return }
        for session in sessions.sessions(of: version.rawValue) {
            switch sessions.kind(session) {
            case .free: break
            case .vhost:
                sessions.vhost(session).pointee.resize(
                    sectors: export.byteCount / UInt64(sectorBytes))
            case .xen:
                sessions.xen(session).pointee.resize(
                    sectors: export.byteCount / UInt64(sectorBytes))
            case .nbdConnection:
                sessions.nbdConnection(session).pointee.resize(byteCount: export.byteCount)
            case .nbdListener:
                sessions.nbdListener(session).pointee.setExports(
                    NBDExportTable([export], defaultName: export.name))
            }
            sessions.touch(session)
        }
        if attachment.kind == .sharedNBD && attachment.detaching == nil {
            directory.put(NBDDirectory.Entry(version: version, shard: index, export: export))
        }
    }
}
