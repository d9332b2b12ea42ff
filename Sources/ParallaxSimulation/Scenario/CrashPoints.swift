// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One small workload, stopped after each of its device commands in turn: what is found then must
/// be right, and recovering twice must find the same as recovering once.
package struct CrashPoints {
    package let seed: UInt64
    private let profile: Profile
    private let operations: [Operation]

    package init(seed: UInt64, operationCount: Int = 24) {
        self.seed = seed
        var random = SeededRandom(seed: seed)
        var profile = Profile(character: .plain, random: &random)
        profile.shape.storeBytes = 24 << 20
        profile.shape.streamCount = 1
        profile.shape.checkpointLogBytes = 1 << 20
        profile.diskCount = 2
        profile.diskBytes = [1 << 20, 2 << 20]
        profile.weights.crashProcess = 0
        profile.weights.crashPower = 0
        profile.weights.restart = 0
        profile.weights.verify = 0
        profile.weights.checkpoint = 8
        profile.weights.create = 4
        profile.weights.delete = 4
        self.profile = profile
        operations = (0..<operationCount).map { _ in Operation.random(profile.weights, &random) }
    }

    /// Runs the workload to its end; returns how many device commands it takes.
    package func commandCount() throws(SimulationFailure) -> Int {
        let host = makeHost()
        try host.begin(profile)
        let before = host.device.commandCount
        try work(host)
        return host.device.commandCount - before
    }

    /// Stops after `count` device commands, and looks at what is left.
    package func check(
        stopAfter count: Int, mode: CrashMode, survival: Survival
    ) throws(SimulationFailure) {
        let host = makeHost()
        try host.begin(profile)
        host.device.commandsUntilStop = count
        do throws(SimulationFailure) {
            try work(host)
        } catch {
            guard error.isStop else { throw error }
        }
        host.crash(mode, survival: survival)
        _ = try host.reopen()
        host.crash(.processLoss, survival: .nothing)
        _ = try host.reopen()
        host.crash(.powerLoss, survival: .nothing)
        _ = try host.reopen()
        try host.verify()
    }

    private func makeHost() -> SimulatedHost {
        SimulatedHost(
            store: ShippingStore(profile.shape),
            device: SimulatedDevice(byteCount: profile.shape.storeBytes, seed: seed),
            streamCount: 1, queueDepth: profile.queueDepth, random: SeededRandom(seed: seed),
            tell: nil)
    }

    private func work(_ host: SimulatedHost) throws(SimulationFailure) {
        for (index, operation) in operations.enumerated() {
            _ = try host.perform(operation, index: index, profile)
        }
        try host.settle()
    }
}
