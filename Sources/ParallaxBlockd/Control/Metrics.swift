// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl

/// The daemon's state as Prometheus text (exposition format 0.0.4).
enum Metrics {
    static func text(
        status: DaemonStatus, vdis: [VDIDescription], counters: ControlPlane.Counters
    ) -> String {
        var page = Page()
        page.gauge(
            "parallax_build_info", "Always 1; the labels say what runs.",
            [([("version", status.version), ("engine", status.engine)], 1)])
        page.gauge(
            "parallax_ready", "1 when every remembered attachment serves.",
            [([], status.state == .ready ? 1 : 0)])
        page.gauge(
            "parallax_attachments", "Remembered attachments.",
            [([], UInt64(status.attachmentCount))])
        page.gauge(
            "parallax_attachments_missing", "Remembered attachments that do not serve.",
            [([], UInt64(status.missing.count))])
        addStore(status.store, to: &page)
        addVDIs(vdis, to: &page)
        page.gauge(
            "parallax_snapshots", "Snapshots of all VDIs.", [([], UInt64(status.snapshotCount))])
        addVersions(counters, to: &page)
        addShards(status.shards, to: &page)
        return page.text
    }

    private static func addStore(_ store: StoreStatus, to page: inout Page) {
        page.gauge("parallax_store_size_bytes", "Size of the store.", [([], store.sizeBytes)])
        page.gauge(
            "parallax_store_used_bytes", "Bytes of extents in use.", [([], store.usedBytes)])
        page.gauge(
            "parallax_store_free_bytes", "Bytes of extents that are free.", [([], store.freeBytes)])
        page.gauge(
            "parallax_store_full_percent", "Live and reserved, of all extents.",
            [([], store.fullPercent)])
        guard let host = store.host else { return }
        page.gauge(
            "parallax_store_file_allocated_bytes", "What the store's file takes.",
            [([], host.allocatedBytes)])
        page.counter(
            "parallax_store_file_punched_bytes_total", "Bytes that its file system got back.",
            [([], host.punchedBytes)])
        page.gauge(
            "parallax_store_file_failing", "1 while extents cannot be allocated in it.",
            [([], host.problem == nil ? 0 : 1)])
    }

    private static func addVDIs(_ vdis: [VDIDescription], to page: inout Page) {
        page.gauge(
            "parallax_vdi_size_bytes", "Size that the guest sees.",
            vdis.map { ([("vdi", $0.name)], $0.sizeBytes) })
        page.gauge(
            "parallax_vdi_allocated_bytes", "What the VDI's blocks take in the store.",
            vdis.map { ([("vdi", $0.name)], $0.allocatedBytes) })
        page.gauge(
            "parallax_vdi_snapshots", "Snapshots of the VDI.",
            vdis.map { ([("vdi", $0.name)], UInt64($0.snapshotCount)) })
        page.gauge(
            "parallax_vdi_attached", "1 when the VDI is attached and serves.",
            vdis.map { ([("vdi", $0.name)], $0.attachment?.serving == true ? 1 : 0) })
    }

    private static func addVersions(_ counters: ControlPlane.Counters, to page: inout Page) {
        page.counter(
            "parallax_snapshots_made_total", "Snapshots made.", [([], counters.snapshotsMade)])
        page.counter(
            "parallax_snapshots_deleted_total", "Snapshots deleted, those of deleted VDIs too.",
            [([], counters.snapshotsDeleted)])
        page.counter("parallax_clones_made_total", "Clones made.", [([], counters.clonesMade)])
        page.counter("parallax_rollbacks_total", "Rollbacks.", [([], counters.rollbacks)])
        page.counter(
            "parallax_groups_made_total", "Group snapshots made.", [([], counters.groupsMade)])
        page.counter(
            "parallax_groups_failed_total", "Group snapshots that were taken back.",
            [([], counters.groupsFailed)])
    }

    private static func addShards(_ shards: [ShardDescription], to page: inout Page) {
        for (name, help, value) in shardCounters {
            page.counter(
                name, help, shards.map { ([("shard", String($0.index))], $0[keyPath: value]) })
        }
        for (name, help, value) in shardGauges {
            page.gauge(
                name, help, shards.map { ([("shard", String($0.index))], $0[keyPath: value]) })
        }
    }

    private typealias ShardMetric = (
        name: String, help: String, value: KeyPath<ShardDescription, UInt64>
    )

