// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxVhost
import Testing

/// Guest memory that goes between the moment when a request was taken and the one when its data are
/// copied: on the disk is what was there before, or what the guest has written, and never the zeroes
/// that we find in the place of its memory.
@Suite("vhost-user writes whose memory vanishes")
struct VhostLostWriteTests {
    private static let write = VhostRequestTests.write
    private static let byteCount = 64 * blockBytes

    enum Cause: CaseIterable {
        /// The file is cut.
        case cut
        /// A page is found faulty, in the middle of the first request's data.
        case faulty
    }

    /// A disk with old bytes, and a front end whose writes over them have been taken and wait.
    private final class Scene {
        let disk: EngineDisk
        let fixture: VhostFixture
        let area: KeptArea
        let queue: PretendedQueue
        let old = VhostFixture.pattern(VhostLostWriteTests.byteCount, seed: 1)
        let new = VhostFixture.pattern(VhostLostWriteTests.byteCount, seed: 2)
        /// The sectors of the writes, in their order.
        let writes: [Range<Int>] = [0..<8, 16..<32, 41..<43, 63..<90, 96..<97, 0..<512]
        private(set) var requests: [PretendedQueue.Request] = []

        init() throws {
            fixture = try VhostFixture()
            disk = try EngineDisk(sectors: 2048)
            let disk = disk
            fixture.rig.backend = { disk.perform($0) }
            #expect(disk.write(old, atSector: 0) == .ok)
            fixture.frontEnd.negotiate()
            area = try #require(KeptArea(fixture.frontEnd))
            #expect(area.give(fixture.frontEnd) == 0)
            queue = PretendedQueue(fixture.frontEnd)
            queue.start()
            fixture.rig.isHolding = true
            for sectors in writes {
                requests.append(
                    queue.add(
                        VhostLostWriteTests.write, sector: UInt64(sectors.lowerBound),
                        write: bytes(new, sectors)))
            }
            queue.run()
            try #require(fixture.rig.held.count == writes.count)
        }

        func bytes(_ bytes: [UInt8], _ sectors: Range<Int>) -> [UInt8] {
            Array(bytes[sectors.lowerBound * sectorBytes..<sectors.upperBound * sectorBytes])
        }

        func lose(_ cause: Cause) throws {
            switch cause {
            case .cut: #expect(ftruncate(fixture.frontEnd.memoryFile, 0) == 0)
            case .faulty:
                let segment = try #require(fixture.rig.held.first?.segments?.pointee)
                try VhostVanishedMemoryTests.deliverBusError(
                    code: BUS_MCEERR_AR, segment.base + segment.count / 2)
            }
        }

        /// The sectors that hold neither the old bytes nor those of a write.
        func strangeSectors() -> [Int] {
            let found = disk.read(sector: 0, count: old.count)
            guard found.count == old.count else { return [-1] }
            return (0..<found.count / sectorBytes).filter { sector in
                let here = bytes(found, sector..<sector + 1)
                return here != bytes(old, sector..<sector + 1)
                    && here != bytes(new, sector..<sector + 1)
            }
        }
    }

    @Test(
        "none of them puts zeroes on the disk, and another front end is served",
        arguments: Cause.allCases)
    func noZeroes(cause: Cause) throws {
        let scene = try Scene()
        let rig = scene.fixture.rig
        try scene.lose(cause)
        rig.release()
        rig.settle()
        #expect(scene.fixture.frontEnd.becomesDisconnected)
        #expect(rig.statuses == scene.writes.map { _ in .ioError })
        #expect(scene.disk.holds(scene.old, atSector: 0))
        #expect(scene.disk.comesToRest())

        rig.isHolding = false
        let next = PretendedFrontEnd(rig, path: scene.fixture.path)
        next.negotiate()
        let queue = PretendedQueue(next)
        queue.start()
        let read = queue.add(VhostRequestTests.read, sector: 16, read: 8192)
        queue.run()
        #expect(queue.status(read) == 0)
        let isOld = queue.data(read) == scene.bytes(scene.old, 16..<32)
        #expect(isOld)
        // What the one before has lost is not held against it.
        let write = queue.add(Self.write, sector: 41, write: scene.bytes(scene.new, 41..<43))
        queue.run()
        #expect(queue.status(write) == 0)
        #expect(scene.disk.holds(scene.bytes(scene.new, 41..<43), atSector: 41))
    }

    @Test("what was copied before the memory went is right", arguments: Cause.allCases)
    func someBefore(cause: Cause) throws {
        let scene = try Scene()
        let rig = scene.fixture.rig
        rig.answerNow(rig.held.removeFirst())
        rig.answerNow(rig.held.removeFirst())
        try scene.lose(cause)
        rig.release()
        #expect(rig.statuses == [.ok, .ok, .ioError, .ioError, .ioError, .ioError])
        #expect(scene.strangeSectors() == [])
        for sectors in scene.writes[0..<2] {
            #expect(
                scene.disk.holds(scene.bytes(scene.new, sectors), atSector: sectors.lowerBound))
        }
        #expect(scene.disk.comesToRest())
    }

    @Test("a front end that keeps an in-flight area has them made again, from memory that is whole")
    func madeAgain() throws {
        let scene = try Scene()
        let rig = scene.fixture.rig
        let front = scene.fixture.frontEnd
        try scene.lose(.faulty)
        rig.release()
        #expect(front.becomesDisconnected)
        #expect(scene.queue.usedIndex == 0)
        rig.isHolding = false
        front.reconnect(to: rig, path: scene.fixture.path)
        front.negotiate()
        #expect(scene.area.give(front) == 0)
        scene.queue.resume()
        rig.settle()
        #expect(scene.requests.allSatisfy { scene.queue.status($0) == 0 })
        #expect(scene.disk.holds(scene.new, atSector: 0))
    }
}
