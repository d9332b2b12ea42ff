// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxVhost
import Synchronization

/// A device with a connected front end, and a folder for its socket that goes away with it.
final class VhostFixture {
    let folder: String
    let path: String
    let rig: VhostRig
    let frontEnd: PretendedFrontEnd

    init(
        sectors: UInt64 = 2048, name: String = "disk", readOnly: Bool = false,
        queueCapacity: Int = 256
    ) throws {
        folder = Self.makeFolder()
        path = folder + "/disk.sock"
        rig = try VhostRig(
            path: path, sectors: sectors, name: name, readOnly: readOnly,
            queueCapacity: queueCapacity)
        frontEnd = PretendedFrontEnd(rig, path: path)
    }

    deinit { Self.removeFolder(folder) }

    /// Negotiated, with queue 0 running.
    func start(
        features: VirtioFeatures = PretendedFrontEnd.usualFeatures, size: Int = 128
    ) -> PretendedQueue {
        frontEnd.negotiate(features: features)
        let queue = PretendedQueue(frontEnd, size: size)
        queue.start()
        return queue
    }

    func hasNotice(_ isWanted: (VhostNotice) -> Bool) -> Bool {
        rig.notices.contains(where: isWanted)
    }

    private static let counter = Atomic<Int>(0)

    static func makeFolder() -> String {
        let number = counter.add(1, ordering: .relaxed).newValue
        let folder = "/tmp/parallax-vhost-\(getpid())-\(number)"
        precondition(mkdir(folder, 0o700) == 0, "no folder for the socket")
        return folder
    }

    static func removeFolder(_ folder: String) {
        for name in ["disk.sock", "other.sock"] { unlink(folder + "/" + name) }
        rmdir(folder)
    }

    /// Bytes that differ from place to place.
    static func pattern(_ count: Int, seed: Int = 1) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31) ^ ($0 >> 8) &+ seed &* 97) }
    }

    /// As a truth value, so that a failure does not print a thousand numbers.
    func holds(_ bytes: [UInt8], atSector sector: Int) -> Bool {
        disk(sector: sector, count: bytes.count) == bytes
    }

    func disk(sector: Int, count: Int) -> [UInt8] {
        [UInt8](rig.disk[(sector * sectorBytes)..<(sector * sectorBytes + count)])
    }
}
