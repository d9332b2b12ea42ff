// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One seed: a world, a list of operations, a verdict.
///
/// The same seed gives the same events in the same order (`Result.hash`) on every machine.
package struct Scenario {
    package let seed: UInt64
    package let operationCount: Int
    /// The operations to carry out, by index; nil for all. Others are left out.
    package var kept: Set<Int>?
    /// Is told what happens, line by line.
    package var tell: ((String) -> Void)?
    package let profile: Profile
    private let operations: [Operation]
    private let makeStore: (StoreShape) -> any StoreUnderTest

    package static let defaultOperationCount = 250

    package struct Result {
        package var failure: SimulationFailure?
        /// The index of the operation that failed; `operationCount` for the final checks.
        package var failedAt: Int?
        package var hash: UInt64
        package var statistics: SimulatedHost.Statistics
        package var device: SimulatedDevice.Statistics
    }

    package init(
        seed: UInt64, operationCount: Int = Self.defaultOperationCount, hasVersions: Bool = true,
        hasDamage: Bool = true, hasStraits: Bool = true,
        store: @escaping (StoreShape) -> any StoreUnderTest
    ) {
        self.seed = seed
        self.operationCount = operationCount
        makeStore = store
        var random = SeededRandom(seed: seed)
        var profile = Profile(random: &random, hasVersions: hasVersions)
        if hasDamage {
            var damage = SeededRandom(seed: SeededRandom.mix(seed ^ 0xDA3A_6E00))
            profile.specialiseDamage(&damage)
            var crashes = SeededRandom(seed: SeededRandom.mix(seed ^ 0xF1A9_9E00))
            profile.specialiseCrashes(&crashes)
        }
        if hasDamage && hasStraits {
            var straits = SeededRandom(seed: SeededRandom.mix(seed ^ 0x57A1_7500))
            if !profile.specialiseStraits(&straits) {
                var crowds = SeededRandom(seed: SeededRandom.mix(seed ^ 0xC40D_5000))
                profile.specialiseCrowds(&crowds)
            }
            var chores = SeededRandom(seed: SeededRandom.mix(seed ^ 0xC408_E500))
            profile.addChores(&chores)
        }
        self.profile = profile
        let world = profile
        operations = (0..<operationCount).map { _ in
            world.versionPercent > 0 && random.chance(percent: world.versionPercent)
                ? Operation.random(world.versions, &random)
                : Operation.random(world.weights, &random)
        }
    }

    package func run() -> Result {
        let store = makeStore(profile.shape)
        let device = SimulatedDevice(byteCount: profile.shape.storeBytes, seed: seed)
        let host = SimulatedHost(
            store: store, device: device, streamCount: profile.shape.streamCount,
            queueDepth: profile.queueDepth, random: SeededRandom(seed: seed &+ 1),
            tell: tell)
        var failure: SimulationFailure?
        var failedAt: Int?
        var index = -1
        do throws(SimulationFailure) {
            try host.begin(profile)
            index = 0
            while index < operations.count {
                if kept?.contains(index) ?? true {
                    let goesOn = try host.perform(operations[index], index: index, profile)
                    if !goesOn { break }
                }
                index += 1
            }
            if index == operations.count { try host.finish(profile) }
        } catch {
            failure = error
            failedAt = index
        }
        return Result(
            failure: failure, failedAt: failedAt, hash: host.trace.hash,
            statistics: host.statistics, device: device.statistics)
    }
}
