// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import ParallaxRetention
import Synchronization
import Testing

@Suite struct RetentionTests {
    private func policy(_ words: String...) throws -> RetentionPolicy {
        try RetentionPolicy.parse(options: words)
    }

    private func snapshot(
        _ daemon: TestDaemon, _ name: String, scheduled: Bool = true
    ) async throws {
        daemon.clock.advance(seconds: 60)
        let request = CreateSnapshotRequest(name: name, scheduled: scheduled ? true : nil)
        _ = try await daemon.client.call { try $0.createSnapshot(of: "d", request) }
    }

    /// A disk "d" with the policy "keep the last two", and the snapshots 1 to `count`.
    private func daemonWithSnapshots(_ count: Int) async throws -> TestDaemon {
        let daemon = try await TestDaemon()
        try await daemon.client.create(name: "d", sizeBytes: 1 << 20)
        let policy = try policy("--keep-last", "2")
        _ = try await daemon.client.call { try $0.setRetention(of: "d", policy) }
        for number in 1...count { try await snapshot(daemon, "\(number)") }
        return daemon
    }

    private func apply(
        _ daemon: TestDaemon, _ request: ApplyRetentionRequest = ApplyRetentionRequest()
    ) async throws -> RetentionReport {
        try await daemon.client.call { try $0.applyRetention(to: "d", request) }
    }

    private func names(_ daemon: TestDaemon) async throws -> [String] {
        try await daemon.client.call { try $0.snapshots(of: "d").snapshots.map(\.name) }
    }

    @Test("a policy is set, shown, kept across a restart, and cleared")
    func policies() async throws {
        let daemon = try await daemonWithSnapshots(1)
        let text = "--keep-last 2"
        let shown = try await daemon.client.call { try $0.retention(of: "d") }
        #expect(shown.options == text)
        let restarted = try await daemon.restarted()
        #expect(try await restarted.client.vdi("d").retention == text)
        #expect(try await restarted.client.vdis().map(\.retention) == [text])
        try await restarted.client.call { try $0.clearRetention(of: "d") }
        #expect(try await restarted.client.vdi("d").retention == nil)
        let none = await failure { _ = try await apply(restarted) }
        #expect(none?.kind == .notFound && none?.message.contains("no retention policy") == true)
        for body in ["", "{}", "[]", #"{"keep_last":0}"#, #"{"keep_lots":3}"#] {
            let answer = try await restarted.client.exchange(
                "PUT", "/v1/vdis/d/retention", Array(body.utf8))
            #expect(answer.startLine == .response(status: 400), "\(body)")
        }
        await restarted.stop()
    }

    @Test("what the policy does not keep goes, with why the others stay, and again nothing")
    func apply() async throws {
        let daemon = try await daemonWithSnapshots(4)
        let plan = try await apply(daemon, ApplyRetentionRequest(dryRun: true))
        #expect(plan.isDryRun && plan.deletedCount == 2 && plan.keptCount == 2)
        #expect(try await names(daemon).count == 4)
        let report = try await apply(daemon)
        #expect(report.decisions?.map(\.name) == ["4", "3", "2", "1"])
        #expect(report.decisions?.map(\.isKept) == [true, true, false, false])
        #expect(report.decisions?.first?.reasons == ["last 1 of 2", "newest"])
        #expect(try await names(daemon) == ["3", "4"])
        let again = try await apply(daemon, ApplyRetentionRequest(brief: true))
        #expect(again.deletedCount == 0 && again.keptCount == 2 && again.decisions == nil)
        await daemon.stop()
    }

