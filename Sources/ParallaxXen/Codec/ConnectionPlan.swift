// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What a front end asks for in its keys, checked: how many rings of how many pages, where they
/// are, and in which layout. A number that is out of bounds is refused, never cut.
package struct ConnectionPlan: Equatable, Sendable {
    package struct Queue: Equatable, Sendable {
        package var references: [UInt32]
        package var eventChannel: UInt32
    }

    package var layout: BlkifLayout
    package var isPersistent: Bool
    package var queues: [Queue]

    /// `key` reads from the front end's directory.
    package init(reading key: (String) -> String?) throws(XenFault) {
        let name = key("protocol")
        guard let layout = BlkifLayout(protocolName: name) else {
            throw .unknownProtocol
        }
        self.layout = layout
        isPersistent = try Self.number(key, "feature-persistent", default: 0) != 0
        let order = try Self.ringPageOrder(key)
        let count = try Self.number(key, "multi-queue-num-queues", default: 1)
        guard (1...UInt32(XenLimits.queueCountMax)).contains(count) else {
            throw .badQueueCount(count)
        }
        queues = []
        for index in 0..<Int(count) {
            // One queue has its keys at the top, as front ends that know no queues have.
            let folder = count == 1 ? "" : "queue-\(index)/"
            queues.append(try Self.queue(key, folder: folder, order: order))
        }
    }

    /// nil: the front end knows only rings of one page.
    private static func ringPageOrder(_ key: (String) -> String?) throws(XenFault) -> Int? {
        guard key("ring-page-order") != nil else {
            guard key("num-ring-pages") != nil else { return nil }
            let pages = try number(key, "num-ring-pages", default: 1)
            guard pages.nonzeroBitCount == 1, pages <= UInt32(XenLimits.ringPagesMax) else {
                throw .badRingSize(pages)
            }
            return pages == 1 ? nil : pages.trailingZeroBitCount
        }
        let order = try number(key, "ring-page-order", default: 0)
        guard order <= UInt32(XenLimits.ringPageOrderMax) else { throw .badRingOrder(order) }
        return Int(order)
    }

    private static func queue(
        _ key: (String) -> String?, folder: String, order: Int?
    ) throws(XenFault) -> Queue {
        var references: [UInt32] = []
        let count = 1 << (order ?? 0)
        for index in 0..<count {
            // Linux writes `ring-ref` alone for one page, even beside an order of 0.
            let isSole = count == 1 && (order == nil || key(folder + "ring-ref0") == nil)
            let name = folder + (isSole ? "ring-ref" : "ring-ref\(index)")
            references.append(try number(key, name, default: nil))
        }
        let channel = try number(key, folder + "event-channel", default: nil)
        return Queue(references: references, eventChannel: channel)
    }

    private static func number(
        _ key: (String) -> String?, _ name: String, default fallback: UInt32?
    ) throws(XenFault) -> UInt32 {
        guard let text = key(name) else {
            guard let fallback else { throw .missingKey(name) }
            return fallback
        }
        guard let value = UInt32(text) else { throw .badNumber(name) }
        return value
    }
}

/// Why a front end is not, or no longer, served.
package enum XenFault: Error, Equatable, Sendable {
    case unknownProtocol
    case missingKey(String)
    case badNumber(String)
    case badQueueCount(UInt32)
    case badRingOrder(UInt32)
    case badRingSize(UInt32)
    case badRingReference(queue: Int)
    case badEventChannel(queue: Int)
    case noGrantDevice
    case noEventDevice
    case producerTooFar(queue: Int)
    case impossibleState(UInt8)
    case keyChanged(String)
    case domainGone
    case storeLost

    /// A sentence for the key `error`, and for the log.
    package var text: String {
        switch self {
        case .unknownProtocol:
            "The key protocol names none that exists; use x86_64-abi, x86_32-abi or arm-abi."
        case .missingKey(let name): "The key \(name) is missing in the front end's directory."
        case .badNumber(let name): "The key \(name) of the front end holds no number."
        case .badQueueCount(let count):
            "The front end asks for \(count) queues; use 1 to \(XenLimits.queueCountMax)."
        case .badRingOrder(let order):
            "The front end asks for rings of page order \(order); "
                + "use 0 to \(XenLimits.ringPageOrderMax)."
        case .badRingSize(let pages):
            "The front end asks for rings of \(pages) pages; "
                + "use a power of 2 up to \(XenLimits.ringPagesMax)."
        case .badRingReference(let queue):
            "The ring of queue \(queue) cannot be mapped; check its grant references."
        case .badEventChannel(let queue):
            "The event channel of queue \(queue) cannot be bound; check its number."
        case .noGrantDevice:
            "The grant device cannot be opened; load the module xen-gntdev and try again."
        case .noEventDevice:
            "The event channel device cannot be opened; load the module xen-evtchn and try again."
        case .producerTooFar(let queue):
            "The front end's producer index of queue \(queue) ran away; reload its driver."
        case .impossibleState(let state):
            "The front end went to state \(state), which a disk does not have; reload its driver."
        case .keyChanged(let name):
            "The front end changed its key \(name) while it was connected; reload its driver."
        case .domainGone:
            "The domain, or its front end's directory, is gone; remove the device as well."
        case .storeLost: "The connection to xenstore was lost; restart the daemon."
        }
    }
}
