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

    /// Serves what the tool stack asks for: `nodes` are all there are, and `isCurrent` looks at one
    /// of them again. True: some may be served in a while, so look then.
    @discardableResult
    package func follow(
        _ nodes: [XenDiskNode],
        isCurrent: @Sendable (XenDiskNode) async -> Bool = { _ in true },
        refuse: (XenDiskNode, String) -> Void
    ) async -> Bool {
        await releaseEndedXen()
        let paths = Set(nodes.map(\.path))
        xenNodes.formIntersection(paths)
        xenProblems = xenProblems.filter { paths.contains($0.key) }
        let alive = Set(nodes.filter(\.hasFrontEnd).map(\.path))
        await forgetNodes("its Xen domain or device is gone") { path, _ in !alive.contains(path) }
        var isUnsettled = false
        for node in nodes where xenNodes.insert(node.path).inserted {
            do throws(ControlError) {
                guard node.hasFrontEnd else {
                    throw ControlError(.notFound, XenFault.domainGone.text)
                }
                try await attach(node, isCurrent)
                xenProblems[node.path] = nil
            } catch {
                guard error.kind != .stopping else { return false }
                var problem = error.message
                var failure = NodeFailure(error, of: node, store: runtime.identity.uuid)
                // What has come to its place meanwhile must not be closed for it.
                if failure == .isFinal, await !isCurrent(node) {
                    problem = Self.changedNode.message
                    failure = .passes
                }
                note(problem, failure, at: node.path)
                switch failure {
                case .isFinal: refuse(node, problem)
                case .isOthers: break
                case .passes:
                    xenNodes.remove(node.path)
                    isUnsettled = true
                }
            }
        }
        updateStateUnlessStarting()
        return isUnsettled
    }

    /// What follows when a node cannot be served. One that has a key was served before, and its
    /// guest may be running: closing it would take away a disk that only has to wait.
    private enum NodeFailure {
        /// The tool stack is told, and gives up.
        case isFinal
        /// The disk is another store's, and its daemon may be serving it.
        case isOthers
        case passes

        init(_ error: ControlError, of node: XenDiskNode, store: String) {
            if error == ControlPlane.changedNode {
                self = .passes
            } else if let text = node.identity, XenDiskIdentity(text)?.store != store {
                self = .isOthers
            } else if node.identity == nil || !node.hasFrontEnd {
                self = .isFinal
            } else {
                switch error.kind {
                // The disk was deleted, or others may have written to it meanwhile.
                case .notFound, .attached, .invalid, .template: self = .isFinal
                default: self = .passes
                }
            }
        }
    }

    /// A reason is logged once, however often the node is tried.
    private func note(_ problem: String, _ failure: NodeFailure, at path: String) {
        for (version, attachment) in waitingNodes where attachment.record.socketPath == path {
            attachments[version]?.problem = problem
        }
        guard xenProblems.updateValue(problem, forKey: path) != problem else { return }
        let metadata: Logger.Metadata = ["node": "\(path)", "reason": "\(problem)"]
        switch failure {
        case .isFinal: log.error("Xen device refused", metadata: metadata)
        case .isOthers: log.warning("Xen device left as it is", metadata: metadata)
        case .passes: log.warning("Xen device waits; it is tried again", metadata: metadata)
        }
    }

    /// Where there is no Xen no look comes, so that the remembered nodes wait for ever.
    package func warnOfNodesWithoutXen(_ reason: String) {
        let waiting = waitingNodes.values.compactMap { attachment in
            names[attachment.record.identifier].map {
                "\(VersionName(vdi: $0, snapshot: attachment.snapshotName)) "
                    + "(\(attachment.record.socketPath ?? ""))"
            }
        }
        guard !waiting.isEmpty else { return }
        log.warning(
            "disks of Xen domains wait for a Xen that is not there; parallax-ctl detach frees them",
            metadata: [
                "disks": "\(waiting.sorted().joined(separator: ", "))", "reason": "\(reason)",
            ])
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

    /// The list may be old by the time that a node's turn comes.
    private static var changedNode: ControlError {
        ControlError(.socketUnusable, "the Xen device has changed meanwhile")
    }

    private func attach(
        _ node: XenDiskNode, _ isCurrent: @Sendable (XenDiskNode) async -> Bool
    ) async throws(ControlError) {
        let wanted = try version(of: node).reference
        await forgetNodes("its Xen device has another disk by now") { path, version in
            path == node.path && version != wanted
        }
        // LIMIT: one round more for each rename that was made while we waited for the lock.
        while try await !attach(node, to: version(of: node).entry.name, isCurrent) {}
    }

    /// False: the VDI that is meant has another name by now.
    private func attach(
        _ node: XenDiskNode, to vdi: String, _ isCurrent: @Sendable (XenDiskNode) async -> Bool
    ) async throws(ControlError) -> Bool {
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
            guard await isCurrent(node) else { throw Self.changedNode }
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
