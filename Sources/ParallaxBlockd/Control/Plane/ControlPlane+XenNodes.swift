// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
package import ParallaxXen

/// The disks that Xen's tool stack asks for. They are remembered so that nobody changes or takes
/// such a disk between a start of the daemon and the first look at xenstore; what is served is for
/// the nodes to say.
extension ControlPlane {
    static var unseenNode: String {
        "its Xen device has not been seen in xenstore since the daemon started; "
            + "detach it if the domain is gone for good"
    }

    /// Serves what the tool stack asks for: `nodes` are all there are.
    package func follow(_ nodes: [XenDiskNode], refuse: (XenDiskNode, String) -> Void) async {
        await releaseEndedXen()
        xenNodes.formIntersection(nodes.map(\.path))
        let alive = Set(nodes.filter(\.hasFrontEnd).map(\.path))
        await forgetNodes("its Xen domain or device is gone") { path, _ in !alive.contains(path) }
        for node in nodes where xenNodes.insert(node.path).inserted {
            do throws(ControlError) {
                guard node.hasFrontEnd else {
                    throw ControlError(.notFound, XenFault.domainGone.text)
                }
                try await attach(node)
            } catch {
                guard error.kind != .stopping else { return }
                log.error(
                    "Xen device refused",
                    metadata: ["node": "\(node.path)", "reason": "\(error.message)"])
                for (version, attachment) in waitingNodes
                where attachment.record.socketPath == node.path {
                    attachments[version]?.problem = error.message
                }
                refuse(node, error.message)
            }
        }
        updateStateUnlessStarting()
    }

    private var waitingNodes: [VersionReference: Attachment] {
        attachments.filter { $0.value.problem != nil && $0.value.record.isXenNode }
    }

    /// Of those that do not serve.
    private func forgetNodes(
        _ reason: String, where isOver: (String, VersionReference) -> Bool
    ) async {
        for (version, attachment) in waitingNodes
        where isOver(attachment.record.socketPath ?? "", version) {
            await forget(attachment, reason)
        }
    }

    private func attach(_ node: XenDiskNode) async throws(ControlError) {
        let wanted = try version(of: node).reference
        await forgetNodes("its Xen device has another disk by now") { path, version in
            path == node.path && version != wanted
        }
        // LIMIT: one round more for each rename that was made while we waited for the lock.
        while try await !attach(node, to: version(of: node).entry.name) {}
    }

    /// False: the VDI that is meant has another name by now.
    private func attach(_ node: XenDiskNode, to vdi: String) async throws(ControlError) -> Bool {
        try await changing([vdi]) {
            let version = try version(of: node)
            guard version.entry.name == vdi else { return false }
            if let existing = attachments[version.reference],
                existing.problem == nil || existing.record.socketPath != node.path
            {
                throw attached(version, existing, "is already attached")
            }
            let request = AttachRequest(kind: .xen, socket: node.path, readOnly: node.readOnly)
            let record = AttachmentRecord(
                identifier: version.entry.identifier, snapshot: version.snapshot?.identifier,
                kind: .xen, socketPath: node.path,
                isReadOnly: try Self.isReadOnly(request, version))
            try await serve(record, entry: version.entry)
            attachments[version.reference] = Attachment(
                record: record, snapshotName: version.snapshot?.name)
            rememberNode(record)
            log.info("attached", metadata: ["vdi": "\(version.name)", "at": "\(node.path)"])
            return true
        }
    }

    /// A running guest keeps its disk although the file cannot be written.
    private func rememberNode(_ record: AttachmentRecord) {
        guard remembered[record.version] != record else { return }
        do throws(ControlError) {
            try remember(record, for: record.version)
        } catch {
            log.warning(
                "a Xen device is served, but unprotected after a restart until it is found again",
                metadata: ["node": "\(record.socketPath ?? "")", "reason": "\(error.message)"])
        }
    }

    /// What the node was given first is what it keeps, whatever its name means by now: a guest may
    /// be running on it.
    private func version(of node: XenDiskNode) throws(ControlError) -> Version {
        guard let text = node.identity else { return try version(VersionName(node.vdi)) }
        guard let identity = XenDiskIdentity(text), identity.store == runtime.identity.uuid else {
            throw ControlError(
                .notFound,
                "the Xen device has a disk of another store (\(quoted(text))); serve that store, "
                    + "or detach the device from the domain and attach it again")
        }
        let reference = VersionReference(rawValue: identity.version)
        guard let version = version(reference) else {
            throw ControlError(
                .notFound,
                "the disk that the Xen device \(quoted(node.vdi)) was given has been deleted "
                    + "(\(text)); detach the device from the domain and attach it again")
        }
        return version
    }

    private func version(_ reference: VersionReference) -> Version? {
        switch reference {
        case .head(let identifier):
            return names[identifier].flatMap { directory[$0] }
                .map { Version(entry: $0, snapshot: nil) }
        case .snapshot(let identifier):
            for (vdi, log) in logs {
                guard let snapshot = log.find(identifier), let name = names[vdi],
                    let entry = directory[name]
                else { continue }
                return Version(entry: entry, snapshot: snapshot)
            }
            return nil
        }
    }
}
