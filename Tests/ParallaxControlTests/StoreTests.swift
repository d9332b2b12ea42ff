// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import Synchronization
import Testing

@testable import ParallaxBlockd
@testable import parallax_ctl

/// What the control plane says of the store as a whole.
@Suite struct StoreTests {
    @Test("a growth is answered with both sizes, and the status has the new one from then on")
    func growth() async throws {
        let daemon = try await TestDaemon()
        let first = try await daemon.plane.growStore(GrowStoreRequest(sizeBytes: 3 << 29))
        #expect(first.previousSizeBytes == 1 << 30)
        #expect(first.sizeBytes == 3 << 29)
        #expect(first.extentsAdded == 8)
        let second = try await daemon.plane.growStore(GrowStoreRequest(sizeBytes: nil))
        #expect(second.previousSizeBytes == 3 << 29)
        #expect(second.extentCount == 32)
        let store = try await daemon.plane.status().store
        #expect(store.sizeBytes == 2 << 30)
        #expect(store.extentCount == 32)
        await daemon.stop()
        let error = await failure {
            _ = try await daemon.plane.growStore(GrowStoreRequest(sizeBytes: nil))
        }
        #expect(error?.kind == .stopping)
    }

    @Test("status and metrics say how the space is used, and what waits to be given back")
    func space() async throws {
        let daemon = try await TestDaemon()
        var space = SpaceDescription()
        space.liveBytes = 300 << 20
        space.deadBytes = 40 << 20
        space.reservedBytes = 20 << 20
        space.reclaiming = true
        space.reclaimsWaiting = 3
        space.nodesPassedOver = 2
        space.refusedRequests = 5
        space.quotaRefusedRequests = 4
        await daemon.shards[0].set(space)
        await daemon.shards[1].set(space)
        let status = try await daemon.client.status()
        #expect(status.store.liveBytes == 600 << 20)
        #expect(status.store.deadBytes == 80 << 20)
        #expect(status.store.reservedBytes == 40 << 20)
        #expect(status.store.fullPercent == 62)
        #expect(status.shards[1].space == space)
        let answer = try await daemon.client.exchange("GET", "/metrics", [])
        let metrics = String(decoding: answer.body, as: UTF8.self)
        for line in [
            "parallax_store_full_percent 62", #"parallax_reclaims_waiting{shard="0"} 3"#,
            #"parallax_reclaiming{shard="1"} 1"#, #"parallax_no_space_total{shard="0"} 5"#,
            #"parallax_nodes_passed_over_total{shard="0"} 2"#,
            #"parallax_quota_refused_total{shard="1"} 4"#,
            #"parallax_live_bytes{shard="0"} 314572800"#,
        ] {
            #expect(metrics.contains(line + "\n"), "\(line)")
        }
        await daemon.stop()
    }

    @Test("a cleaning begins with its goal, and the metrics tell of the cleaner")
    func cleaning() async throws {
        let goals = Mutex<[UInt64?]>([])
        var runtime = TestDaemon.runtime([FakeShard(index: 0)])
        runtime.clean = { percent in goals.withLock { $0.append(percent) } }
        let directory = try TemporaryDirectory()
        let plane = ControlPlane(
            runtime: runtime, configuration: try TestDaemon.configuration(in: directory),
            log: .silent)
        try await plane.load()
        try await plane.cleanStore(CleanStoreRequest(untilPercent: 20))
        try await plane.cleanStore(CleanStoreRequest(untilPercent: nil))
        #expect(goals.withLock { $0 } == [20, nil])
        let metrics = Metrics.text(
            status: try await plane.status(), vdis: [], counters: await plane.counters)
        #expect(metrics.contains(#"parallax_cleaning{shard="0"} 0"#))
        #expect(metrics.contains(#"parallax_cleaner_moved_bytes_total{shard="0"} 0"#))
        await plane.shutDown()
    }