    @Test("held, attached, hand-made and future snapshots stay, and the report says why")
    func protected() async throws {
        let daemon = try await daemonWithSnapshots(3)
        let client = daemon.client
        try await snapshot(daemon, "by hand", scheduled: false)
        _ = try await client.call { try $0.hold("d", "1", reason: "audit") }
        let version = try VersionName("d@2")
        _ = try await client.call { try $0.attach(version, AttachRequest(kind: .nbd)) }
        for name in ["4", "5"] { try await snapshot(daemon, name) }
        // The clock was wrong when "future" was made.
        daemon.clock.advance(seconds: 86_400)
        try await snapshot(daemon, "future")
        daemon.clock.advance(seconds: -86_400)
        try await snapshot(daemon, "6")
        let dry = try await apply(daemon, ApplyRetentionRequest(dryRun: true))
        let report = try await apply(daemon)
        #expect(report.decisions == dry.decisions)
        let reasons = Dictionary(
            uniqueKeysWithValues: (report.decisions ?? []).map { ($0.name, $0.reasons) })
        #expect(reasons["1"] == ["held: audit"] && reasons["2"] == ["attached"])
        #expect(reasons["by hand"] == ["made by hand"] && reasons["3"] == [])
        #expect(reasons["future"]?.first == "in the future" && report.futureCount == 1)
        #expect(report.deletedCount == 2)
        #expect(try await names(daemon) == ["1", "2", "by hand", "5", "future", "6"])
        await daemon.stop()
    }

    @Test("a policy that would delete everything is refused without force")
    func everything() async throws {
        let daemon = try await daemonWithSnapshots(3)
        let policy = try policy("--keep-within", "1h")
        _ = try await daemon.client.call { try $0.setRetention(of: "d", policy) }
        daemon.clock.advance(seconds: 86_400)
        let refused = await failure { _ = try await apply(daemon) }
        #expect(refused?.kind == .invalid && refused?.message.contains("--force") == true)
        #expect(try await names(daemon).count == 3)
        let forced = try await apply(daemon, ApplyRetentionRequest(force: true))
        #expect(forced.deletedCount == 2)
        #expect(try await names(daemon) == ["3"])
        await daemon.stop()
    }

    @Test("of many runs at once exactly one deletes each snapshot, while new ones are made")
    func runsAtOnce() async throws {
        let daemon = try await daemonWithSnapshots(300)
        var deleted = 0
        try await withThrowingTaskGroup(of: Int.self) { tasks in
            for number in 0..<8 {
                tasks.addTask {
                    let report = try await daemon.plane.applyRetention(
                        to: "d", ApplyRetentionRequest(brief: true))
                    let request = CreateSnapshotRequest(name: "hand \(number)")
                    _ = try await daemon.plane.createSnapshot(of: "d", request)
                    return report.deletedCount
                }
            }
            for try await count in tasks { deleted += count }
        }
        #expect(deleted == 298)
        #expect(try await names(daemon).count == 10)
        #expect(await daemon.overlaps() == 0)
        await daemon.stop()
    }

    @Test("a run follows a rename and ends with the VDI")
    func renamedMeanwhile() async throws {
        let daemon = try await daemonWithSnapshots(200)
        async let report = daemon.plane.applyRetention(to: "d", ApplyRetentionRequest(brief: true))
        _ = try await daemon.plane.change("d", ChangeVDIRequest(name: "e"))
        let done = try? await report
        let left = try await daemon.client.vdi("e").snapshotCount
        // Renamed before it began, it found no such VDI; else it went on to the end.
        #expect(done == nil ? left == 200 : left == 2 && done?.deletedCount == 198)
        await daemon.stop()
    }

    /// Does `body` while the first batch of a run is being deleted, which it waits behind.
    private func apply(
        _ daemon: TestDaemon,
        meanwhile body: @escaping @Sendable (ControlPlane) async throws -> Void
    ) async throws -> RetentionReport {
        let plane = daemon.plane
        for shard in daemon.shards {
            await shard.during("delete snapshot") {
                Task { try await body(plane) }
                try? await Task.sleep(for: .milliseconds(100))
            }
        }
        return try await apply(daemon)
    }

