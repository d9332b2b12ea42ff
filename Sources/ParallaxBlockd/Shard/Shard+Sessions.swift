// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxNBD
import ParallaxVhost
import ParallaxXen

/// How a VDI of this shard is served.
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
    /// The vhost-user device, or the listener of the VDI's own NBD socket.
    var session: UInt32?
    /// Set while it is being detached.
    var detaching: [ShardReply<Void>]?
}

extension Shard where ShardReactor: ~Copyable {
    mutating func finishBatch(vhost session: UInt32) {
        let device = sessions.vhost(session)
        device.pointee.finishBatch(registrar: &reactor, requests: &requests)
        while let notice = device.pointee.takeNotice() {
            let name = device.pointee.export.name
            if notice.isProblem {
                log.warning("VDI \(name): \(notice.text)")
            } else {
                log.debug("VDI \(name): \(notice.text)")
            }
        }
        if device.pointee.isDrained { end(session) }
    }

    mutating func finishBatch(nbd session: UInt32) {
        let connection = sessions.nbdConnection(session)
        connection.pointee.finishBatch(registrar: &reactor, requests: &requests)
        if connection.pointee.isFinished { end(session) }
    }

    /// The session is over and nothing refers to it.
    mutating func end(_ session: UInt32) {
        let vdi = sessions.vdi(session)
        sessions.remove(session)
        finishDetach(vdi)
    }

    mutating func handleListener(_ token: EventToken, _ interest: EventInterest) {
        let listener = sessions.nbdListener(token.session)
        listener.pointee.handleEvent(
            source: token.source, interest: interest, registrar: &reactor)
        while let handover = listener.pointee.takeHandover() {
            let vdi = sessions.vdi(token.session)
            if vdi == 0 { directory.pass(handover) } else { welcome(handover, vdi: vdi) }
        }
    }

    /// A client has chosen an export of this shard.
    mutating func welcome(_ handover: NBDHandover, vdi: UInt64) {
        guard let attachment = attachments[vdi], attachment.detaching == nil,
            attachment.kind != .vhost, attachment.kind != .xen,
            let export = export(vdi, attachment),
            let handle = engine.handle(of: VDIIdentifier(vdi)),
            let session = sessions.reserve()
        else {
            handover.refuse()
            return
        }
        do throws(NBDError) {
            sessions.insert(
                session,
                try NBDConnection(
                    session: session, vdi: handle, handover: handover, export: export),
                vdi: vdi)
        } catch {
            sessions.cancel(session)
            log.warning("VDI \(export.name): an NBD client was refused: \(error)")
            return
        }
        sessions.nbdConnection(session).pointee.start(registrar: &reactor)
        sessions.touch(session)
    }

    func export(_ vdi: UInt64, _ attachment: Attachment) -> NBDExport? {
        guard let summary = engine.summary(of: VDIIdentifier(vdi)) else { return nil }
        return NBDExport(
            name: summary.name, byteCount: summary.sizeBytes, isReadOnly: attachment.isReadOnly,
            description: "Parallax VDI")
    }

    /// Tells whoever serves the VDI of its new size or name.
    mutating func noteChanged(_ vdi: UInt64) {
        guard let attachment = attachments[vdi], let export = export(vdi, attachment) else {
            return
        }
        for session in sessions.sessions(of: vdi) {
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
        if attachment.kind == .sharedNBD {
            directory.put(NBDDirectory.Entry(vdi: vdi, shard: index, export: export))
        }
    }
}

extension Shard where ShardReactor: ~Copyable {
    mutating func attachVhost(vdi: UInt64, path: String, readOnly: Bool) throws(ControlError) {
        let (handle, session) = try prepareAttach(vdi)
        guard let summary = engine.summary(of: VDIIdentifier(vdi)) else {
            throw noSuchVDI()
        }
        let export = VhostExport(
            name: summary.name, sectors: summary.sizeBytes / UInt64(sectorBytes),
            readOnly: readOnly, socketPath: path)
        do throws(VhostError) {
            sessions.insert(
                session, try VhostDevice(session: session, vdi: handle, export: export), vdi: vdi)
        } catch {
            sessions.cancel(session)
            throw ControlError(.socketUnusable, "\(error)")
        }
        sessions.vhost(session).pointee.start(registrar: &reactor)
        attachments[vdi] = Attachment(kind: .vhost, isReadOnly: readOnly, session: session)
    }

