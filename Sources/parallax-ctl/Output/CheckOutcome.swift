// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore

/// What `store check` prints.
struct CheckOutcome: Encodable {
    struct Finding: Encodable, Equatable {
        var severity: String
        var structure: String
        var shard: Int?
        var message: String
    }

    struct Loss: Encodable, Equatable {
        var vdi: String
        var snapshot: String?
        var offsetBytes: UInt64
        var lengthBytes: UInt64
        var reason: String

        enum CodingKeys: String, CodingKey {
            case vdi
            case snapshot
            case offsetBytes = "offset_bytes"
            case lengthBytes = "length_bytes"
            case reason
        }
    }

    var path: String
    var uuid: String?
    var sizeBytes: UInt64?
    var shards: Int?
    /// A daemon was serving the store: its last checkpoints were verified.
    var isLive: Bool
    var wasOvertaken: Bool
    var verifiesData: Bool
    var isRepaired = false
    /// `clean`, `repairable`, `loss` or `unreadable`.
    var severity: String
    var vdis: Int
    var snapshots: Int
    var nodes: Int
    var dataBytes: UInt64
    var replayedChunks: UInt64
    var findings: [Finding]
    /// What a repair has mended, or would.
    var mended: [Finding] = []
    var lost: [Loss]
    /// Runs of blocks that are lost, too, and not listed: there are too many.
    var lostLeftOut: Int

    enum CodingKeys: String, CodingKey {
        case path
        case uuid
        case sizeBytes = "size_bytes"
        case shards
        case isLive = "live"
        case wasOvertaken = "overtaken"
        case verifiesData = "data_verified"
        case isRepaired = "repaired"
        case severity
        case vdis
        case snapshots
        case nodes
        case dataBytes = "data_bytes"
        case replayedChunks = "replayed_chunks"
        case findings
        case mended
        case lost
        case lostLeftOut = "lost_left_out"
    }

    init(path: String, report: CheckReport, verifiesData: Bool) {
        self.path = path
        self.verifiesData = verifiesData
        uuid = report.superblock?.uuid.description
        sizeBytes = report.superblock?.storeBytes
        shards = report.superblock.map { Int($0.streamCount) }
        isLive = report.isLive
        wasOvertaken = report.wasOvertaken
        severity = Self.name(report.severity)
        vdis = report.statistics.vdis
        snapshots = report.statistics.snapshots
        nodes = report.statistics.nodes
        dataBytes = report.statistics.dataBlocks * UInt64(blockBytes)
        replayedChunks = report.statistics.replayedChunks
        findings = report.findings.map(Finding.init)
        lost = report.losses.map(Loss.init)
        lostLeftOut = report.lossesLeftOut
    }

    /// `self` is what is left after the repair of what `before` found.
    mutating func noteRepair(of before: CheckReport) {
        let left = Set(findings.map(\.message))
        mended = before.findings.map(Finding.init).filter { !left.contains($0.message) }
        // A later check cannot know what was lost with the log or with a record.
        lost += before.losses.filter { $0.reason == .log }.map(Loss.init)
        if before.severity == .loss, severity != "unreadable" { severity = "loss" }
    }

    var exitCode: Int32 {
        switch severity {
        case "clean": 0
        case "repairable": 2
        case "loss": 3
        default: 4
        }
    }

    static func name(_ severity: CheckFinding.Severity?) -> String {
        switch severity {
        case nil: "clean"
        case .repairable: "repairable"
        case .loss: "loss"
        case .unreadable: "unreadable"
        }
    }
}

extension CheckOutcome.Finding {
    init(_ finding: CheckFinding) {
        severity = CheckOutcome.name(finding.severity)
        structure = finding.structure.rawValue
        shard = finding.stream
        message = finding.message
    }
}

extension CheckOutcome.Loss {
    init(_ loss: CheckLoss) {
        vdi = loss.vdiName.isEmpty ? String(loss.vdi.rawValue) : loss.vdiName
        snapshot = loss.snapshotName
        offsetBytes = loss.firstBlock * UInt64(blockBytes)
        lengthBytes = loss.blockCount * UInt64(blockBytes)
        reason = loss.reason.rawValue
    }
}

/// The same in words.
extension CheckOutcome {
    var text: String {
        var text = "\(path): \(vdis) VDIs, \(snapshots) snapshots, "
        text += "\(nodes) radix nodes and \(ByteSize.format(dataBytes)) of data "
        text += verifiesData ? "verified" : "found, data not read"
        text += isLive ? " in the last checkpoints; a daemon serves the store\n" : "\n"
        for finding in mended { text += "mended: \(finding.message)\n" }
        for finding in findings { text += "\(finding.severity): \(finding.message)\n" }
        if !lost.isEmpty { text += "\n\(lossTable)\n" }
        if lostLeftOut > 0 { text += "and \(lostLeftOut) more runs of blocks\n" }
        return text + verdict + "\n"
    }

    private var lossTable: String {
        // In exact bytes, by which the place can be found; how much that is stands beside them.
        let header = ["LOST IN", "AT BYTE", "BYTES", "SIZE", "WHY"]
        var table = Table(header: header, rightAligned: [1, 2, 3])
        for loss in lost {
            table.add([
                loss.vdi + (loss.snapshot.map { "@\($0)" } ?? ""),
                String(loss.offsetBytes), String(loss.lengthBytes),
                ByteSize.format(loss.lengthBytes),
                Self.reason(loss.reason),
            ])
        }
        return table.text
    }

    private static func reason(_ reason: String) -> String {
        switch reason {
        case "data": "the data are damaged; reads report an error"
        case "node": "what says where the data are is damaged; reads and writes report an error"
        default: "the newest writes, of which only the log knew"
        }
    }

    private var verdict: String {
        if wasOvertaken {
            return "The daemon made checkpoints faster than they could be read, and what was found "
                + "may be due to that: use `parallax-ctl store scrub`, or stop the daemon."
        }
        if isRepaired { return severity == "loss" ? "Repaired, with loss." : "Repaired." }
        switch severity {
        case "clean": return "No damage."
        case "repairable":
            return "Nothing is lost; `parallax-ctl store check --repair` mends it."
        case "loss":
            return "Something is lost; `parallax-ctl store check --repair` keeps the rest."
        default:
            return "The store cannot be read as it is; restore it from a backup."
        }
    }
}
