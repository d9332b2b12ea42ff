// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxXenSimulation
import Testing

/// The life of a Xen disk by seed; more seeds with `parallax-sim xen`.
@Suite("blkif scenarios")
struct BlkifScenarioTests {
    @Test("a disk holds what its guest wrote, whatever happens to its device", arguments: 1...30)
    func scenarios(seed: UInt64) {
        let result = BlkifScenario(seed: seed).run()
        #expect(result.failure == nil, "seed \(seed) at \(result.failedAt ?? 0)")
        #expect(result.statistics.answers > 100)
    }

    @Test("the same seed is the same run")
    func replay() {
        let first = BlkifScenario(seed: 4).run()
        let second = BlkifScenario(seed: 4).run()
        #expect(first.hash == second.hash)
        #expect(first.hash != BlkifScenario(seed: 5).run().hash)
    }

    @Test("what is wrong on purpose is found", arguments: BlkifCanary.allCases)
    func canaries(canary: BlkifCanary) {
        let isFound = (1...10).contains { seed in
            var scenario = BlkifScenario(seed: UInt64(seed))
            scenario.canary = canary
            return scenario.run().failure != nil
        }
        #expect(isFound, "\(canary.rawValue)")
    }
}
