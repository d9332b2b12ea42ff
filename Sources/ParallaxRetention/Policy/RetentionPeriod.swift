// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The periods of the calendar that a policy can keep one snapshot of each.
package enum RetentionPeriod: String, Sendable, CaseIterable {
    case hourly
    case daily
    case weekly
    case monthly
    case yearly
}
