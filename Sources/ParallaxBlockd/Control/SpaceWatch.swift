// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl

/// What the log has to say about the store's space: one line when a level is reached, one when it is
/// left, and none for what goes up and down around it.
package struct SpaceWatch: Sendable {
    package enum Notice: Equatable, Sendable {
        /// At least this full, in percent.
        case reached(UInt64)
        /// Less full than this again.
        case left(UInt64)
        /// Writes are refused, because the store is full.
        case refusing
        /// Writes are refused, because their VDI has reached its quota.
        case refusingByQuota
        /// The file system of the store's file gives nothing more, or gives again (nil).
        case host(String?)
    }

    package static let levels: [UInt64] = [80, 90, 95]
    /// Percent below a level at which it is left.
    static let slack: UInt64 = 2
    /// Looks without a refused request after which the next one is news.
    static let quietLooks = 12

    /// Refusals of one kind.
    private struct Refusals {
        private var total: UInt64 = 0
        private var quietLooks = SpaceWatch.quietLooks

        /// Whether these are news.
        mutating func look(total now: UInt64) -> Bool {
            defer { total = now }
            guard now > total else {
                quietLooks += 1
                return false
            }
            defer { quietLooks = 0 }
            return quietLooks >= SpaceWatch.quietLooks
        }
    }

    private var level: UInt64 = 0
    private var byStore = Refusals()
    private var byQuota = Refusals()
    private var hostProblem: String?

    package init() {}

    /// One look, every few seconds. `refused`: requests since the start, of which `overQuota` met a
    /// quota and the others a full store.
    package mutating func look(
        at store: StoreStatus, refused total: UInt64, overQuota: UInt64
    ) -> [Notice] {
        var notices: [Notice] = []
        if let next = Self.levels.last(where: { store.fullPercent >= $0 }), next > level {
            level = next
            notices.append(.reached(next))
        } else if level > 0, store.fullPercent + Self.slack < level {
            notices.append(.left(level))
            level = Self.levels.last { store.fullPercent >= $0 } ?? 0
        }
        if byStore.look(total: total - min(total, overQuota)) { notices.append(.refusing) }
        if byQuota.look(total: overQuota) { notices.append(.refusingByQuota) }
        if store.host?.problem != hostProblem {
            hostProblem = store.host?.problem
            notices.append(.host(hostProblem))
        }
        return notices
    }
}
