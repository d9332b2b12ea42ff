// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Every bound of the Xen back end, in one place.
package enum XenLimits {
    package static let pageBytes = 4096
    package static let sectorsPerPage = 8

    /// Offered as `multi-queue-max-queues`.
    package static let queueCountMax = 16
    /// Offered as `max-ring-page-order`: 16 pages.
    package static let ringPageOrderMax = 4
    package static let ringPagesMax = 1 << ringPageOrderMax

    /// Fixed by the protocol.
    package static let directSegmentsMax = 11
    package static let indirectSegmentsPerPage = 512
    /// Offered as `feature-max-indirect-segments`; as many as Linux offers, on one indirect page.
    package static let indirectSegmentsMax = 256

    /// Lists for indirect requests in flight, for each device.
    package static let pooledListCount = 128
    /// Requests to the engine of one guest that have no reply yet: a quarter of what the engine works
    /// on at a time.
    package static let engineRequestsMax = 256
    /// Requests taken from one queue before the other queues and sessions get their turn.
    package static let requestsPerTurnMax = 128
    /// Watch events taken in one turn; the rest is taken in the next.
    package static let watchesPerTurnMax = 16

    /// Grants that one device keeps mapped. Linux keeps 1056 for each ring.
    package static let persistentGrantsMax = 4096
    /// Grants that all devices together keep mapped: each is a mapping of the process, of which
    /// Linux allows 65530 (`vm.max_map_count`).
    package static let persistentGrantsOfProcess = 32768

    /// How long a guest has to let go of a disk that is detached.
    package static let closingNanoseconds: UInt64 = 10_000_000_000

    /// Until a tool stack's node that could not be served, and may be soon, is looked at again.
    package static let secondLookMilliseconds: Int32 = 5_000

    /// Bytes of a value in xenstore that are looked at; longer ones are no numbers or names.
    package static let valueBytesMax = 256
    /// Bytes of a path in xenstore with its end; xenstored allows no longer ones.
    package static let pathBytesMax = 3073
    /// Attempts at a transaction that others keep disturbing.
    package static let transactionAttemptsMax = 32
}
