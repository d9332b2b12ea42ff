// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ArgumentParser
internal import ParallaxGuest

/// What to do to the disk.
enum Workload: String, ExpressibleByArgument, CaseIterable {
    case randread
    case randwrite
    case read
    case write
    case mixed

    var isRandom: Bool { self == .randread || self == .randwrite || self == .mixed }
    var isReadOnly: Bool { self == .randread || self == .read }
}

/// When to stop.
enum Limit: Equatable {
    case nanoseconds(UInt64)
    case requests(UInt64)
}

/// All of the run in numbers, after checking them against the device.
struct Plan {
    var workload: Workload
    var readPercent: UInt64
    var blockBytes: Int
    var depth: Int
    var queueCount: Int
    var limit: Limit
    var warmupNanoseconds: UInt64
    /// Blocks of `blockBytes`, from the start of the device.
    var blockCount: UInt64
    /// A flush after this many writes; 0: never.
    var flushEvery: UInt64
    var verifies: Bool
    var polls: Bool
    /// Exponent of a Zipf distribution of the random blocks; nil: all are equally likely.
    var zipf: Double?
    var seed: UInt64

    /// Each lane has one request in flight, like one thread of a program in the guest.
    var laneCount: Int { depth * queueCount }
}

/// A reason to stop that is told in one sentence.
struct BenchFailure: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}
