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
            try await requireScrubbing()
            let goesOn = scrub.map { !$0.isFinished } ?? false && request.restart != true
            var next =
                (goesOn ? scrub : nil)
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
            guard let record = scrub, record.isRunning else {
                throw ControlError(.invalid, "no scrub is running")
            }
            try await interrupt(record)
        }
    }

    private func interrupt(_ record: ScrubRecord) async throws {
        var record = record
        try await runtime.scrub(.stop)
        await followShards(&record)
        record.isRunning = false
        // Before it is kept: whoever waits must see the end also when it cannot be kept.
        scrub = record
        try scrubFile.save(record)
    }

    /// A shard that has failed takes no such order.
    private func requireScrubbing() async throws(ControlError) {
        if let failed = try await status().shards.first(where: { $0.readOnlyReason != nil }) {
            throw ControlError(
                .ioError, "the store cannot be scrubbed: \(Self.failure(of: failed))")
        }
    }

    private static func failure(of shard: ShardStatus) -> String {
        "shard \(shard.index) is read-only (\(shard.readOnlyReason ?? "")); mend the cause, "
            + "restart the daemon and scrub again"
    }

    private func begin(_ record: ScrubRecord, goesOn: Bool) async throws {
        scrub = record
        // Until they have begun, the shards tell of the scrub before.
        isScrubBeginning = true
        defer { isScrubBeginning = false }
        if !goesOn { try await runtime.scrub(.stop) }
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
        guard let shards = await followShards(&latest) else { return }
        // Somebody may have begun or stopped one meanwhile.
        guard scrub == record, !isScrubBeginning else { return }
        if latest.isFinished {
            latest.isRunning = false
            latest.finishedAtNanoseconds = now()
            report(latest.summary)
        } else if Self.obstacle(shards) != nil {
            return await pauseScrub()
        }
        guard latest != record else { return }
        scrub = latest
        do throws(ControlError) {
            try scrubFile.save(latest)
        } catch {
            log.warning("\(error.message)")
        }
    }

    /// Why a scrub that is not finished does not get any further.
    private static func obstacle(_ shards: [ShardStatus]) -> String? {
        let failed = shards.first {
            $0.readOnlyReason != nil && ($0.scrub.running || !$0.scrub.finished)
        }
        if let failed { return failure(of: failed) }
        return shards.contains(where: \.scrub.running) ? nil : "no shard goes on with it"
    }

    /// Nobody is to wait for a scrub that never ends.
    private func pauseScrub() async {
        do throws(ControlError) {
            try await changing(["/"]) {
                // What was seen may be over: orders were waited for.
                guard let record = scrub, record.isRunning else { return }
                var latest = record
                guard let shards = await followShards(&latest), !latest.isFinished,
                    let obstacle = Self.obstacle(shards)
                else { return }
                log.error("the scrub is interrupted: \(obstacle)")
                try await interrupt(record)
            }
        } catch {
            if error.kind != .stopping { log.warning("\(error.message)") }
        }
    }

    /// nil: the shards do not answer.
    @discardableResult
    private func followShards(_ record: inout ScrubRecord) async -> [ShardStatus]? {
        guard let shards = try? await status().shards else { return nil }
        for shard in shards where record.shards.indices.contains(shard.index) {
            // One that has failed may never have begun, and tells of the scrub before.
            guard shard.readOnlyReason == nil || record.shards[shard.index].running else {
                continue
            }
            // A shard that was not asked to do anything knows of nothing.
            if shard.scrub.running || shard.scrub.finished || shard.scrub.totalBytes > 0 {
                record.shards[shard.index] = shard.scrub
            }
        }
        return shards
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
