// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxGuest

/// Decides which block is next, and what happens to it.
struct RequestSource {
    private let plan: Plan
    private var random: RandomSource
    private var nextBlock: UInt64 = 0
    private let zipf: ZipfDistribution?

    init(_ plan: Plan) {
        self.plan = plan
        random = RandomSource(seed: plan.seed)
        zipf = plan.zipf.map { ZipfDistribution(count: plan.blockCount, theta: $0) }
    }

    mutating func next() -> (block: UInt64, isWrite: Bool) {
        guard plan.workload.isRandom else {
            let block = nextBlock
            nextBlock = block + 1 == plan.blockCount ? 0 : block + 1
            return (block, plan.workload == .write)
        }
        let block = zipf?.next(&random) ?? random.next(below: plan.blockCount)
        switch plan.workload {
        case .mixed: return (block, random.next(below: 100) >= plan.readPercent)
        default: return (block, plan.workload == .randwrite)
        }
    }
}
