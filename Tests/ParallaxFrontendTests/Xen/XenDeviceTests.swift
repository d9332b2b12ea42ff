// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxGuest
import ParallaxXen
import Testing

@Suite("Xen device and xenstore")
struct XenDeviceTests {
    private static let ownBackend = "/local/domain/0/backend/parallax/3/51712"

    @Test("what can be chosen is offered before InitWait, what the disk is before Connected")
    func handshake() throws {
        let rig = XenRig(sectors: 8192)
        rig.front.makeNodes()
        try rig.start()
        #expect(rig.front.backendState == "2")
        #expect(rig.front.property("feature-max-indirect-segments") == "256")
        #expect(rig.front.property("multi-queue-max-queues") == "16")
        #expect(rig.front.property("max-ring-page-order") == "4")
        #expect(rig.front.property("sectors") == nil)
        rig.front.writeKeys(BlkfrontOptions(queueCount: 2, ringPages: 4))
        rig.settle()
        #expect(rig.front.backendState == "2", "connected before the front end was ready")
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.backendState == "4")
        let expected = [
            "sectors": "8192", "sector-size": "512", "physical-sector-size": "4096", "info": "0",
            "feature-flush-cache": "1", "feature-barrier": "1", "feature-persistent": "1",
            "feature-discard": "1", "discard-secure": "0", "discard-alignment": "0",
            "discard-granularity": "4096",
        ]
        for (key, value) in expected { #expect(rig.front.property(key) == value, "\(key)") }
        #expect(rig.xen.mappedPages == 8 && rig.xen.boundPorts == 2)
        #expect(
            rig.notices == [
                .connected(queues: 2, ringPages: 4, isPersistent: true, isTakenOver: false)
            ])
    }

    @Test("transactions are begun again while others are in between")
    func transactions() throws {
        let rig = XenRig()
        rig.front.makeNodes()
        rig.xen.store.disturbTransactions(5)
        try rig.start()
        #expect(rig.front.backendState == "2")
        #expect(rig.xen.store.openTransactions == 0)
        rig.xen.store.disturbTransactions(1000)
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.backendState != "4")
        #expect(rig.xen.store.openTransactions == 0)
        #expect(rig.xen.mappedPages == 0)
        rig.xen.store.disturbTransactions(0)
    }

    @Test("a front end that was ready before is connected at once")
    func skippedStates() throws {
        let rig = XenRig()
        rig.front.makeNodes()
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "4"
        try rig.start()
        #expect(rig.front.backendState == "4")
    }

    /// A write that the engine has and does not answer.
    private func holdWrite(_ rig: XenRig) {
        rig.isHolding = true
        let (reference, _) = rig.page(XenRig.pattern(4096))
        rig.front.queues[0].put(
            operation: XenRig.write, id: 1, sector: 0,
            segments: [BlkfrontSegment(reference: reference)])
        _ = rig.run()
    }

    @Test("closing waits for the requests in flight; a driver that comes back is served anew")
    func closingAndReload() throws {
        let rig = XenRig()
        try rig.connect()
        holdWrite(rig)
        rig.front.state = "5"
        rig.settle()
        #expect(rig.front.backendState == "5")
        rig.front.state = "6"
        rig.settle()
        #expect(rig.front.backendState == "5", "closed under a request")
        #expect(rig.xen.mappedPages > 0)
        rig.isHolding = false
        rig.release()
        rig.settle()
        #expect(rig.front.backendState == "6")
        #expect(rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0)
        #expect(rig.front.queues[0].reap().map(\.status) == [0])
        #expect((rig.holds(XenRig.pattern(4096), atSector: 0)) as Bool)

        rig.front.state = "1"
        rig.settle()
        #expect(rig.front.backendState == "2")
        rig.front.writeKeys(BlkfrontOptions(queueCount: 3))
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.backendState == "4" && rig.xen.boundPorts == 3)
        #expect(rig.counters.connections == 2)
    }

    @Test("a kernel that begins without closing gets a fresh connection")
    func kexec() throws {
        let rig = XenRig()
        try rig.connect()
        rig.front.state = "1"
        rig.settle()
        #expect(rig.front.backendState == "2" && rig.xen.mappedPages == 0)
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.backendState == "4")
    }

    @Test("a new size is written with the state, and requests go by it")
    func resize() throws {
        let rig = XenRig(sectors: 4096)
        try rig.connect()
        rig.device?.pointee.resize(sectors: 2048)
        #expect(rig.front.property("sectors") == "2048" && rig.front.backendState == "4")
        let (reference, _) = rig.page()
        let segments = [BlkfrontSegment(reference: reference)]
        #expect(rig.request(XenRig.read, sector: 2041, segments)?.status == -1)
        #expect(rig.request(XenRig.read, sector: 2040, segments)?.status == 0)
    }

    @Test("a resize of a disk that is not connected is seen when it is")
    func resizeBefore() throws {
        let rig = XenRig(sectors: 4096)
        rig.front.makeNodes()
        try rig.start()
        rig.device?.pointee.resize(sectors: 1024)
        #expect(rig.front.property("sectors") == nil && rig.front.backendState == "2")
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.property("sectors") == "1024")
    }

    @Test("the domain that is gone takes everything with it, in the middle of requests")
    func destroyedDomain() throws {
        let rig = XenRig()
        try rig.connect()
        rig.isHolding = true
        let (reference, _) = rig.page()
        for id in 0..<5 {
            rig.front.queues[0].put(
                operation: XenRig.read, id: UInt64(id), sector: 0,
                segments: [BlkfrontSegment(reference: reference)])
        }
        _ = rig.run()
        #expect(rig.inFlight == 5)
        rig.xen.store.remove("/local/domain/3")
        rig.settle()
        #expect(!rig.isDrained)
        rig.isHolding = false
        rig.release()
        rig.settle()
        #expect(rig.isDrained)
        #expect(rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0)
        rig.destroy()
        #expect(rig.xen.store.watchCount == 0)
    }

    @Test("the tool stack takes the device away: with the guest's consent, or with the node")
    func toolStackRemoval() throws {
        let rig = XenRig()
        try rig.connect()
        rig.xen.store[XenRig.backend + "/online"] = "0"
        rig.xen.store[XenRig.backend + "/state"] = "5"
        rig.settle()
        #expect(rig.isConnected)
        rig.front.state = "5"
        rig.settle()
        rig.front.state = "6"
        rig.settle()
        #expect(rig.front.backendState == "6" && rig.isDrained)
        rig.destroy()

        let other = XenRig()
        try other.connect()
        other.xen.store.remove(XenRig.backend)
        other.settle()
        #expect(other.isDrained && other.xen.mappedPages == 0)
        other.destroy()
    }

    @Test("a detached VDI is taken away when the guest lets go")
    func detach() throws {
        let rig = XenRig()
        try rig.connect()
        rig.stop(keepingGuest: false)
        #expect(rig.front.backendState == "5" && !rig.isDrained)
        rig.front.state = "5"
        rig.settle()
        #expect(!rig.isDrained)
        rig.front.state = "6"
        rig.settle()
        #expect(rig.isDrained)
        rig.destroy()
        #expect(rig.front.backendState == "6")
    }

    @Test("a guest that does not let go loses the disk when its time is over")
    func forcedDetach() throws {
        let rig = XenRig()
        try rig.connect()
        rig.stop(keepingGuest: false)
        #expect(!rig.isDrained)
        // As if the timer had fired.
        rig.device?.pointee.handleEvent(
            source: 1, interest: .readable, registrar: &rig.registrar, requests: &rig.requests)
        rig.settle()
        #expect(rig.isDrained && rig.front.backendState == "6")
        #expect(rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0)
        #expect(rig.notices.contains(.closedByForce))
        rig.destroy()
    }

    @Test("a guest is told that its disk is gone when its last request has ended, and not before")
    func forcedDetachWithRequests() throws {
        let rig = XenRig()
        try rig.connect()
        holdWrite(rig)
        rig.stop(keepingGuest: false)
        rig.device?.pointee.handleEvent(
            source: 1, interest: .readable, registrar: &rig.registrar, requests: &rig.requests)
        rig.settle()
        #expect(rig.inFlight == 1 && !rig.isDrained)
        #expect(rig.front.backendState == "5", "closed under a request")
        rig.isHolding = false
        rig.release()
        rig.settle()
        #expect(rig.isDrained && rig.front.backendState == "6")
        #expect(rig.front.queues[0].reap().map(\.status) == [0])
        rig.destroy()
    }

    @Test("a device of our own is made, served, and taken away with its nodes")
    func ownNodes() throws {
        let rig = XenRig()
        rig.xen.store["/local/domain/3/name"] = "web1"
        let address = try #require(XenAddress("web1:xvda"))
        try rig.start(.address(address, mayMake: true))
        let store = rig.xen.store
        #expect(store[Self.ownBackend + "/state"] == "2")
        #expect(store[Self.ownBackend + "/frontend"] == XenRig.frontend)
        #expect(store[Self.ownBackend + "/hotplug-status"] == "connected")
        #expect(store[XenRig.frontend + "/backend"] == Self.ownBackend)
        #expect(store[XenRig.frontend + "/virtual-device"] == "51712")
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        #expect(store[Self.ownBackend + "/state"] == "4")
        rig.stop(keepingGuest: false)
        #expect(store[Self.ownBackend + "/online"] == "0")
        rig.front.state = "6"
        rig.settle()
        #expect(rig.isDrained)
        rig.destroy()
        #expect(store.nodes(below: Self.ownBackend).isEmpty)
        #expect(store.nodes(below: XenRig.frontend).isEmpty)
        #expect(store["/local/domain/3/name"] == "web1")
    }

    @Test("what cannot be attached says why in one sentence")
    func impossibleAttachments() throws {
        let rig = XenRig()
        let address = try #require(XenAddress("4:xvda"))
        #expect(throws: XenError.noSuchDomain("4")) {
            try rig.start(.address(address, mayMake: true))
        }
        let named = try #require(XenAddress("nobody:xvda"))
        #expect(throws: XenError.noSuchDomain("nobody")) {
            try rig.start(.address(named, mayMake: true))
        }
        #expect(throws: XenError.nodeIncomplete(XenRig.backend)) { try rig.start() }
        rig.xen.store["/local/domain/3/device/vbd/51712/backend"] = "/somebody/else"
        rig.xen.store["/local/domain/3"] = ""
        let taken = try #require(XenAddress("3:xvda"))
        #expect(throws: XenError.deviceInUse(taken)) {
            try rig.start(.address(taken, mayMake: true))
        }
        rig.xen.store.lose()
        #expect(throws: XenError.noStore) { try rig.start() }
        #expect(rig.xen.store.watchCount == 0)
    }

    @Test("a lost xenstore does not stop a guest that is connected")
    func lostStore() throws {
        let rig = XenRig()
        try rig.connect()
        rig.xen.store.lose()
        rig.settle()
        #expect(rig.notices.last == .storeLost)
        let (reference, _) = rig.page(XenRig.pattern(4096))
        let response = rig.request(
            XenRig.write, sector: 0, [BlkfrontSegment(reference: reference)])
        #expect(response?.status == 0)
        #expect((rig.holds(XenRig.pattern(4096), atSector: 0)) as Bool)
    }

    @Test("a xenstore that fails to answer is no domain that has gone")
    func failingStore() throws {
        let rig = XenRig()
        try rig.connect()
        rig.xen.store.failReads()
        // Whatever makes us look.
        rig.front.state = "4"
        rig.settle()
        #expect(rig.notices.last == .storeLost && !rig.isDrained)
        let (reference, _) = rig.page(XenRig.pattern(4096))
        let response = rig.request(
            XenRig.write, sector: 0, [BlkfrontSegment(reference: reference)])
        #expect(response?.status == 0)
        rig.stop(keepingGuest: false)
        #expect(rig.isDrained)
    }
}
