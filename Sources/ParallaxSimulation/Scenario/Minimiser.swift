// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Makes a failing list of operations shorter while it still fails: first halves are left out,
/// then quarters, down to single operations.
package struct Minimiser {
    /// Runs at most.
    package var budget = 600

    package init() {}

    /// `fails` runs a scenario with only the given operations.
    package func minimise(
        _ operations: [Int], fails: (Set<Int>) -> Bool
    ) -> [Int] {
        var kept = operations
        var left = budget
        var size = max(1, kept.count / 2)
        while size >= 1 && left > 0 {
            var start = 0
            var hasShrunk = false
            while start < kept.count && left > 0 {
                let end = min(start + size, kept.count)
                let candidate = Array(kept[..<start] + kept[end...])
                left -= 1
                if fails(Set(candidate)) {
                    kept = candidate
                    hasShrunk = true
                } else {
                    start = end
                }
            }
            if size == 1 && !hasShrunk { break }
            size = max(1, size / 2)
        }
        return kept
    }
}
