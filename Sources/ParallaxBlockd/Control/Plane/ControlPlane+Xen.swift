// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
package import ParallaxXen

extension ControlPlane {
    static func checkXenAddress(_ text: String?) throws(ControlError) -> String {
        guard let text else {
            throw ControlError(.invalid, "a Xen attachment needs a device, as in web1:xvda")
        }
        guard let address = XenAddress(text) else {
            throw ControlError(
                .invalid,
                "\(quoted(text)) is no device of a domain; use DOMAIN:DEVICE, as in web1:xvda or "
                    + "3:51712")
        }
        return address.description
    }

    func serveXen(_ record: AttachmentRecord, on shard: any ShardControl) async throws {
        try await shard.attachXen(
            identifier: record.identifier, place: record.socketPath ?? "",
            readOnly: record.isReadOnly, isNew: remembered[record.identifier] != record)
    }

    /// The same device of a domain is served once.
    func claimXen(_ place: String, for identifier: VDIIdentifier) throws(ControlError) {
        let key = "xen " + place
        if let owner = claimedSockets[key], owner != .vdi(identifier) {
            throw ControlError(
                .socketUnusable,
                "the device \(place) is in use by \(name(of: owner)); use another device")
        }
        claimedSockets[key] = .vdi(identifier)
    }

    /// Forgets the attachments whose domains have gone, so that the VDIs are free again.
    package func releaseEndedXen() async {
        for entry in directory.values where attachments[entry.identifier]?.record.kind == .xen {
            if attachments[entry.identifier]?.problem != nil { await forgetIfGone(entry) }
        }
        for shard in runtime.shards {
            for identifier in (try? await shard.endedXen()) ?? [] {
                guard let entry = directory.values.first(where: { $0.identifier == identifier })
                else { continue }
                await release(entry, "its Xen domain or device is gone")
            }
        }
    }

    /// A domain's number means nothing once the domain is gone; a name may come back.
    private func forgetIfGone(_ entry: Entry) async {
        guard let attachment = attachments[entry.identifier], let problem = attachment.problem,
            let address = attachment.record.socketPath.flatMap({ XenAddress($0) }),
            UInt32(address.domain) != nil,
            problem == "\(XenError.noSuchDomain(address.domain))"
        else { return }
        await release(entry, problem)
    }

    private func release(_ entry: Entry, _ reason: String) async {
        if let place = attachments[entry.identifier]?.record.socketPath { xenNodes.remove(place) }
        do throws(ControlError) {
            try await detach(entry.name)
            log.info("attachment ended", metadata: ["vdi": "\(entry.name)", "reason": "\(reason)"])
        } catch {
            log.debug(
                "an ended attachment is kept",
                metadata: ["vdi": "\(entry.name)", "reason": "\(error.message)"])
        }
    }

    /// Serves what the tool stack asks for. Such attachments are not remembered: after a restart
    /// the nodes are found again.
    package func follow(_ nodes: [XenDiskNode], refuse: (XenDiskNode, String) -> Void) async {
        await releaseEndedXen()
        xenNodes.formIntersection(nodes.map(\.path))
        for node in nodes where xenNodes.insert(node.path).inserted {
            do throws(ControlError) {
                try await attach(node)
            } catch {
                guard error.kind != .stopping else { return }
                log.error(
                    "Xen device refused",
                    metadata: ["node": "\(node.path)", "reason": "\(error.message)"])
                refuse(node, error.message)
            }
        }
        updateStateUnlessStarting()
    }

    private func attach(_ node: XenDiskNode) async throws(ControlError) {
        try await changing([node.vdi]) {
            let entry = try entry(node.vdi)
            if let existing = attachments[entry.identifier] {
                throw attached(entry, existing, "is already attached")
            }
            let record = AttachmentRecord(
                identifier: entry.identifier, kind: .xen, socketPath: node.path,
                isReadOnly: node.readOnly)
            try await serve(record, entry: entry)
            attachments[entry.identifier] = Attachment(record: record, problem: nil)
            log.info("attached", metadata: ["vdi": "\(node.vdi)", "at": "\(node.path)"])
        }
    }
}
