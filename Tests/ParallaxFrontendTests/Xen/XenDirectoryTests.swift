// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxGuest
import ParallaxXen
import Testing

@Suite("Xen tool stack's nodes")
struct XenDirectoryTests {
    @Test("nodes that name a VDI are found, now and after each change, and no others")
    func watch() throws {
        let rig = XenRig()
        let store = rig.xen.store
        rig.front.makeNodes(keys: ["params": "parallax:disk one", "mode": "w"])
        let other = "/local/domain/0/backend/vbd/3/51728"
        store[other + "/params"] = "/dev/sdb"
        store[other + "/online"] = "1"
        store[other + "/frontend"] = XenRig.frontend
        var seen: [[XenDiskNode]] = []
        try XenDirectory.watch(rig.library) { nodes in
            seen.append(nodes)
            switch seen.count {
            case 1: store[XenRig.backend + "/mode"] = "r"
            case 2:
                store[other + "/parallax-version"] = "a-store/0000000000000007"
                store[other + "/params"] = "parallax:two"
            case 3: store[XenRig.backend + "/online"] = "0"
            default: store.remove("/local/domain/0/backend/vbd/3")
            }
            return seen.count < 5
        }
        let one = XenDiskNode(path: XenRig.backend, vdi: "disk one", readOnly: false)
        let oneReadOnly = XenDiskNode(path: XenRig.backend, vdi: "disk one", readOnly: true)
        // Without a mode a disk is not written to.
        let two = XenDiskNode(
            path: other, vdi: "two", readOnly: true, identity: "a-store/0000000000000007")
        #expect(seen == [[one], [oneReadOnly], [oneReadOnly, two], [two], []])
        #expect(store.watchCount == 0)
    }

    @Test("a second look comes when it was asked for, although nothing has changed")
    func secondLook() throws {
        let rig = XenRig()
        rig.front.makeNodes(keys: ["params": "parallax:one", "mode": "w"])
        let again = XenSecondLook(milliseconds: 1)
        var seen: [[XenDiskNode]] = []
        try XenDirectory.watch(rig.library, secondLook: again) { nodes in
            seen.append(nodes)
            again.ask()
            return seen.count < 3
        }
        #expect(seen.count == 3 && seen.allSatisfy { $0 == seen[0] })
    }

    @Test("a node is no longer what was listed when any of it has changed")
    func current() throws {
        let rig = XenRig()
        let store = rig.xen.store
        rig.front.makeNodes(keys: ["params": "parallax:one", "mode": "w"])
        let node = XenDiskNode(path: XenRig.backend, vdi: "one", readOnly: false)
        #expect(XenDirectory.isCurrent(node, rig.library))
        for (key, value) in [
            ("parallax-version", "a-store/0000000000000007"), ("params", "parallax:two"),
            ("mode", "r"), ("online", "0"),
        ] {
            let path = XenRig.backend + "/" + key
            let old = store[path]
            store[path] = value
            #expect(!XenDirectory.isCurrent(node, rig.library), "\(key)")
            store[path] = old
        }
        #expect(XenDirectory.isCurrent(node, rig.library))
        store.failReads()
        #expect(!XenDirectory.isCurrent(node, rig.library))
    }

    @Test("a node whose domain has gone is told apart")
    func orphans() throws {
        let rig = XenRig()
        rig.front.makeNodes(keys: ["params": "parallax:one", "mode": "w"])
        rig.xen.store.remove("/local/domain/3")
        var seen: [XenDiskNode] = []
        try XenDirectory.watch(rig.library) { nodes in
            seen = nodes
            return false
        }
        let orphan = XenDiskNode(
            path: XenRig.backend, vdi: "one", readOnly: false, hasFrontEnd: false)
        #expect(seen == [orphan])
    }

    @Test("a xenstore that fails to answer is no directory without nodes")
    func failingStore() throws {
        let rig = XenRig()
        rig.front.makeNodes(keys: ["params": "parallax:one", "mode": "w"])
        var seen = 0
        try XenDirectory.watch(rig.library) { nodes in
            seen += 1
            #expect(nodes.count == 1)
            rig.xen.store.failReads()
            rig.front.state = "3"
            rig.xen.store[XenRig.backend + "/online"] = "1"
            return true
        }
        #expect(seen == 1)
    }

    @Test("a refusal is on the node for the tool stack to see")
    func refuse() throws {
        let rig = XenRig()
        rig.front.makeNodes()
        XenDirectory.refuse(rig.library, path: XenRig.backend, sentence: "There is no such VDI.")
        #expect(rig.front.property("error") == "There is no such VDI.")
        #expect(rig.front.property("hotplug-error") == "There is no such VDI.")
        #expect(rig.front.backendState == "6")
        rig.xen.store.remove(XenRig.backend)
        XenDirectory.refuse(rig.library, path: XenRig.backend, sentence: "It is gone.")
        #expect(rig.xen.store.nodes(below: XenRig.backend).isEmpty)
    }

    @Test("without xenstore nothing is followed")
    func lost() {
        let rig = XenRig()
        rig.xen.store.lose()
        #expect(throws: XenError.noStore) {
            try XenDirectory.watch(rig.library) { _ in true }
        }
    }
}
