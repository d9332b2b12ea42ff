// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl
import ParallaxCore
import ParallaxXen

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
            version: record.version, place: record.socketPath ?? "",
            readOnly: record.isReadOnly, isNew: remembered[record.version] != record)
    }

    /// The same device of a domain is served once.
    func claimXen(_ place: String, for record: AttachmentRecord) throws(ControlError) {
        let key = "xen " + place
        if let owner = claimedSockets[key], owner != .version(record) {
            throw ControlError(
                .socketUnusable,
                "the device \(place) is in use by \(name(of: owner)); use another device")
        }
        claimedSockets[key] = .version(record)
    }

    /// Remembered devices come before a new one: another name may mean the same device, and its
    /// guest may be running. Only `version` is to be attached anew.
    func restoreXen(except version: VersionReference?) async {
        await restore { $0.kind == .xen && $0.version != version }
    }

    /// Forgets the attachments whose domains have gone, so that the VDIs are free again.
    package func releaseEndedXen() async {
        for attachment in attachments.values where isGone(attachment) {
            await release(attachment, attachment.problem ?? "")
        }
        // Looked at before the shards are asked: what is attached later has not ended.
        let seen = attachments
        for shard in runtime.shards {
            for version in (try? await shard.endedXen()) ?? [] {
                guard let attachment = seen[version] else { continue }
                await release(attachment, "its Xen domain or device is gone")
            }
        }
    }

    /// A domain's number means nothing once the domain is gone; a name may come back.
    private func isGone(_ attachment: Attachment) -> Bool {
        guard attachment.record.kind == .xen, let problem = attachment.problem,
            let address = attachment.record.socketPath.flatMap({ XenAddress($0) }),
            UInt32(address.domain) != nil
        else { return false }
        return problem == "\(XenError.noSuchDomain(address.domain))"
    }

    /// Unless the version has another attachment by now.
    private func release(_ attachment: Attachment, _ reason: String) async {
        let record = attachment.record
        guard record.kind == .xen, attachments[record.version]?.record == record else { return }
        if let place = record.socketPath { xenNodes.remove(place) }
        await forget(attachment, reason)
    }

    func forget(_ attachment: Attachment, _ reason: String) async {
        let record = attachment.record
        guard let vdi = names[record.identifier] else { return }
        let name = VersionName(vdi: vdi, snapshot: attachment.snapshotName)
        do throws(ControlError) {
            try await detach(name, only: record)
            log.info("attachment ended", metadata: ["vdi": "\(name)", "reason": "\(reason)"])
        } catch {
            log.debug(
                "an ended attachment is kept",
                metadata: ["vdi": "\(name)", "reason": "\(error.message)"])
        }
    }
}
