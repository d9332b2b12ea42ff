// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxVhost
import Testing

/// A guest that goes on finds its own disk or none: at its path another may be attached meanwhile.
@Suite("vhost-user in-flight area, whose disk it is")
struct VhostInflightDiskTests {
    private typealias Identity = VhostDiskIdentity

    private static let other = Identity(store: VhostRig.identity.store, version: 4)

    /// An area that a disk has served, with one request that was never answered.
    private func served() throws -> (VhostFixture, KeptArea, PretendedQueue) {
        let fixture = try VhostFixture()
        let front = fixture.frontEnd
        front.negotiate()
        let area = try #require(KeptArea(front))
        #expect(area.disk == nil, "a new area belongs to nobody")
        #expect(area.give(front) == 0)
        let queue = PretendedQueue(front)
        queue.start()
        fixture.rig.isHolding = true
        _ = queue.add(VhostRequestTests.write, write: VhostFixture.pattern(512))
        queue.run()
        #expect(area.markedHeads.count == 1)
        return (fixture, area, queue)
    }

    /// Another device at another path, which the front end takes for the same.
    private func connect(_ fixture: VhostFixture, to identity: Identity) throws -> VhostRig {
        let path = fixture.folder + "/other.sock"
        let rig = try VhostRig(path: path, identity: identity)
        fixture.frontEnd.reconnect(to: rig, path: path)
        fixture.frontEnd.negotiate(readsConfig: false)
        return rig
    }

    @Test("the disk is named in the area that it serves")
    func stamp() throws {
        let (_, area, _) = try served()
        #expect(area.disk == VhostRig.identity)
        let settings = area.layout.settingsOffset
        let magic = [UInt8](area.bytes[(settings + 16)..<(settings + 24)])
        #expect(magic == Array("PLXDSK".utf8) + [1, 0])
        let version = [UInt8](area.bytes[(settings + 40)..<(settings + 48)])
        #expect(version == VhostRig.identity.version.bytes)
    }

    @Test(
        "another disk refuses it, and it stays as it is",
        arguments: [
            VhostInflightDiskTests.other,
            // A snapshot; the same number in another store.
            Identity(store: VhostRig.identity.store, version: 1 << 63 | 3),
            Identity(store: StoreUUID(high: 1, low: 3), version: 3),
            Identity(store: StoreUUID(high: 2, low: 2), version: 3),
        ])
    func otherDisk(identity: VhostDiskIdentity) throws {
        let (fixture, area, _) = try served()
        let rig = try connect(fixture, to: identity)
        let before = [UInt8](area.bytes)
        #expect(area.give(fixture.frontEnd) == 1)
        #expect([UInt8](area.bytes) == before)
        let text = try #require(rig.notices.first { $0.isOfAnotherDisk }).text
        #expect(text.contains("0000000000000003 of store 00000000-0000-0001-0000-000000000002"))
        #expect(text.contains("\(identity)"))
    }

    @Test("a front end that asks for no answer loses its connection")
    func withoutAcknowledgement() throws {
        let (fixture, area, _) = try served()
        let rig = try connect(fixture, to: Self.other)
        fixture.frontEnd.send(.setInflightArea, area.description, files: [area.file])
        #expect(fixture.frontEnd.becomesDisconnected)
        #expect(!rig.isConnected)
        #expect(rig.seen.isEmpty)
    }

    @Test("the guest's own disk takes it, after others have refused it too")
    func ownDisk() throws {
        let (fixture, area, queue) = try served()
        let rig = fixture.rig
        _ = try connect(fixture, to: Self.other)
        #expect(area.give(fixture.frontEnd) == 1)
        fixture.frontEnd.reconnect(to: rig, path: fixture.path)
        rig.release()
        rig.settle()
        rig.seen = []
        rig.isHolding = false
        fixture.frontEnd.negotiate(readsConfig: false)
        #expect(area.give(fixture.frontEnd) == 0)
        queue.resume()
        #expect(rig.seen.map(\.firstSector) == [0])
        #expect(area.markedHeads == [])
    }

    @Test("an area in which no disk is named is taken, with its requests, and named")
    func oldLayout() throws {
        let (fixture, area, queue) = try served()
        area.disk = nil
        let rig = try connect(fixture, to: Self.other)
        #expect(area.give(fixture.frontEnd) == 0)
        #expect(area.disk == Self.other)
        queue.resume()
        #expect(rig.seen.count == 1)
        // The writeback that the older daemon kept is still known.
        #expect(rig.seen.map(\.forceUnitAccess) == [false])
    }

    @Test("a new area on the same connection follows one that was refused")
    func newArea() throws {
        let (fixture, area, _) = try served()
        let rig = try connect(fixture, to: Self.other)
        let front = fixture.frontEnd
        #expect(area.give(front) == 1)
        let new = try #require(KeptArea(front))
        #expect(new.give(front) == 0)
        #expect(new.disk == Self.other)
        let queue = PretendedQueue(front)
        queue.start()
        let request = queue.add(VhostRequestTests.write, write: VhostFixture.pattern(512))
        queue.run()
        #expect(queue.status(request) == 0)
        #expect(rig.seen.count == 1)
    }
}

extension VhostNotice {
    fileprivate var isOfAnotherDisk: Bool {
        if case .areaOfAnotherDisk = self { true } else { false }
    }
}
