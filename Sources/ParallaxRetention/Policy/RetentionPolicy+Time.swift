// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Times as a policy's calendar counts and shows them.
extension RetentionPolicy {
    /// `duration` before `time`, as the policy's rules count it.
    package func time(
        _ duration: RetentionDuration, before time: RetentionTime
    ) throws(RetentionError) -> RetentionTime {
        try PolicyCalendar(zoneName: timeZone).subtract(duration, from: time)
    }

    /// How clocks in the policy's time zone show times: `2026-11-25T11:00:00+01:00`. It is
    /// what `RetentionTime.parse` reads.
    package func localText() throws(RetentionError) -> (RetentionTime) -> String {
        let calendar = try PolicyCalendar(zoneName: timeZone)
        return { calendar.text($0) }
    }
}