    @Test("a shard that writes no more says so, and why, wherever one would look")
    func readOnlyShard() async throws {
        let daemon = try await TestDaemon()
        var status = try await daemon.plane.status()
        let metric = { (value: Int) in "parallax_shard_read_only{shard=\"1\"} \(value)\n" }
        let counters = await daemon.plane.counters
        let text = { (status: DaemonStatus) in
            Metrics.text(status: status, vdis: [], counters: counters)
        }
        #expect(text(status).contains(metric(0)))
        #expect(!Descriptions.status(status).contains("read-only"))
        status.shards[1].readOnlyReason = "Flushing failed."
        #expect(text(status).contains(metric(1)))
        #expect(Descriptions.status(status).contains("shard 1 is read-only: Flushing failed.\n"))
        let body = String(decoding: ControlJSON.encode(status), as: UTF8.self)
        #expect(body.contains(#""read_only_reason":"Flushing failed.""#), "\(body)")
        await daemon.stop()
    }

    @Test("a scrub that begins anew is not over because the one before is")
    func scrubBegins() async throws {
        let shard = FakeShard(index: 0)
        var before = ScrubDescription()
        before.finished = true
        before.totalBytes = 4096
        await shard.set(before)
        let planes = Mutex<[ControlPlane]>([])
        var runtime = TestDaemon.runtime([shard])
        runtime.scrub = { order in
            guard case .start = order else { return }
            for plane in planes.withLock({ $0 }) { await plane.watchScrub() }
        }
        let directory = try TemporaryDirectory()
        let plane = ControlPlane(
            runtime: runtime, configuration: try TestDaemon.configuration(in: directory),
            log: .silent)
        planes.withLock { $0 = [plane] }
        try await plane.load()
        try await plane.scrubStore(ScrubStoreRequest(rateBytesPerSecond: nil, restart: true))
        #expect(try await plane.status().scrub?.state == .running)
        await plane.watchScrub()
        #expect(try await plane.status().scrub?.state == .finished)
        planes.withLock { $0 = [] }
        await plane.shutDown()
    }

    private func store(percent: UInt64, problem: String? = nil) -> StoreStatus {
        StoreStatus(
            path: "s", uuid: "u", sizeBytes: 100 << 20, usedBytes: 0, freeBytes: 0,
            extentBytes: 1 << 20, extentCount: 100, extentsUsed: 0, extentsFree: 0,
            liveBytes: percent << 20, deadBytes: 0, reservedBytes: 0,
            host: HostSpace(allocatedBytes: 0, punchedBytes: 0, problem: problem))
    }

    @Test("each level is told of once on the way up and once on the way down")
    func levels() {
        var watch = SpaceWatch()
        var told: [SpaceWatch.Notice] = []
        for percent: UInt64 in [10, 79, 80, 79, 78, 80, 91, 89, 88, 96, 100, 93, 92, 91, 50, 85] {
            told += watch.look(at: store(percent: percent), refused: 0, overQuota: 0)
        }
        #expect(
            told == [
                .reached(80), .reached(90), .reached(95), .left(95), .left(90), .reached(80),
            ])
    }

    @Test("refused writes are told of when they begin, and again after a quiet minute")
    func refusals() {
        var watch = SpaceWatch()
        var told: [Int] = []
        var total: UInt64 = 0
        for look in 0..<40 {
            if [3, 4, 10, 35].contains(look) { total += 7 }
            if watch.look(at: store(percent: 0), refused: total, overQuota: 0) == [.refusing] {
                told.append(look)
            }
        }
        #expect(told == [3, 35])
    }

    @Test("what a quota refuses is told of by itself")
    func quotaRefusals() {
        var watch = SpaceWatch()
        let told = [(0, 0), (5, 5), (9, 5), (12, 8)].map {
            watch.look(at: store(percent: 0), refused: $0.0, overQuota: $0.1)
        }
        #expect(told == [[], [.refusingByQuota], [.refusing], []])
    }

    @Test("a file system that has no space is told of, and its end too")
    func host() {
        var watch = SpaceWatch()
        let told = [nil, "full", "full", nil, nil].map {
            watch.look(at: store(percent: 0, problem: $0), refused: 0, overQuota: 0)
        }
        #expect(told == [[], [.host("full")], [], [.host(nil)], []])
    }
}
