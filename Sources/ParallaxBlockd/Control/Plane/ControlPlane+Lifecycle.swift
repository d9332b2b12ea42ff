// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Learns the VDIs and reads the attachments file. Before it returns nothing else is called.
    package func load() async throws(ControlError) {
        for (shard, state) in try await allVDIs() where state.phase == .active {
            register(state, shard: shard)
        }
        await resumeScrub()
        let records = try file.load()
        let wanted = Set(records.compactMap(\.snapshot))
        let snapshotNames = try await loadSnapshots(namesOf: wanted)
        for record in records {
            let snapshotName = record.snapshot.flatMap { snapshotNames[$0] }
            guard names[record.identifier] != nil,
                record.snapshot == nil || snapshotName != nil
            else {
                // Only a file that was edited, or a store put back from a copy, leads here. Such
                // an attachment can never serve, so it must not keep the daemon from being ready.
                log.warning(
                    "forgot an attachment: the store has no such VDI or snapshot",
                    metadata: ["vdi": "\(record.identifier.hexadecimal)"])
                continue
            }
            remembered[record.version] = record
            attachments[record.version] = Attachment(
                record: record, snapshotName: snapshotName,
                problem: record.isXenNode ? Self.unseenNode : "it has not been restored yet")
        }
        if remembered.count < records.count { dropForgotten() }
    }

    /// In the file, too: a new VDI may get the identifier of one that is no more (I3).
    private func dropForgotten() {
        do throws(ControlError) {
            try file.save(Array(remembered.values))
        } catch {
            log.warning("a forgotten attachment is still in the file: \(error.message)")
        }
    }

    /// Puts a VDI into the directory. Two VDIs of one name can only come from a damaged store; the
    /// second is then shown under a name that tells them apart, so that both can be used.
    private func register(_ state: VDIState, shard: Int) {
        var name = state.name
        if directory[name] != nil {
            name += "~\(state.identifier.hexadecimal)"
            log.error(
                "two VDIs have the same name; rename one",
                metadata: ["name": "\(state.name)", "shown_as": "\(name)"])
        }
        put(
            Entry(
                identifier: state.identifier, name: name, shard: shard,
                sizeBytes: state.sizeBytes, attributes: state.attributes))
        population[shard] += 1
    }

    /// Serves every remembered attachment that does not serve. Those that fail are logged once for
    /// each new reason, and stay remembered. The shared NBD socket answers nobody before its exports have
    /// been tried: a client that asks for one that does not exist gives up, while one that is not
    /// answered waits.
    package func restoreAttachments() async {
        await restore { $0.kind == .nbd }
        // Nobody is told that an export is missing because its turn did not come.
        guard state != .stopping else { return }
        if !servesSharedNBD {
            servesSharedNBD = true
            runtime.serveSharedNBD()
        }
        await restore { $0.kind != .nbd }
        updateState()
    }

    /// But not those of the tool stack's nodes: what is at their place is for the node to say.
    func restore(where isWanted: (AttachmentRecord) -> Bool) async {
        let missing = attachments.values
            .filter { $0.problem != nil && !$0.record.isXenNode && isWanted($0.record) }
            .compactMap { attachment in
                names[attachment.record.identifier].map {
                    (
                        name: VersionName(vdi: $0, snapshot: attachment.snapshotName),
                        version: attachment.record.version
                    )
                }
            }
        for (name, version) in missing.sorted(by: { $0.name.description < $1.name.description }) {
            await restore(version, name: name)
        }
    }

    private func restore(_ version: VersionReference, name: VersionName) async {
        do throws(ControlError) {
            try await changing([name.vdi]) {
                // It may have been detached, attached anew, or renamed while we waited.
                guard let attachment = attachments[version], attachment.problem != nil,
                    let entry = directory[name.vdi],
                    entry.identifier == attachment.record.identifier
                else { return }
                try await serve(attachment.record, entry: entry)
                attachments[version]?.problem = nil
                log.info("attachment restored", metadata: ["vdi": "\(name)"])
            }
        } catch {
            guard error.kind != .stopping, let attachment = attachments[version] else { return }
            if attachment.problem != error.message {
                log.error(
                    "attachment not restored",
                    metadata: ["vdi": "\(name)", "reason": "\(error.message)"])
            }
            attachments[version]?.problem = error.message
        }
    }

    /// Works out whether every remembered attachment serves, and tells.
    func updateState() {
        guard state != .stopping else { return }
        let serving = attachments.values.count { $0.problem == nil }
        let next: DaemonState = serving == attachments.count ? .ready : .degraded
        if next != state { log.info("state changed", metadata: ["state": "\(next.rawValue)"]) }
        state = next
        onStateChange(next, "\(serving) of \(attachments.count) attachments serve")
    }

    /// LIMIT: what the control plane may add to the time of an exit. What is under way is a write
    /// or two to the store, which take milliseconds; a store that answers nothing, or a guest that
    /// does not let go, must not hold up a host that goes down.
    package static var stopLimit: Duration { .seconds(1) }

    /// Refuses further changes; what goes on in steps (a retention run, a diff, a group that is
    /// tried again) ends after the step under way.
    package func beginStopping() {
        guard state != .stopping else { return }
        state = .stopping
        onStateChange(.stopping, "stopping")
    }

    /// Lets the changes under way finish, for as long as there is until `deadline`; then stops the
    /// shards, which finish what was asked of them, and closes the store. What is attached stays
    /// remembered.
    package func shutDown(
        until deadline: ContinuousClock.Instant = .now + ControlPlane.stopLimit
    ) async {
        beginStopping()
        guard !hasShutDown else { return }
        hasShutDown = true
        if await !waitUntilIdle(until: deadline) {
            log.warning("stopping before the end of a change; it is made, or not, as in a crash")
        }
        await withTaskGroup(of: Void.self) { group in
            for shard in runtime.shards { group.addTask { await shard.shutdown() } }
        }
        await runtime.close()
    }

    /// Every VDI of every shard, asked at the same time. In the same order at every start: of two
    /// with one name the first has it.
    func allVDIs() async throws(ControlError) -> [(shard: Int, state: VDIState)] {
        try requireRunning()
        let shards = runtime.shards
        return try await translatingErrors {
            try await withThrowingTaskGroup(of: (Int, [VDIState]).self) { group in
                for (position, shard) in shards.enumerated() {
                    group.addTask { (position, try await shard.vdis()) }
                }
                var result: [(shard: Int, state: VDIState)] = []
                for try await (position, states) in group {
                    result += states.map { (position, $0) }
                }
                return result.sorted {
                    ($0.shard, $0.state.identifier.rawValue)
                        < ($1.shard, $1.state.identifier.rawValue)
                }
            }
        }
    }

    /// Runs `body`, which fails with a `ControlError` unless something is wrong with the daemon.
    nonisolated func translatingErrors<Result: Sendable>(
        _ body: @Sendable () async throws -> Result
    ) async throws(ControlError) -> Result {
        do {
            return try await body()
        } catch let error as ControlError {
            throw error
        } catch {
            throw ControlError(.internalError, "the daemon met an unexpected error: \(error)")
        }
    }
}
