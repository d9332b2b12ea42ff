// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import FoundationEssentials

/// Points in time as the API and the log write them.
package enum UTCTime {
    /// `2026-01-31T23:59:59Z`
    package static func format(secondsSince1970 seconds: Int64) -> String {
        Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601)
    }
}
