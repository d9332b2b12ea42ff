// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A point in time: seconds since 1970 UTC (leap seconds not counted) and nanoseconds of a second.
package struct RetentionTime: Sendable, Hashable, Comparable {
    package var seconds: Int64
    package var nanoseconds: UInt32

    /// `nanoseconds` beyond a second, which only damage can bring, count as its last nanosecond.
    package init(seconds: Int64, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = min(nanoseconds, 999_999_999)
    }

    package static func < (left: Self, right: Self) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }

    /// The years 1 to 9999. What lies outside, which no clock shows, is taken as the nearest of it
    /// by every rule, so that no arithmetic below can overflow.
    static let secondsRange: ClosedRange<Int64> = -62_135_596_800...253_402_300_799

    var clamped: Self {
        if seconds < Self.secondsRange.lowerBound {
            return Self(seconds: Self.secondsRange.lowerBound)
        }
        if seconds > Self.secondsRange.upperBound {
            return Self(seconds: Self.secondsRange.upperBound, nanoseconds: 999_999_999)
        }
        return self
    }
}
