// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl

/// How the answers of the daemon look to people.
enum Descriptions {
    static func list(_ vdis: [VDIDescription]) -> String {
        let header = ["NAME", "SIZE", "USED", "CHARGED", "QUOTA", "SNAPSHOTS", "ATTACHED"]
        var table = Table(header: header, rightAligned: [1, 2, 3, 4, 5])
        for vdi in vdis {
            table.add([
                vdi.name, ByteSize.format(vdi.sizeBytes), ByteSize.format(vdi.allocatedBytes),
                ByteSize.format(vdi.chargedBytes), vdi.quotaBytes.map(ByteSize.format) ?? "-",
                String(vdi.snapshotCount), attachment(vdi.attachment),
            ])
        }
        return table.text
    }

    static func details(_ vdi: VDIDescription) -> String {
        var table = Table(header: [])
        table.add(["name", vdi.name])
        table.add(["id", vdi.identifier])
        table.add(["size", ByteSize.formatExact(vdi.sizeBytes)])
        table.add(["used", ByteSize.formatExact(vdi.allocatedBytes)])
        table.add(["exclusive", ByteSize.formatExact(vdi.exclusiveBytes)])
        table.add(["shared", shared(vdi.allocatedBytes, exclusive: vdi.exclusiveBytes)])
        table.add(["charged", ByteSize.formatExact(vdi.chargedBytes)])
        table.add(["quota", vdi.quotaBytes.map(ByteSize.formatExact) ?? "-"])
        table.add(["created", vdi.createdAt])
        table.add(["shard", String(vdi.shard)])
        table.add(["snapshots", String(vdi.snapshotCount)])
        table.add(["parent", vdi.parent ?? "-"])
        table.add(["template", vdi.isTemplate ? "yes" : "no"])
        table.add(["retention", vdi.retention ?? "-"])
        if let layout = vdi.layout { table.add(["mean run", meanRun(layout)]) }
        table.add(["attached", attachment(vdi.attachment)])
        if let problem = vdi.attachment?.problem { table.add(["problem", problem]) }
        return table.text
    }

    /// What a version has together with others. The two numbers may be of different moments.
    static func shared(_ allocated: UInt64, exclusive: UInt64) -> String {
        ByteSize.formatExact(allocated - min(exclusive, allocated))
    }

    /// How fragmented it is.
    private static func meanRun(_ layout: LayoutDescription) -> String {
        guard layout.lookedAtBytes > 0 else { return "-" }
        let run = ByteSize.format(layout.meanRunBytes)
        return layout.isWhole
            ? run : "\(run) (in \(ByteSize.format(layout.lookedAtBytes)) of it that were looked at)"
    }

    static func attachment(_ attachment: AttachmentDescription?) -> String {
        guard let attachment else { return "-" }
        var text =
            attachment.kind == .nbd
            ? attachment.location : "\(attachment.kind.rawValue) \(attachment.location)"
        if attachment.readOnly { text += " (read-only)" }
        if !attachment.serving { text += " (not serving)" }
        return text
    }

    static func status(_ status: DaemonStatus) -> String {
        let store = status.store
        var table = Table(header: [])
        table.add(["store", store.path])
        table.add(["uuid", store.uuid])
        table.add(["state", status.state.rawValue])
        table.add(["size", ByteSize.formatExact(store.sizeBytes)])
        addSpace(status, to: &table)
        table.add(["engine", status.engine])
        table.add(["vdis", "\(status.vdiCount), \(status.attachmentCount) attached"])
        table.add(["snapshots", String(status.snapshotCount)])
        table.add(["daemon", "\(status.version), pid \(status.processIdentifier)"])
        return table.text + "\n" + shards(status.shards) + "\n" + spaces(status) + "\n"
            + cleaners(status) + readOnly(status.shards) + missing(status.missing)
    }

    private static func shards(_ shards: [ShardDescription]) -> String {
        let header = [
            "SHARD", "VDIS", "LSN", "CHECKPOINT", "READS", "WRITES", "FLUSHES", "CACHE", "ERRORS",
        ]
        var table = Table(header: header, rightAligned: Set(0..<header.count))
        for shard in shards {
            table.add([
                String(shard.index), String(shard.vdiCount), String(shard.lsn),
                String(shard.checkpointLSN), String(shard.reads), String(shard.writes),
                String(shard.flushes), ByteSize.format(shard.cacheBytes),
                String(shard.deviceErrors + shard.checksumErrors),
            ])
        }
        return table.text
    }

    private static func readOnly(_ shards: [ShardDescription]) -> String {
        shards.compactMap { shard in
            shard.readOnlyReason.map { "shard \(shard.index) is read-only: \($0)\n" }
        }.joined()
    }

    private static func missing(_ missing: [MissingAttachment]) -> String {
        missing.map { "not serving: \($0.vdi) at \($0.socket): \($0.reason)\n" }.joined()
    }
}