    @Test("after a rename the lock of the new name is held, so that a hold comes before or after")
    func renamedBetweenBatches() async throws {
        let daemon = try await daemonWithSnapshots(200)
        let plane = daemon.plane
        let version = try VersionName("e@100")
        let refusal = Mutex<Task<ControlError?, Never>?>(nil)
        // A rename waits behind the first batch; then a hold comes in the middle of the second.
        for shard in daemon.shards {
            await shard.during("delete snapshot") {
                await shard.during("rename") {
                    await shard.during("delete snapshot") {
                        let hold = Task {
                            await failure {
                                _ = try await plane.hold(version, HoldRequest(reason: "r"))
                            }
                        }
                        refusal.withLock { $0 = hold }
                        try? await Task.sleep(for: .milliseconds(100))
                    }
                }
                Task { try await plane.change("d", ChangeVDIRequest(name: "e")) }
                try? await Task.sleep(for: .milliseconds(100))
            }
        }
        let report = try await apply(daemon)
        #expect(report.vdi == "d" && report.deletedCount == 198)
        // It came after the batch, which had the snapshot.
        #expect(await refusal.withLock { $0 }?.value?.kind == .notFound)
        #expect(try await daemon.client.vdi("e").snapshotCount == 2)
        await daemon.stop()
    }

    @Test(
        "a run ends when the policy is taken away or changed", arguments: [nil, "--keep-last 90"])
    func policyChangedMeanwhile(options: String?) async throws {
        let daemon = try await daemonWithSnapshots(200)
        let next = try options.map { try RetentionPolicy.parse(line: $0) }
        let report = try await apply(daemon) { _ = try await $0.setRetention(of: "d", next) }
        #expect(report.deletedCount == 64 && report.keptCount == 136)
        #expect(report.decisions?.last?.reasons == ["the policy was changed meanwhile"])
        #expect(try await names(daemon).count == 136)
        await daemon.stop()
    }

    @Test("what gets another label while a run is under way stays")
    func labelledMeanwhile() async throws {
        let daemon = try await daemonWithSnapshots(200)
        let version = try VersionName("d@7")
        let report = try await apply(daemon) {
            _ = try await $0.change(version, ChangeSnapshotRequest(labels: ["keep": "yes"]))
        }
        #expect(report.deletedCount == 197)
        #expect(try await names(daemon) == ["7", "199", "200"])
        #expect(
            report.decisions?.first { $0.name == "7" }?.reasons == ["changed meanwhile"])
        await daemon.stop()
    }

    @Test("a run of cron after the clock jumped ahead deletes nothing by age")
    func newestAndAge() async throws {
        let daemon = try await daemonWithSnapshots(3)
        let policy = try policy("--keep-within", "1h")
        _ = try await daemon.client.call { try $0.setRetention(of: "d", policy) }
        daemon.clock.advance(seconds: 86_400)
        for name in ["4", "5"] {
            try await snapshot(daemon, name)
            let refused = await failure { _ = try await apply(daemon) }
            #expect(refused?.kind == .invalid && refused?.message.contains("--force") == true)
        }
        #expect(try await names(daemon).count == 5)
        await daemon.stop()
    }

    @Test("a policy is shown as it can be pasted, labels with spaces included")
    func quotedOptions() async throws {
        let daemon = try await TestDaemon(
            defaultPolicy: "--keep-labelled 'why=a b'  --label \"c d\"")
        let made = try await daemon.client.create(name: "d", sizeBytes: 1 << 20)
        #expect(made.retention == "--keep-labelled 'why=a b' --label 'c d'")
        let shown = try await daemon.client.call { try $0.retention(of: "d") }
        #expect(shown.options == made.retention)
        await daemon.stop()
    }

    @Test("new VDIs and clones begin with the default policy, or are not made")
    func defaults() async throws {
        let daemon = try await TestDaemon(defaultPolicy: "--keep-last 10 --hourly 24")
        let client = daemon.client
        let made = try await client.create(name: "a", sizeBytes: 1 << 20)
        #expect(made.retention == "--keep-last 10 --keep-hourly 24")
        _ = try await client.call {
            try $0.createSnapshot(of: "a", CreateSnapshotRequest(name: "s"))
        }
        #expect(try await client.call { try $0.clone(from: "a@s", to: "b") }.retention != nil)
        for shard in daemon.shards {
            await shard.failNext("attributes", with: ControlError(.noSpace, "full"))
        }
        let full = await failure { try await client.create(name: "c", sizeBytes: 1 << 20) }
        #expect(full?.kind == .noSpace)
        #expect(try await client.vdis().map(\.name) == ["a", "b"])
        let restarted = try await daemon.restarted()
        #expect(try await restarted.client.vdis().map(\.name) == ["a", "b"])
        await restarted.stop()
    }
}
