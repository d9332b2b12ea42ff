// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@Suite struct ScenarioTests {
    /// A handful of whole scenarios; `parallax-sim --seeds` runs as many as one has time for.
    @Test("fixed seeds find nothing wrong", arguments: UInt64(1)...10)
    func fixedSeeds(seed: UInt64) {
        expectSuccess(seed, hasDamage: true)
    }

    /// Every seed that ever found a fault, with what it was.
    @Test(
        "seeds that once failed pass",
        arguments: [
            (31, "a FUA write was answered before a sync"),
            (33, "a partial write waiting for space held back the slots that would have given it"),
            (44, "parts that reached staging after a failure were never answered"),
            (58, "deletion had no room in a full store"),
            (74, "a write in flight filled blocks of a VDI that was being purged"),
            (72, "paths of waiting reads evicted each other for ever"),
            (439, "a checkpoint dropped the extent in which its replay begins"),
        ] as [(UInt64, String)])
    func regressions(seed: UInt64, fault: String) {
        expectSuccess(seed, hasVersions: false)
    }

    @Test(
        "seeds with versions that once failed pass",
        arguments: [
            (261, "holes of a shrinking disk took more frames than there were"),
            (344, "a template could not be made smaller, and the answer went to nobody"),
            (367, "blocks that a head had let go of were counted twice after a crash"),
            (456, "a node of a deleted version named an extent that was gone already"),
            (10066, "a deletion that met an unreadable node began again from its beginning"),
            (20388, "a damaged superblock copy was repaired after the good one was overwritten"),
            (20417, "after a failed checkpoint reads waited for the log's node for ever"),
            (122, "idle streams kept what they had leased in advance"),
            (462, "two streams that were short passed each other the same leases"),
            (594, "a discard of a hole was answered although the log had failed"),
            (708, "reads held back old slots while they waited for those who waited for space"),
            (84, "a block got another name while the cleaner moved it"),
            (161, "a slot was given back under the cleaner's read"),
            (62, "cleaning used up what deletions need"),
            (1161, "the census walked what is given back before those who share it"),
            (2874, "the census walked what is given back before those who share it"),
        ] as [(UInt64, String)])
    func versionRegressions(seed: UInt64, fault: String) {
        expectSuccess(seed)
    }

    @Test(
        "seeds with damage that once failed pass",
        arguments: [
            (1_000_006, "a rotten chunk ended a log that went on in other extents, unnoticed"),
            (1_000_376, "a bit that got lost while the log was read ended it"),
            (202, "one stream's reserves kept another from its own in a store of nine extents"),
            (2_001_136, "a refusal of long ago left the other streams no moment to return slots"),
            (3_000_147, "cleaning to a goal waited for ever for an extent to move to"),
            (2_000_331, "a slot that two streams claim after a lost root was taken for a fault"),
        ] as [(UInt64, String)])
    func damageRegressions(seed: UInt64, fault: String) {
        expectSuccess(seed, hasDamage: true, hasStraits: false)
    }

    @Test(
        "seeds with straits that once failed pass",
        arguments: [
            (20_082, "a torn chunk completed the one that an earlier crash had left in its place"),
            (
                11_000_744,
                "a log that ended too early went on behind an extent that was lost as a whole"
            ),
            (10_001_219, "a failed sync left a root that only the host's cache had"),
            (17_001_094, "a snapshot forgot what its head had freed for the version before"),
            (17_002_212, "a sync that failed for one stream told the others nothing"),
            (40_000_075, "a snapshot found its row taken in a replay from the older root"),
            (13_002_236, "an index block was named between its freeing and its writing"),
            (30_000_259, "a deleted clone was missed among the children while it was given back"),
            (
                100_020_017,
                "a deletion waited for a checkpoint that nobody thought worth its blocks"
            ),
            (100_033_733, "a chunk in the place of another's payload was no witness of its loss"),
            (121_000_758, "a superblock that only the host's cache had was believed"),
            (159_000_690, "cleaning for writes used up what deletions need"),
            (159_001_963, "cleaning for writes used up what the release of a hold needs"),
            (170_000_182, "a replay with few frames took the path of each change away again"),
            (
                230_002_436,
                "a cold extent in which everything had died was kept for the room it had left"
            ),
            (270_000_422, "a crash between two cold chunks took the last room to move to"),
            (300_002_716, "the same, in a crowded store"),
            (300_000_036, "a chunk that a device had put where no log is was taken for a witness"),
            (110_026_254, "cleaning by hand went on for ever when its writes had failed"),
            (110_012_586, "a write that had failed was taken to be behind a later one"),
            (110_000_562, "a wrong change was expected to be refused by an engine that had failed"),
        ] as [(UInt64, String)])
    func straitRegressions(seed: UInt64, fault: String) {
        expectSuccess(seed, hasDamage: true)
    }

    @Test("the same seed gives the same trace, another seed another one")
    func replays() {
        let first = run(5)
        let second = run(5)
        #expect(first.hash == second.hash)
        #expect(first.statistics.requests == second.statistics.requests)
        #expect(first.hash != run(6).hash)
    }

    @Test("leaving operations out changes no other operation's seed, and all of them is none out")
    func keeps() {
        var all = Scenario(seed: 3, operationCount: 40) { ShippingStore($0) }
        let whole = all.run()
        all.kept = Set(0..<40)
        #expect(all.run().hash == whole.hash)
        all.kept = []
        #expect(all.run().failure == nil)
    }

    private func run(_ seed: UInt64) -> Scenario.Result {
        Scenario(seed: seed, operationCount: 60) { ShippingStore($0) }.run()
    }

    private func expectSuccess(
        _ seed: UInt64, hasVersions: Bool = true, hasDamage: Bool = false, hasStraits: Bool = true
    ) {
        let scenario = Scenario(
            seed: seed, hasVersions: hasVersions, hasDamage: hasDamage, hasStraits: hasStraits
        ) { ShippingStore($0) }
        let result = scenario.run()
        let options =
            (hasVersions ? "" : " --no-versions") + (hasDamage ? "" : " --no-damage")
            + (hasStraits ? "" : " --no-straits")
        #expect(
            result.failure == nil,
            "\(result.failure?.message ?? ""); replay: parallax-sim --seed \(seed)\(options)")
    }
}

