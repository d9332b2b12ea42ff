// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Synchronization

/// Whether a sync of the store has failed since the process has opened it.
///
/// What a sync that failed should have made durable may be lost for good: the writes of all streams, of
/// which only one has asked. So no sync that ends behind it has succeeded either, whatever is said of it,
/// and nobody takes for durable what a neighbour's sync has lost.
package final class SyncRecord: Sendable {
    private let failure = Atomic<Int>(0)

    package init() {}

    /// What a sync that ended with `result` (0, or a negated errno) has come to.
    package func judge(_ result: Int) -> Int {
        if result < 0 {
            failure.store(result, ordering: .sequentiallyConsistent)
            return result
        }
        let earlier = failure.load(ordering: .sequentiallyConsistent)
        return earlier < 0 ? earlier : result
    }
}
