// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What cannot be read below a node. Shared as the nodes are: where many snapshots have many damaged
/// blocks in common, a list for each of their nodes would outgrow the memory.
final class TreeDamage {
    /// A run of blocks of a disk.
    struct Run: Equatable {
        var firstBlock: UInt64
        var count: UInt64
        var reason: CheckLoss.Reason
    }

    /// Of a leaf, or of a node that is lost itself.
    private let runs: [Run]
    /// Of the nodes below an inner node, in the order of their blocks.
    private let parts: [TreeDamage]
    let runCount: Int
    let hasLostNodes: Bool

    init(runs: [Run]) {
        self.runs = runs
        parts = []
        runCount = runs.count
        hasLostNodes = runs.contains { $0.reason == .node }
    }

    private init(parts: [TreeDamage]) {
        runs = []
        self.parts = parts
        runCount = parts.reduce(0) { $0 + $1.runCount }
        hasLostNodes = parts.contains { $0.hasLostNodes }
    }

    /// nil: there is none.
    static func joined(_ parts: [TreeDamage]) -> TreeDamage? {
        parts.count < 2 ? parts.first : TreeDamage(parts: parts)
    }

    /// The first runs, in the order of their blocks.
    func runs(atMost limit: Int) -> [Run] {
        var result: [Run] = []
        add(to: &result, limit)
        return result
    }

    private func add(to result: inout [Run], _ limit: Int) {
        result += runs.prefix(limit - result.count)
        for part in parts where result.count < limit { part.add(to: &result, limit) }
    }
}
