// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention

/// `--keep-last 10 --hourly 24`, as people write it.
func policy(_ options: String) throws -> RetentionPolicy {
    try RetentionPolicy.parse(options: options.split(separator: " ").map(String.init))
}

func time(_ text: String) throws -> RetentionTime { try RetentionTime.parse(text) }

/// Snapshots of a schedule, one for each time, made in the order of their times.
func scheduled(_ times: [RetentionTime]) -> [RetentionCandidate] {
    times.sorted().enumerated().map { index, time in
        RetentionCandidate(id: UInt64(index), name: "s\(index)", time: time, origin: .scheduled)
    }
}

func scheduled(_ times: [String]) throws -> [RetentionCandidate] {
    scheduled(try times.map { text in try time(text) })
}

/// One snapshot every `step` seconds, the first at `start` and none at `end` or later.
func row(from start: RetentionTime, to end: RetentionTime, step: Int64) -> [RetentionTime] {
    stride(from: start.seconds, to: end.seconds, by: Int(step)).map { RetentionTime(seconds: $0) }
}

/// The error that `body` throws, if it is one of ours.
func failure(_ body: () throws -> Void) -> RetentionError? {
    do {
        try body()
        return nil
    } catch {
        return error as? RetentionError
    }
}

extension RetentionPlan {
    var keptTimes: [String] { kept.map(\.candidate.time.text) }
    var keptIDs: Set<UInt64> { Set(kept.map(\.candidate.id)) }
    /// All reasons of the snapshot with this id, as people read them.
    func reasons(_ id: UInt64) -> [String] {
        decisions.first { $0.candidate.id == id }?.reasons.map(\.description) ?? []
    }

    /// Those that a rule keeps, and not only what no policy may touch.
    var keptByRule: [RetentionTime] {
        decisions.filter { $0.reasons.contains(where: \.isRule) }.map(\.candidate.time)
    }
}
