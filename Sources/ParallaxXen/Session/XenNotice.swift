// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Something that the daemon's log should say about a device; see `XenDevice.takeNotice`.
package enum XenNotice: Equatable, Sendable {
    /// `isTakenOver`: the ring was in use already, by a back end before us.
    case connected(queues: Int, ringPages: Int, isPersistent: Bool, isTakenOver: Bool)
    case disconnected(XenCounters)
    case refused(XenFault)
    case cannotWrite(XenError)
    case storeLost
    /// The guest did not let go of the disk in time.
    case closedByForce
    case domainGone
    /// The guest is connected to a disk that was served here before.
    case otherDisk

    /// Ordinary comings and goings are for information.
    package var isProblem: Bool {
        switch self {
        case .connected, .disconnected, .domainGone: false
        case .refused, .cannotWrite, .storeLost, .closedByForce, .otherDisk: true
        }
    }

    /// One sentence, without the name of the VDI.
    package var text: String {
        switch self {
        case .connected(let queues, let pages, let isPersistent, let isTakenOver):
            "a Xen guest \(isTakenOver ? "was taken over" : "connected"): \(queues) queues, "
                + "rings of \(pages) pages, persistent grants \(isPersistent ? "on" : "off")"
        case .disconnected(let count): "the Xen guest disconnected: \(count)"
        case .refused(let fault): "the Xen guest was disconnected: \(fault.text)"
        case .cannotWrite(let error): "\(error)"
        case .storeLost: XenFault.storeLost.text
        case .closedByForce:
            "the Xen guest did not let go of the disk within "
                + "\(XenLimits.closingNanoseconds / 1_000_000_000) s; it was taken away"
        case .otherDisk:
            "the Xen guest still has another disk on this device and is asked to close it; it gets "
                + "this one when it connects anew"
        case .domainGone: "the Xen domain, or its device's node, is gone"
        }
    }
}

/// Counts since the device was made; `pagesMapped` is the number now.
package struct XenCounters: BitwiseCopyable, Equatable, Sendable, CustomStringConvertible {
    package var connections: UInt64 = 0
    package var requests: UInt64 = 0
    package var indirectRequests: UInt64 = 0
    package var flushes: UInt64 = 0
    package var barriers: UInt64 = 0
    package var discards: UInt64 = 0
    /// Requests that were not answered with OKAY.
    package var failures: UInt64 = 0
    package var mapFailures: UInt64 = 0
    /// Pages that were found mapped.
    package var persistentHits: UInt64 = 0
    package var persistentEvictions: UInt64 = 0
    /// Pages that were mapped for one request.
    package var pagesMappedOnce: UInt64 = 0
    package var notifications: UInt64 = 0
    package var pagesMapped: UInt64 = 0

    package init() {}

    package var description: String {
        "requests=\(requests) indirect=\(indirectRequests) flushes=\(flushes) "
            + "barriers=\(barriers) discards=\(discards) failures=\(failures) "
            + "persistent_hits=\(persistentHits) mapped_once=\(pagesMappedOnce) "
            + "notifications=\(notifications) pages_mapped=\(pagesMapped)"
    }
}