@Suite struct CanaryTests {
    /// Each fault, with what the check says that is there to find it.
    static let faults: [(CanaryStore.Fault, String)] = [
        (.skipsSyncs, ""), (.ignoresForceUnitAccess, ""), (.forgetsDiscards, ""),
        (.forgetsWrites, ""), (.misreads, ""), (.overruns, ""), (.loses, ""),
        (.acknowledgesEarly, ""), (.sharesSnapshots, "of snapshot"),
        (.confusesBranches, "returned write"), (.forgetsRollbacks, "returned write"),
        (.cutsApart, "not atomic"), (.freesShared, "zeros instead of write"),
        (.miscounts, "census"), (.keepsDeleted, "is back"),
    ]

    @Test("each fault put in on purpose is found", arguments: faults)
    func isFound(fault: CanaryStore.Fault, complaint: String) {
        let seed = (UInt64(1)...60).first { seed in
            let result = Scenario(seed: seed, operationCount: 150) {
                CanaryStore($0, fault: fault)
            }.run()
            guard let failure = result.failure else { return false }
            return complaint.isEmpty || failure.message.contains(complaint)
        }
        #expect(seed != nil, "\(fault) was not found")
    }

    @Test("every fault is in the list, but for the one that ends the program")
    func isComplete() {
        #expect(Set(Self.faults.map(\.0)).union([.traps]) == Set(CanaryStore.Fault.allCases))
    }

    @Test("a failing scenario is made smaller and still fails")
    func isMinimised() {
        var scenario = Scenario(seed: 1, operationCount: 80, hasDamage: false) { shape in
            CanaryStore(shape, fault: .misreads)
        }
        #expect(scenario.run().failure != nil)
        let minimal = Minimiser().minimise(Array(0..<80)) { kept in
            scenario.kept = kept
            return scenario.run().failure != nil
        }
        #expect(minimal.count < 20)
        scenario.kept = Set(minimal)
        #expect(scenario.run().failure != nil)
    }
}

@Suite struct CrashPointTests {
    @Test("after every device command a crash leaves what it must", arguments: [UInt64(11), 12])
    func everyCommand(seed: UInt64) throws {
        let points = CrashPoints(seed: seed)
        let count = try points.commandCount()
        #expect((30...600).contains(count))
        for stop in 0...count {
            let survival = Survival.allCases[stop % Survival.allCases.count]
            try points.check(stopAfter: stop, mode: .powerLoss, survival: survival)
            if stop % 3 == 0 {
                try points.check(stopAfter: stop, mode: .processLoss, survival: survival)
            }
        }
    }
}
