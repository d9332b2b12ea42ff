// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One thing that is wrong with a store.
package struct CheckFinding: Equatable, Sendable {
    package enum Severity: Int, Comparable, Sendable {
        /// A repair mends it, and nothing is lost.
        case repairable = 1
        /// Blocks, snapshots or the newest writes cannot be had any more.
        case loss = 2
        /// A shard, or the store as a whole, cannot be read.
        case unreadable = 3

        package static func < (left: Severity, right: Severity) -> Bool {
            left.rawValue < right.rawValue
        }
    }

    package enum Structure: String, Sendable {
        case superblock
        case root = "checkpoint_root"
        case tables
        case extents
        case liveBits = "live_bits"
        case forwards
        case records
        case versions
        case accounting
        case log
        case node
        case data
    }

    package var severity: Severity
    package var structure: Structure
    /// nil: the store as a whole.
    package var stream: Int?
    /// One sentence: what, where, and what follows from it.
    package var message: String

    package init(
        _ severity: Severity, _ structure: Structure, stream: Int? = nil, _ message: String
    ) {
        self.severity = severity
        self.structure = structure
        self.stream = stream
        self.message = message
    }
}

/// Blocks of a disk that cannot be had as they were written.
package struct CheckLoss: Equatable, Sendable {
    package enum Reason: String, Sendable {
        /// The radix node that says where they are.
        case node
        /// The blocks themselves. Reads report them.
        case data
        /// What was written last, which only the log knew of: the blocks are as they were before.
        case log
    }

    package var vdi: VDIIdentifier
    /// Empty: not known.
    package var vdiName: String
    /// nil: the head.
    package var snapshotName: String?
    package var firstBlock: UInt64
    package var blockCount: UInt64
    package var reason: Reason

    package init(
        vdi: VDIIdentifier, vdiName: String, snapshotName: String?, firstBlock: UInt64,
        blockCount: UInt64, reason: Reason
    ) {
        self.vdi = vdi
        self.vdiName = vdiName
        self.snapshotName = snapshotName
        self.firstBlock = firstBlock
        self.blockCount = blockCount
        self.reason = reason
    }
}

/// What a check has found.
package struct CheckReport: Sendable {
    package struct Statistics: Equatable, Sendable {
        package var vdis = 0
        package var snapshots = 0
        package var nodes = 0
        package var dataBlocks: UInt64 = 0
        /// Data blocks that were read.
        package var verifiedBlocks: UInt64 = 0
        package var replayedChunks: UInt64 = 0
    }

    package var superblock: Superblock?
    package var findings: [CheckFinding] = []
    package var losses: [CheckLoss] = []
    /// More of them than are listed.
    package var lossesLeftOut = 0
    package var statistics = Statistics()
    /// A daemon was writing to the store: only its last checkpoints were looked at.
    package var isLive = false
    /// The store was written to so fast that what was found may be due to that.
    package var wasOvertaken = false

    package init() {}

    /// nil: nothing is wrong.
    package var severity: CheckFinding.Severity? { findings.map(\.severity).max() }

    mutating func add(_ other: CheckReport) {
        findings += other.findings
        losses += other.losses
        lossesLeftOut += other.lossesLeftOut
        statistics.vdis += other.statistics.vdis
        statistics.snapshots += other.statistics.snapshots
        statistics.nodes += other.statistics.nodes
        statistics.dataBlocks += other.statistics.dataBlocks
        statistics.verifiedBlocks += other.statistics.verifiedBlocks
        statistics.replayedChunks += other.statistics.replayedChunks
    }
}
