// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import Testing

/// Until another thread has made it true.
func waitUntil(
    sourceLocation: SourceLocation = #_sourceLocation, _ condition: () -> Bool
) throws {
    let deadline = parallax_monotonic_nanoseconds() + 20_000_000_000
    while !condition() {
        try #require(
            parallax_monotonic_nanoseconds() < deadline, "did not come about",
            sourceLocation: sourceLocation)
        sched_yield()
    }
}
