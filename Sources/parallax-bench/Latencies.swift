// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Histogram

/// The latencies of one kind of request, in nanoseconds.
struct Latencies {
    /// LIMIT: longer ones count as this long; 100 s is beyond every time limit of the client.
    private static let nanosecondsMax: UInt64 = 100_000_000_000

    private var histogram = Histogram<UInt32>(
        lowestDiscernibleValue: 1, highestTrackableValue: Latencies.nanosecondsMax,
        numberOfSignificantValueDigits: .three)

    var count: UInt64 { histogram.totalCount }

    mutating func record(_ nanoseconds: UInt64) {
        histogram.record(min(nanoseconds, Self.nanosecondsMax))
    }

    mutating func add(_ other: Latencies) { histogram.add(other.histogram) }
    mutating func reset() { histogram.reset() }

    func microseconds(atPercentile percentile: Double) -> Double {
        count == 0 ? 0 : Double(histogram.valueAtPercentile(percentile)) / 1000
    }

    var maxMicroseconds: Double { count == 0 ? 0 : Double(histogram.maxRecorded) / 1000 }
    var meanMicroseconds: Double { count == 0 ? 0 : histogram.mean / 1000 }
}
