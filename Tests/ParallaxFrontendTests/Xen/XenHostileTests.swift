// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxGuest
import ParallaxXen
import Testing

/// Guests that break the rules: they get an `error` key and Closed, and a good front end after
/// them is served.
@Suite("hostile Xen guests")
struct XenHostileTests {
    private func expectRefused(_ rig: XenRig, _ fault: XenFault) {
        #expect(rig.front.backendState == "6", "\(fault)")
        #expect(rig.front.property("error") == fault.text)
        #expect(rig.notices.contains(.refused(fault)))
        #expect(rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0)
    }

    private func expectService(_ rig: XenRig) throws {
        rig.xen.store.remove(XenRig.frontend)
        rig.settle()
        #expect(rig.isDrained)
        rig.destroy()
        rig.front.freePages()
        rig.front.makeNodes()
        try rig.start()
        #expect(rig.front.property("error") == nil)
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.backendState == "4")
        let (reference, _) = rig.page(XenRig.pattern(4096))
        let response = rig.request(XenRig.write, sector: 3, [BlkfrontSegment(reference: reference)])
        #expect(response?.status == 0)
        #expect((rig.holds(XenRig.pattern(4096), atSector: 3)) as Bool)
    }

    @Test(
        "bad keys are refused with a sentence, and forgiven when the front end begins anew",
        arguments: [
            (["ring-ref": nil], XenFault.missingKey("ring-ref")),
            (["event-channel": nil], .missingKey("event-channel")),
            (["ring-ref": "-1"], .badNumber("ring-ref")),
            (["ring-ref": "seven"], .badNumber("ring-ref")),
            (["ring-ref": ""], .badNumber("ring-ref")),
            (["ring-ref": "99999999999"], .badNumber("ring-ref")),
            (["ring-ref": "4000000000"], .badRingReference(queue: 0)),
            (["event-channel": "4000000000"], .badEventChannel(queue: 0)),
            (["protocol": "x86_128-abi"], .unknownProtocol),
            (["multi-queue-num-queues": "0"], .badQueueCount(0)),
            (["multi-queue-num-queues": "17"], .badQueueCount(17)),
            (["multi-queue-num-queues": "2"], .missingKey("queue-0/ring-ref")),
            (["ring-page-order": "5"], .badRingOrder(5)),
            (["ring-page-order": "4294967295"], .badRingOrder(.max)),
            (["ring-page-order": "2"], .missingKey("ring-ref0")),
            (["num-ring-pages": "3"], .badRingSize(3)),
            (["num-ring-pages": "32"], .badRingSize(32)),
            (["feature-persistent": "maybe"], .badNumber("feature-persistent")),
        ] as [([String: String?], XenFault)])
    func badKeys(change: [String: String?], fault: XenFault) throws {
        let rig = XenRig()
        rig.front.makeNodes()
        try rig.start()
        rig.front.writeKeys(BlkfrontOptions())
        for (key, value) in change { rig.xen.store["\(XenRig.frontend)/\(key)"] = value }
        rig.front.state = "3"
        rig.settle()
        expectRefused(rig, fault)
        // Insisting does not help; beginning anew does.
        rig.front.state = "4"
        rig.settle()
        #expect(rig.front.backendState == "6")
        rig.front.state = "6"
        rig.settle()
        for key in change.keys { rig.xen.store["\(XenRig.frontend)/\(key)"] = nil }
        rig.front.state = "1"
        rig.settle()
        #expect(rig.front.backendState == "2")
        #expect(rig.front.property("error") == nil)
        rig.front.freePages()
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.backendState == "4")
    }

    @Test("states that a disk does not have are refused", arguments: ["7", "8"])
    func oddStates(state: String) throws {
        let rig = XenRig()
        try rig.connect()
        rig.front.state = state
        rig.settle()
        expectRefused(rig, .impossibleState(UInt8(state) ?? 0))
    }

    @Test(
        "keys that change after Connected end the connection, whatever they change to",
        arguments: [
            "ring-ref", "event-channel", "protocol", "feature-persistent", "ring-page-order",
            "multi-queue-num-queues",
        ], [nil, "nonsense", "1"])
    func changedKeys(key: String, value: String?) throws {
        let rig = XenRig()
        try rig.connect()
        let path = "\(XenRig.frontend)/\(key)"
        guard rig.xen.store[path] != value else { return }
        rig.isHolding = true
        let (reference, _) = rig.page()
        rig.front.queues[0].put(
            operation: XenRig.read, id: 1, sector: 0,
            segments: [BlkfrontSegment(reference: reference)])
        _ = rig.run()
        rig.xen.store[path] = value
        rig.settle()
        #expect(rig.xen.mappedPages > 0, "unmapped under a request")
        rig.isHolding = false
        rig.release()
        rig.settle()
        expectRefused(rig, .keyChanged(key))
        try expectService(rig)
    }

    @Test("the same keys written again, and keys that mean nothing to us, change nothing")
    func unchangedKeys() throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(queueCount: 2, ringPages: 2))
        let keys = rig.xen.store.nodes(below: XenRig.frontend)
        for (path, value) in keys { rig.xen.store[path] = value }
        rig.xen.store[XenRig.frontend + "/trusted"] = "0"
        rig.xen.store[XenRig.frontend + "/queue-7/ring-ref"] = "0"
        rig.settle()
        #expect(rig.isConnected && rig.front.property("error") == nil)
        let (reference, _) = rig.page()
        let response = rig.request(XenRig.read, sector: 0, [BlkfrontSegment(reference: reference)])
        #expect(response?.status == 0)
    }

    @Test("a domain that is gone, and whose node is not, leaves a sentence on the node")
    func goneDomain() throws {
        let rig = XenRig()
        try rig.connect()
        rig.xen.store.remove("/local/domain/3")
        rig.settle()
        #expect(rig.isDrained && rig.front.backendState == "6")
        #expect(rig.front.property("error") == XenFault.domainGone.text)
        #expect(rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0)
        rig.destroy()

        // The tool stack destroys the domain in its own way, and waits for Closed.
        let other = XenRig()
        try other.connect()
        other.xen.store[XenRig.backend + "/online"] = "0"
        other.xen.store.remove("/local/domain/3")
        other.settle()
        #expect(other.isDrained && other.front.backendState == "6")
        #expect(other.front.property("error") == nil)
        other.destroy()
    }

    @Test("a device that another back end serves is left alone")
    func otherBackEnd() throws {
        let rig = XenRig()
        try rig.connect()
        let keys = rig.xen.store.nodes(below: "/local/domain")
        let address = try #require(XenAddress("3:xvda"))
        let export = XenExport(
            name: "other", sectors: 8, readOnly: false,
            place: .address(address, mayMake: true))
        rig.xen.store["/local/domain/3"] = ""
        var refusal: XenError?
        do throws(XenError) {
            _ = try XenDevice.open(session: 8, vdi: 4, export: export, library: rig.library)
        } catch {
            refusal = error
        }
        #expect(refusal == .deviceInUse(address))
        let after = rig.xen.store.nodes(below: "/local/domain").filter { !$0.value.isEmpty }
        #expect(after == keys.filter { !$0.value.isEmpty })
        let (reference, _) = rig.page()
        let response = rig.request(XenRig.read, sector: 0, [BlkfrontSegment(reference: reference)])
        #expect(response?.status == 0)
    }

    @Test(
        "a producer index that runs away ends the connection",
        arguments: [
            33, 1000, 1 << 31, UInt32.max - 5,
        ] as [UInt32])
    func runawayProducer(distance: UInt32) throws {
        let rig = XenRig()
        try rig.connect()
        let (reference, _) = rig.page()
        let segments = [BlkfrontSegment(reference: reference)]
        _ = rig.request(XenRig.read, sector: 0, segments)
        let queue = rig.front.queues[0]
        queue.requestProducer = queue.produced &+ distance
        rig.xen.sendEvent(queue.port)
        rig.settle()
        expectRefused(rig, .producerTooFar(queue: 0))
        try expectService(rig)
    }

    @Test("a producer index that goes back under requests in flight ends the connection")
    func backwardProducer() throws {
        let rig = XenRig()
        try rig.connect()
        rig.isHolding = true
        let (reference, _) = rig.page()
        for id in 0..<4 {
            rig.front.queues[0].put(
                operation: XenRig.read, id: UInt64(id), sector: 0,
                segments: [BlkfrontSegment(reference: reference)])
        }
        _ = rig.run()
        rig.front.queues[0].requestProducer = 2
        rig.xen.sendEvent(rig.front.queues[0].port)
        rig.settle()
        #expect(rig.xen.mappedPages > 0, "unmapped under a request")
        rig.isHolding = false
        rig.release()
        rig.settle()
        expectRefused(rig, .producerTooFar(queue: 0))
    }

    @Test("a ring that is full of nonsense before it is connected is refused")
    func fullBefore() throws {
        let rig = XenRig()
        rig.front.makeNodes()
        try rig.start()
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.queues[0].requestProducer = 500
        rig.front.state = "3"
        rig.settle()
        expectRefused(rig, .producerTooFar(queue: 0))
    }

    @Test("the second queue's bad ring takes the first one's mapping with it")
    func halfConnected() throws {
        let rig = XenRig()
        rig.front.makeNodes()
        try rig.start()
        rig.front.writeKeys(BlkfrontOptions(queueCount: 2, ringPages: 2))
        rig.xen.store["\(XenRig.frontend)/queue-1/ring-ref1"] = "4000000000"
        rig.front.state = "3"
        rig.settle()
        expectRefused(rig, .badRingReference(queue: 1))
        try expectService(rig)
    }

    @Test("an event channel that is bound already cannot be bound again")
    func sharedChannel() throws {
        let rig = XenRig()
        rig.front.makeNodes()
        try rig.start()
        rig.front.writeKeys(BlkfrontOptions(queueCount: 2))
        rig.xen.store["\(XenRig.frontend)/queue-1/event-channel"] = "\(rig.front.queues[0].port)"
        rig.front.state = "3"
        rig.settle()
        expectRefused(rig, .badEventChannel(queue: 1))
    }

    @Test("grants that cannot be mapped for a while are errors for a while")
    func failingMaps() throws {
        for isPersistent in [true, false] {
            let rig = XenRig()
            try rig.connect(BlkfrontOptions(isPersistent: isPersistent))
            let (reference, _) = rig.page()
            let segments = [BlkfrontSegment(reference: reference)]
            rig.xen.failMaps(isPersistent ? 2 : 1)
            #expect(rig.request(XenRig.read, sector: 0, segments)?.status == -1)
            #expect(rig.request(XenRig.read, sector: 0, segments)?.status == 0)
            #expect(rig.counters.mapFailures == 1)
        }
    }

    @Test(
        "a request that changes after it was copied is carried out as it was",
        arguments: [true, false])
    func changedRequest(isPersistent: Bool) throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(isPersistent: isPersistent))
        let (reference, _) = rig.page(XenRig.pattern(4096))
        let (other, _) = rig.page(XenRig.pattern(4096, seed: 9))
        let entry = rig.front.queues[0].entry(0)
        // The first call maps the page of the request, which has been copied and checked.
        atCall(1, of: rig) {
            entry.storeBytes(of: XenRig.read, as: UInt8.self)
            entry.storeBytes(of: 100, toByteOffset: 16, as: UInt64.self)
            BlkfrontQueue.store(BlkfrontSegment(reference: other), at: entry + 24)
        }
        let response = rig.request(XenRig.write, sector: 3, [BlkfrontSegment(reference: reference)])
        #expect(response == BlkfrontResponse(id: 77, operation: XenRig.write, status: 0))
        #expect((rig.holds(XenRig.pattern(4096), atSector: 3)) as Bool)
        #expect((rig.holds([UInt8](repeating: 0, count: 4096), atSector: 100)) as Bool)
    }

    @Test(
        "a list of segments that changes after it was copied is used as it was",
        arguments: [true, false])
    func changedList(isPersistent: Bool) throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(isPersistent: isPersistent))
        let (reference, _) = rig.page(XenRig.pattern(4096))
        rig.putIndirect(
            XenRig.write, id: 5, sector: 8, [BlkfrontSegment(reference: reference, last: 3)])
        // The page with the list comes after that of the data; the second call maps the data.
        let list = rig.xen.page(Int(reference) - 8 + 1)
        atCall(2, of: rig) {
            BlkfrontQueue.store(
                BlkfrontSegment(reference: 4_000_000, first: 7, last: 255), at: list)
        }
        #expect(rig.run().map(\.status) == [0])
        #expect((rig.holds(XenRig.pattern(2048), atSector: 8)) as Bool)
        #expect((rig.holds([UInt8](repeating: 0, count: 2048), atSector: 12)) as Bool)
    }

    /// The guest does something just before the back end's call of Xen's libraries.
    private func atCall(_ number: Int, of rig: XenRig, _ body: @escaping () -> Void) {
        var left = number
        rig.xen.beforeCall = {
            left -= 1
            if left == 0 { body() }
        }
    }

    @Test("a domain cannot reach into another one's device")
    func otherDomain() throws {
        let rig = XenRig()
        rig.front.makeNodes(keys: ["frontend-id": "4"])
        try rig.start()
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        expectRefused(rig, .badRingReference(queue: 0))
    }

    @Test("one bad guest does not disturb another")
    func neighbours() throws {
        let good = XenRig()
        try good.connect()
        let bad = XenRig()
        try bad.connect()
        bad.front.queues[0].requestProducer = 5000
        bad.xen.sendEvent(bad.front.queues[0].port)
        bad.settle()
        #expect(bad.front.backendState == "6")
        let (reference, _) = good.page()
        let response = good.request(XenRig.read, sector: 0, [BlkfrontSegment(reference: reference)])
        #expect(response?.status == 0)
    }
}