    private static var shardCounters: [ShardMetric] {
        [
            ("parallax_reads_total", "Read requests.", \.reads),
            ("parallax_read_bytes_total", "Bytes read by guests.", \.readBytes),
            ("parallax_writes_total", "Write requests.", \.writes),
            ("parallax_written_bytes_total", "Bytes written by guests.", \.writtenBytes),
            ("parallax_flushes_total", "Flush requests.", \.flushes),
            ("parallax_discards_total", "Discard and write-zeroes requests.", \.discards),
            ("parallax_device_errors_total", "Store accesses that failed.", \.deviceErrors),
            (
                "parallax_checksum_errors_total", "Blocks that failed their checksum.",
                \.checksumErrors
            ),
            ("parallax_log_bytes_total", "Bytes that went to the log.", \.space.logBytes),
            (
                "parallax_no_space_total", "Requests refused for want of space.",
                \.space.refusedRequests
            ),
            (
                "parallax_quota_refused_total", "Of those, requests that a quota refused.",
                \.space.quotaRefusedRequests
            ),
            (
                "parallax_nodes_passed_over_total", "Nodes of deletions that could not be read.",
                \.space.nodesPassedOver
            ),
            (
                "parallax_cleaned_extents_total", "Extents that the cleaner has emptied.",
                \.cleaner.cleanedExtents
            ),
            (
                "parallax_cleaner_moved_bytes_total", "Live bytes that it has moved.",
                \.cleaner.movedBytes
            ),
            ("parallax_cleaner_read_bytes_total", "Bytes that it has read.", \.cleaner.readBytes),
            (
                "parallax_cleaner_written_bytes_total", "Bytes that it has written.",
                \.cleaner.writtenBytes
            ),
            (
                "parallax_cleaner_damaged_blocks_total", "Blocks that it could not move.",
                \.cleaner.damagedBlocks
            ),
            ("parallax_scrub_read_bytes_total", "Bytes that scrubs have read.", \.scrub.readBytes),
            (
                "parallax_scrub_damaged_blocks_total", "Damaged blocks that scrubs have found.",
                \.scrub.damagedBlocksEver
            ),
        ]
    }

    private static var shardGauges: [ShardMetric] {
        [
            ("parallax_log_lsn", "Newest chunk of the log.", \.lsn),
            ("parallax_checkpoint_lsn", "Newest chunk that a checkpoint covers.", \.checkpointLSN),
            ("parallax_extents_used", "Extents in use.", \.extentsUsed),
            ("parallax_extents_free", "Extents that are free.", \.extentsFree),
            ("parallax_cache_bytes", "Memory that the caches hold.", \.cacheBytes),
            ("parallax_cache_limit_bytes", "Memory that the caches may hold.", \.cacheLimitBytes),
            ("parallax_live_bytes", "Blocks that something refers to.", \.space.liveBytes),
            ("parallax_dead_bytes", "Garbage in extents in use.", \.space.deadBytes),
            ("parallax_reserved_bytes", "Kept free for deletions.", \.space.reservedBytes),
            (
                "parallax_reclaims_waiting", "Deleted snapshots and VDIs to be given back.",
                \.space.reclaimsWaiting
            ),
            ("parallax_reclaiming", "1 while one is given back.", \.reclaimingCount),
            (
                "parallax_shard_read_only", "1 when nothing is written any more, for that failed.",
                \.readOnlyCount
            ),
            ("parallax_cleaning", "1 while the cleaner works.", \.cleaningCount),
            ("parallax_scrubbing", "1 while a scrub reads.", \.scrubbingCount),
            (
                "parallax_cleaner_urgent", "1 while writes wait for the cleaner.",
                \.cleanerUrgentCount
            ),
            (
                "parallax_cleaner_broken", "1 when it rests because its I/O failed.",
                \.cleanerBrokenCount
            ),
            (
                "parallax_forwarded_blocks", "Blocks known by another address than their place.",
                \.cleaner.forwardedBlocks
            ),
        ]
    }

    /// Builds the text: all samples of a metric together, after its help and type.
    private struct Page {
        typealias Sample = (labels: [(String, String)], value: UInt64)

        var text = ""

        mutating func gauge(_ name: String, _ help: String, _ samples: [Sample]) {
            add("gauge", name, help, samples)
        }

        mutating func counter(_ name: String, _ help: String, _ samples: [Sample]) {
            add("counter", name, help, samples)
        }

        private mutating func add(
            _ type: String, _ name: String, _ help: String, _ samples: [Sample]
        ) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
            for (labels, value) in samples {
                let list = labels.map { "\($0.0)=\"\(Self.escape($0.1))\"" }.joined(separator: ",")
                text += list.isEmpty ? "\(name) \(value)\n" : "\(name){\(list)} \(value)\n"
            }
        }

        private static func escape(_ value: String) -> String {
            var result = ""
            for scalar in value.unicodeScalars {
                switch scalar {
                case "\\": result += "\\\\"
                case "\"": result += "\\\""
                case "\n": result += "\\n"
                default: result.unicodeScalars.append(scalar)
                }
            }
            return result
        }
    }
}

extension ShardDescription {
    fileprivate var reclaimingCount: UInt64 { space.reclaiming ? 1 : 0 }
    fileprivate var scrubbingCount: UInt64 { scrub.running ? 1 : 0 }
    fileprivate var cleaningCount: UInt64 { cleaner.active ? 1 : 0 }
    fileprivate var cleanerUrgentCount: UInt64 { cleaner.urgent ? 1 : 0 }
    fileprivate var readOnlyCount: UInt64 { readOnlyReason == nil ? 0 : 1 }
    fileprivate var cleanerBrokenCount: UInt64 { cleaner.broken ? 1 : 0 }
}
