// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Verifies a store: every structure, every reference, every checksum. Only reads.
///
/// ```
///   superblocks -> roots -> tables, bits, forwards, records -> log -> trees -> data -> books
///                  \_____ for each shard: the engine's own recovery, __/  \____ a walk ____/
///                         which notes what it would else refuse
/// ```
package struct StoreCheck {
    package struct Options: Sendable {
        /// Data blocks are read, and not only the nodes above them.
        package var verifiesData = true
        /// A daemon is writing to the store: its last checkpoints are looked at, and not its log; nor
        /// the data, which may have been moved, and its old place used again, since the checkpoint.
        package var isLive = false
        package var nodeCacheBytes = 64 << 20
        /// No two VDIs have one name: the daemon's control plane sees to that, no engine does.
        package var namesAreUnique = true
        /// LIMIT: losses of heads that a shard's part of the report lists, and as many of snapshots;
        /// more are only counted.
        package var lossesKept = 100_000

        package init() {}
    }

    /// How far a check has come, in data blocks.
    package struct Progress: Sendable {
        package var stream: Int
        package var streamCount: Int
        package var doneBlocks: UInt64
        package var totalBlocks: UInt64
    }

    let options: Options
    let progress: (Progress) -> Void
    var report = CheckReport()
    /// Names of VDIs seen so far, and who has each slot.
    var names: Set<String> = []
    var slotOwners: [UInt32: Int] = [:]

    init(options: Options, progress: @escaping (Progress) -> Void) {
        self.options = options
        self.progress = progress
    }

    /// LIMIT: times that a check of a live store begins again because it was overtaken.
    private static let attempts = 5

    /// Checks the store on `medium`. Always returns; what cannot be read is in the report.
    package static func run(
        medium: some StoreMedium, options: Options,
        progress: @escaping (Progress) -> Void = { _ in }
    ) -> CheckReport {
        var attempt = 1
        while true {
            var check = StoreCheck(options: options, progress: progress)
            let before = check.sequences(medium: medium)
            check.checkAll(medium: medium)
            let isOvertaken = options.isLive && check.sequences(medium: medium) != before
            guard isOvertaken, check.report.severity != nil else { return check.report }
            check.report.wasOvertaken = true
            if attempt == attempts { return check.report }
            attempt += 1
        }
    }

    private mutating func checkAll(medium: some StoreMedium) {
        report.isLive = options.isLive
        guard let superblock = checkSuperblocks(medium: medium) else { return }
        report.superblock = superblock
        for stream in 0..<Int(superblock.streamCount) {
            checkStream(stream, superblock, medium: medium)
        }
    }

    private mutating func checkStream(
        _ stream: Int, _ superblock: Superblock, medium: some StoreMedium
    ) {
        let opened = openStream(stream, superblock, medium: medium)
        report.findings += opened.findings
        guard let opening = opened.opening else { return }
        report.add(opening.engine.report(for: self, medium: medium))
        if !options.isLive { compareSlots(opening.engine.slotNumbers, stream) }
        compareNames(opening.engine.visibleNames, stream)
    }

    /// What only several shards together can have wrong.
    private mutating func compareSlots(_ slots: [UInt32], _ stream: Int) {
        for slot in slots {
            if let other = slotOwners.updateValue(stream, forKey: slot) {
                report.findings.append(
                    CheckFinding(
                        .loss, .extents, stream: stream,
                        "Shards \(other) and \(stream) both claim slot \(slot) of the store."))
            }
        }
    }

    private mutating func compareNames(
        _ disks: [(vdi: String, snapshots: [String])], _ stream: Int
    ) {
        // A daemon's shards do not write their checkpoints at one time: a name may have gone from one
        // shard to the other between them.
        let namesAreUnique = options.namesAreUnique && !options.isLive
        for (vdi, snapshots) in disks {
            if namesAreUnique, !names.insert(vdi).inserted {
                report.findings.append(
                    CheckFinding(
                        .repairable, .records, stream: stream,
                        "There are two VDIs with the name \(vdi)."))
            }
            var seen: Set<String> = []
            for name in snapshots where !seen.insert(name).inserted {
                report.findings.append(
                    CheckFinding(
                        .repairable, .records, stream: stream,
                        "VDI \(vdi) has two snapshots with the name \(name)."))
            }
        }
    }
}

extension Engine {
    /// Walks the stream and compares its books.
    func report(for check: StoreCheck, medium: some StoreMedium) -> CheckReport {
        let total = UInt64(forest.extents.liveTotal)
        let stream = configuration.stream
        let streamCount = Int(superblock.streamCount)
        let progress = check.progress
        var walk = TreeWalk(
            verifiesData: check.options.verifiesData && !check.options.isLive,
            lossesKept: check.options.lossesKept
        ) { done in
            progress(
                StoreCheck.Progress(
                    stream: stream, streamCount: streamCount, doneBlocks: done, totalBlocks: total))
        }
        walkTrees(&walk, medium: medium)
        notePages(&walk)
        compareBooks(&walk, medium: medium)
        var part = CheckReport()
        part.findings = (inspection?.findings ?? []) + walk.findings
        part.losses = (inspection?.losses ?? []) + walk.losses
        part.lossesLeftOut = walk.lossesLeftOut
        part.statistics.nodes = walk.liveNodes
        part.statistics.dataBlocks = walk.dataBlocks
        part.statistics.verifiedBlocks = walk.verifiedBlocks
        part.statistics.replayedChunks = counters.replayedChunks
        part.statistics.vdis = catalog.vdiCount
        for row in 0..<catalog.versions.count where catalog.isVisible(row) {
            part.statistics.snapshots += 1
        }
        return part
    }

    var slotNumbers: [UInt32] {
        (0..<forest.extents.count).map { forest.extents[$0].slot.rawValue }
    }

    /// The disks that people see, and the snapshots of each.
    var visibleNames: [(vdi: String, snapshots: [String])] {
        var disks: [(vdi: String, snapshots: [String])] = []
        for handle in 0..<catalog.count
        where catalog.vdis[handle].kind == .head && !catalog.vdis[handle].isDeleting {
            var snapshots: [String] = []
            var row = Int(catalog.vdis[handle].firstSnapshot)
            while row >= 0 {
                snapshots.append(catalog.versions.decodedDetails(row).name)
                row = Int(catalog.versions[row].nextInVDI)
            }
            disks.append((catalog.names[handle], snapshots))
        }
        return disks
    }
}
