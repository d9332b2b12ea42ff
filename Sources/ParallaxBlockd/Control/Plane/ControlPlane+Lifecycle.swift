// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Learns the VDIs and reads the attachments file. Before it returns nothing else is called.
    package func load() async throws(ControlError) {
        let states = try await allVDIs()
        for (shard, state) in states where state.phase == .active { register(state, shard: shard) }
        for record in try file.load() {
            guard directory.values.contains(where: { $0.identifier == record.identifier }) else {
                // Only a file that was edited, or a store put back from a copy, leads here. Such
                // an attachment can never serve, so it must not keep the daemon from being ready.
                log.warning(
                    "forgot an attachment: the store has no such VDI",
                    metadata: ["vdi": "\(record.identifier.hexadecimal)"])
                continue
            }
            remembered[record.identifier] = record
            attachments[record.identifier] = Attachment(
                record: record, problem: "it has not been restored yet")
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
        directory[name] = Entry(
            identifier: state.identifier, name: name, shard: shard, sizeBytes: state.sizeBytes)
        population[shard] += 1
    }

    /// Serves every remembered attachment that does not serve. Those that fail are logged once for
    /// each new reason, and stay remembered.
    package func restoreAttachments() async {
        let entries = directory.values.filter { attachments[$0.identifier]?.problem != nil }
        for entry in entries.sorted(by: { $0.name < $1.name }) {
            await restore(entry.identifier, name: entry.name)
        }
        updateState()
    }

    private func restore(_ identifier: VDIIdentifier, name: String) async {
        do throws(ControlError) {
            try await changing([name]) {
                // It may have been detached, attached anew, or renamed while we waited.
                guard let entry = directory[name], entry.identifier == identifier,
                    let attachment = attachments[identifier], attachment.problem != nil
                else { return }
                try await serve(attachment.record, entry: entry)
                attachments[identifier]?.problem = nil
                log.info("attachment restored", metadata: ["vdi": "\(name)"])
            }
        } catch {
            guard error.kind != .stopping, let attachment = attachments[identifier] else { return }
            if attachment.problem != error.message {
                log.error(
                    "attachment not restored",
                    metadata: ["vdi": "\(name)", "reason": "\(error.message)"])
            }
            attachments[identifier]?.problem = error.message
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

    /// Refuses further changes, lets those under way finish, then stops the shards and closes the
    /// store. What is attached stays remembered.
    package func shutDown() async {
        guard state != .stopping else { return }
        state = .stopping
        onStateChange(.stopping, "stopping")
        await waitUntilIdle()
        await withTaskGroup(of: Void.self) { group in
            for shard in runtime.shards { group.addTask { await shard.shutdown() } }
        }
        await runtime.close()
    }

    /// Every VDI of every shard, asked at the same time.
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
                return result
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
