// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl

/// The scrub of the store: the shards read, each at its part of the rate; here is kept how far they
/// are, so that a restart of the daemon, wanted or not, costs no more than the extents under way.
extension ControlPlane {
    /// What a scrub may read when nobody says otherwise.
    static var defaultScrubRate: UInt64 { 16 << 20 }

    /// LIMIT: the rates that make sense; the least lets a store of a terabyte take half a year.
    private static var scrubRates: ClosedRange<UInt64> { 64 << 10...64 << 30 }

    package func scrubStore(_ request: ScrubStoreRequest) async throws(ControlError) {
        if let rate = request.rateBytesPerSecond, !Self.scrubRates.contains(rate) {
            throw ControlError(
                .invalid, "a scrub reads from 64K to 64G a second, not \(ByteSize.format(rate))")
        }
        try await changing(["/"]) {
            var record = scrub
            let goesOn = record.map { !$0.isFinished } ?? false && request.restart != true
            if !goesOn {
                try await runtime.scrub(.stop)
                record = nil
            }
            var next =
                record
                ?? ScrubRecord(
                    store: runtime.identity.uuid, rateBytesPerSecond: Self.defaultScrubRate,
                    startedAtNanoseconds: now(), isRunning: true,
                    shards: runtime.shards.map { _ in ScrubDescription() })
            if let rate = request.rateBytesPerSecond { next.rateBytesPerSecond = rate }
            next.isRunning = true
            next.finishedAtNanoseconds = nil
            try scrubFile.save(next)
            try await begin(next, goesOn: goesOn)
            log.info(
                "scrubbing",
                metadata: ["rate": "\(ByteSize.format(next.rateBytesPerSecond))/s"])
        }
    }

    package func stopScrub() async throws(ControlError) {
        try await changing(["/"]) {
            guard var record = scrub, record.isRunning else {
                throw ControlError(.invalid, "no scrub is running")
            }
            try await runtime.scrub(.stop)
            await followShards(&record)
            record.isRunning = false
            try scrubFile.save(record)
            scrub = record
        }
    }

    private func begin(_ record: ScrubRecord, goesOn: Bool) async throws {
        scrub = record
        // Until they have begun, the shards tell of the scrub before.
        isScrubBeginning = true
        defer { isScrubBeginning = false }
        try await runtime.scrub(
            .start(
                bytesPerSecond: record.rateBytesPerSecond, from: goesOn ? record.shards : nil))
    }

    /// At the start: what was running goes on.
    func resumeScrub() async {
        guard let record = scrubFile.load() else { return }
        // A store has as many shards as ever.
        guard record.shards.count == runtime.shards.count else { return }
        scrub = record
        guard record.isRunning else { return }
        do {
            try await begin(record, goesOn: true)
            log.info("the scrub goes on")
        } catch {
            log.error("the scrub does not go on", metadata: ["reason": "\(error)"])
        }
    }

    /// Looks how far the shards are, and keeps it.
    func watchScrub() async {
        guard let record = scrub, record.isRunning, !isScrubBeginning else { return }
        var latest = record
        await followShards(&latest)
        // Somebody may have begun or stopped one meanwhile.
        guard scrub == record, !isScrubBeginning, latest != record else { return }
        if latest.isFinished {
            latest.isRunning = false
            latest.finishedAtNanoseconds = now()
            report(latest.summary)
        }
        scrub = latest
        do throws(ControlError) {
            try scrubFile.save(latest)
        } catch {
            log.warning("\(error.message)")
        }
    }

    private func followShards(_ record: inout ScrubRecord) async {
        guard let status = try? await status() else { return }
        for shard in status.shards where record.shards.indices.contains(shard.index) {
            // A shard that was not asked to do anything knows of nothing.
            if shard.scrub.running || shard.scrub.finished || shard.scrub.totalBytes > 0 {
                record.shards[shard.index] = shard.scrub
            }
        }
    }

    private func report(_ summary: ScrubSummary) {
        let verified = ByteSize.format(summary.verifiedBytes)
        if summary.damagedBlocks == 0 {
            log.info("the scrub is finished: \(verified) verified, nothing is damaged")
        } else {
            log.error(
                """
                the scrub is finished: \(verified) verified, \(summary.damagedBlocks) blocks are \
                damaged, see above; `parallax-ctl store check` lists all that they belong to
                """)
        }
    }
}

/// What the control plane asks of the shards together.
package enum ScrubOrder: Sendable {
    /// `from`: what each shard said when it was interrupted; those that had finished have nothing to
    /// do.
    case start(bytesPerSecond: UInt64, from: [ScrubDescription]?)
    case stop
}
