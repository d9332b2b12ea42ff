// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxGuest
import ParallaxXen
import Testing

/// Whose ring it is, and who may serve it.
@Suite("Xen rings and their disks")
struct XenIdentityTests {
    private let key = "parallax-version"
    private let other = XenDiskIdentity(store: "a-store", version: 6)

    /// A guest that has a request in the ring when its daemon has gone.
    private func orphan() throws -> XenRig {
        let rig = XenRig()
        try rig.connect()
        rig.stop(keepingGuest: true)
        let (reference, _) = rig.page(XenRig.pattern(4096))
        rig.front.queues[0].put(
            operation: XenRig.write, id: 1, sector: 0,
            segments: [BlkfrontSegment(reference: reference)])
        rig.front.queues[0].push()
        return rig
    }

    private func isUntouched(_ rig: XenRig) -> Bool {
        rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0 && rig.seen.isEmpty
            && rig.front.queues[0].reap().isEmpty
    }

    @Test("an identity is written and read, and nothing else is one")
    func text() {
        let snapshot = XenDiskIdentity(store: "a-b", version: 1 << 63 | 0xab)
        #expect("\(snapshot)" == "a-b/80000000000000ab")
        #expect(XenDiskIdentity("\(snapshot)") == snapshot)
        for text in ["", "/", "a", "a/1", "a/00000000000000AB", "a/00000000000000ab ", "a/-1"] {
            #expect(XenDiskIdentity(text) == nil, "\(text)")
        }
    }

    @Test("the back end says which disk it is before the front end makes its ring")
    func offered() throws {
        let rig = XenRig()
        rig.front.makeNodes()
        try rig.start()
        #expect(rig.front.backendState == "2")
        #expect(rig.front.property(key) == "a-store/0000000000000005")
    }

    @Test("another disk does not get a live ring; the guest may close and begin anew")
    func otherDisk() throws {
        let rig = try orphan()
        rig.identity = other
        try rig.start()
        #expect(rig.front.backendState == "5" && isUntouched(rig))
        #expect(rig.notices.last == .otherDisk)
        rig.front.queues[0].push()
        rig.front.state = "4"
        rig.settle()
        #expect(rig.front.backendState == "5" && isUntouched(rig))
        // Nor does it after one more restart.
        rig.stop(keepingGuest: true)
        try rig.start()
        #expect(rig.front.backendState == "5" && isUntouched(rig))

        rig.front.state = "5"
        rig.settle()
        rig.front.state = "6"
        rig.settle()
        #expect(rig.front.backendState == "6" && isUntouched(rig))
        rig.front.state = "1"
        rig.settle()
        #expect(rig.front.property(key) == "\(other)")
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        let (reference, _) = rig.page()
        let segments = [BlkfrontSegment(reference: reference)]
        #expect(rig.request(XenRig.read, sector: 0, segments)?.status == 0)
    }

    @Test("a guest that does not let go of the other disk loses it when this one is detached")
    func otherDiskDetached() throws {
        let rig = try orphan()
        rig.identity = other
        try rig.start()
        rig.stop(keepingGuest: false)
        #expect(!rig.isDrained)
        rig.device?.pointee.handleEvent(
            source: 1, interest: .readable, registrar: &rig.registrar, requests: &rig.requests)
        rig.settle()
        #expect(rig.isDrained && rig.front.backendState == "6" && isUntouched(rig))
        rig.destroy()
    }

    @Test("a disk that is restored leaves the ring of another one alone")
    func restored() throws {
        let rig = try orphan()
        let before = rig.xen.store.nodes(below: "/local/domain")
        rig.identity = other
        #expect(throws: XenError.nodeInUse(XenRig.backend)) { try rig.start(isRestored: true) }
        #expect(rig.xen.store.nodes(below: "/local/domain") == before)
        rig.identity.version = 5
        try rig.start(isRestored: true)
        #expect(rig.front.queues[0].reap().map(\.status) == [0])
    }

    @Test("the ring of an older daemon is taken over, and says from then on whose it is")
    func withoutKey() throws {
        let rig = try orphan()
        rig.xen.store[XenRig.backend + "/" + key] = nil
        rig.identity = other
        try rig.start()
        #expect(rig.front.queues[0].reap().map(\.status) == [0])
        #expect(rig.front.backendState == "4" && rig.front.property(key) == "\(other)")
    }

    @Test("a xenstore that does not say whose ring it is leads nowhere")
    func failingStore() throws {
        let rig = try orphan()
        rig.xen.store.failReads()
        #expect(throws: (any Error).self) { try rig.start() }
        #expect(rig.front.backendState == "4" && isUntouched(rig))
    }

    @Test("a tool stack's node that is detached is nobody's any more")
    func detached() throws {
        let rig = XenRig()
        try rig.connect()
        rig.stop(keepingGuest: false)
        rig.front.state = "6"
        rig.settle()
        #expect(rig.isDrained && rig.front.backendState == "6")
        #expect(rig.front.property(key) == nil)
        rig.destroy()
    }

    @Test("a device is served once, whatever it is called")
    func names() throws {
        let rig = XenRig()
        rig.xen.store["/local/domain/3"] = ""
        rig.xen.store["/local/domain/3/name"] = "web1"
        let name = try #require(XenAddress("web1:xvda"))
        let number = try #require(XenAddress("3:51712"))
        try rig.start(.address(name, mayMake: true))
        let before = rig.xen.store.nodes(below: "/local/domain")
        func open(_ place: XenPlace) throws(XenError) {
            let export = XenExport(
                name: "other", sectors: 8, readOnly: false, place: place, identity: other)
            _ = try XenDevice.open(session: 8, vdi: 4, export: export, library: rig.library)
        }
        for _ in 0..<2 {
            #expect(throws: XenError.deviceInUse(number)) {
                try open(.address(number, mayMake: true))
            }
            #expect(throws: XenError.deviceInUse(name)) { try open(.address(name, mayMake: true)) }
        }
        // And a node that leads to the same front end.
        rig.xen.store[XenRig.backend + "/frontend"] = XenRig.frontend
        rig.xen.store[XenRig.backend + "/frontend-id"] = "3"
        #expect(throws: XenError.nodeInUse(XenRig.backend)) { try open(.node(XenRig.backend)) }
        rig.xen.store.remove(XenRig.backend)
        #expect(rig.xen.store.nodes(below: "/local/domain") == before)

        rig.stop(keepingGuest: false)
        #expect(rig.device == nil)
        try open(.address(number, mayMake: true))
    }
}
