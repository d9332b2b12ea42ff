// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
import ParallaxIO
import ParallaxXen

/// What a shard is told to serve to a Xen domain.
struct XenAttach: Sendable {
    var version: VersionReference
    /// DOMAIN:DEVICE, or the path of a back-end directory.
    var place: String
    var readOnly: Bool
    var isNew: Bool

    /// nil: neither.
    var xenPlace: XenPlace? {
        if place.hasPrefix("/") { return .node(place) }
        guard let address = XenAddress(place) else { return nil }
        // A number of before a restart may belong to another domain now, unless our nodes for it
        // are still there; a name is what the user meant.
        let isNumber = UInt32(address.domain) != nil
        return .address(address, mayMake: isNew || !isNumber)
    }
}

extension Shard where ShardReactor: ~Copyable {
    mutating func attachXen(_ attach: XenAttach) throws(ControlError) {
        guard let place = attach.xenPlace else {
            throw ControlError(.invalid, "\(quoted(attach.place)) is no device of a domain.")
        }
        guard let (name, sizeBytes) = nameAndSize(attach.version) else {
            throw Self.gone(attach.version)
        }
        let opened = try open(attach.version, .xen, readOnly: attach.readOnly)
        let session = opened.session
        let export = XenExport(
            name: name, sectors: sizeBytes / UInt64(sectorBytes), readOnly: attach.readOnly,
            place: place,
            identity: XenDiskIdentity(
                store: engine.superblock.uuid.description, version: attach.version.rawValue),
            isRestored: !attach.isNew)
        do throws(XenError) {
            let library = try XenLibrary.load()
            sessions.insert(
                session,
                try XenDevice.open(
                    session: session, vdi: opened.handle, export: export, library: library),
                version: attach.version.rawValue)
        } catch {
            cancel(opened)
            throw Self.explain(error)
        }
        attachments[attach.version] = opened.attachment
        sessions.xen(session).pointee.start(registrar: &reactor, requests: &requests)
        sessions.touch(session)
    }

    private static func explain(_ error: XenError) -> ControlError {
        switch error {
        case .noSuchDomain: ControlError(.notFound, "\(error)")
        default: ControlError(.socketUnusable, "\(error)")
        }
    }

    mutating func finishBatch(xen session: UInt32) {
        let device = sessions.xen(session)
        device.pointee.finishBatch(registrar: &reactor, requests: &requests)
        passOnNotices(of: device, session)
        if device.pointee.isDrained { end(session) }
    }

    /// A daemon that stops leaves the guest connected, for its successor; a detach does not.
    mutating func stopXen(_ session: UInt32) {
        sessions.xen(session).pointee.stop(
            keepingGuest: isStopping, registrar: &reactor, requests: &requests)
    }

    /// Versions whose domain, or whose node, has gone.
    func endedXen() -> [VersionReference] {
        attachments.compactMap { version, attachment in
            guard attachment.kind == .xen, attachment.detaching == nil,
                sessions.sessions(of: version.rawValue).isEmpty
            else { return nil }
            return version
        }
    }
}