    mutating func attachNBD(vdi: UInt64, path: String?, readOnly: Bool) throws(ControlError) {
        let (_, session) = try prepareAttach(vdi)
        guard let path else {
            sessions.cancel(session)
            attachments[vdi] = Attachment(kind: .sharedNBD, isReadOnly: readOnly)
            noteChanged(vdi)
            return
        }
        do throws(NBDError) {
            sessions.insert(session, try NBDListener(session: session, path: path), vdi: vdi)
        } catch {
            sessions.cancel(session)
            throw ControlError(.socketUnusable, "\(error)")
        }
        sessions.nbdListener(session).pointee.start(registrar: &reactor)
        attachments[vdi] = Attachment(kind: .nbd, isReadOnly: readOnly, session: session)
        noteChanged(vdi)
    }

    mutating func prepareAttach(_ vdi: UInt64) throws(ControlError) -> (UInt32, UInt32) {
        guard let handle = engine.handle(of: VDIIdentifier(vdi)) else {
            throw noSuchVDI()
        }
        guard attachments[vdi] == nil else {
            throw ControlError(.attached, "The VDI is attached already; detach it first.")
        }
        guard !isStopping else { throw ControlError(.stopping, "The daemon is stopping.") }
        guard let session = sessions.reserve() else {
            throw ControlError(
                .internalError, "Shard \(index) serves too many clients; detach a VDI first.")
        }
        return (handle, session)
    }

    private func noSuchVDI() -> ControlError { ControlError(.notFound, "There is no such VDI.") }

    /// Opens the shared NBD socket.
    mutating func listen(path: String) throws(ControlError) {
        guard let session = sessions.reserve() else {
            throw ControlError(.internalError, "Shard \(index) serves too many clients.")
        }
        do throws(NBDError) {
            sessions.insert(session, try NBDListener(session: session, path: path), vdi: 0)
        } catch {
            sessions.cancel(session)
            throw ControlError(.socketUnusable, "\(error)")
        }
        sessions.nbdListener(session).pointee.start(registrar: &reactor)
        sharedListener = session
    }

    mutating func detach(vdi: UInt64, _ reply: ShardReply<Void>) {
        guard let attachment = attachments[vdi] else {
            reply.resume(throwing: ControlError(.notAttached, "The VDI is not attached."))
            return
        }
        if attachment.kind == .sharedNBD { directory.remove(vdi: vdi) }
        attachments[vdi]?.detaching = (attachment.detaching ?? []) + [reply]
        for session in sessions.sessions(of: vdi) { stop(session) }
        finishDetach(vdi)
    }

    /// Ends a session, now or when its last reply has come.
    mutating func stop(_ session: UInt32) {
        switch sessions.kind(session) {
        case .free: return
        case .vhost: sessions.vhost(session).pointee.stop(registrar: &reactor)
        case .nbdConnection: sessions.nbdConnection(session).pointee.stop(registrar: &reactor)
        case .xen: stopXen(session)
        case .nbdListener:
            sessions.nbdListener(session).pointee.stop(registrar: &reactor)
            sessions.remove(session)
            return
        }
        sessions.touch(session)
    }

    /// Answers a detach when the VDI's last session is over.
    private mutating func finishDetach(_ vdi: UInt64) {
        guard let replies = attachments[vdi]?.detaching, sessions.sessions(of: vdi).isEmpty else {
            return
        }
        attachments[vdi] = nil
        for reply in replies { reply.resume() }
    }
}
