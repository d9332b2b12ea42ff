// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore
internal import ParallaxGuest
internal import ParallaxVhost
internal import ParallaxXen

/// Measures the daemon's front ends side by side, in this process: a thread serves a device whose
/// engine answers at once and moves no data, this thread plays the guest. blkif is served over a
/// pretended Xen, whose event channels are eventfds as those of vhost-user are; what a hypervisor
/// adds to an event or a grant is not in it.
struct FrontEndComparison {
    var seconds: Double
    var depth: Int
    private static let sectors: UInt64 = 1 << 21

    struct Result {
        var name: String
        var operations: UInt64
        var seconds: Double
        var serverNanoseconds: UInt64

        var text: String {
            let count = Double(max(1, operations))
            let padded = name.padding(26)
            return "\(padded) \(fixed(count / seconds, 0)) requests/s, "
                + "CPU of the back end \(fixed(Double(serverNanoseconds) / 1000 / count, 3)) µs each"
        }
    }

    func run() throws -> [Result] {
        try [
            vhost(),
            blkif("blkif, persistent grants", isPersistent: true),
            blkif("blkif, mapped each time", isPersistent: false),
        ]
    }

    private func measure(
        _ name: String, _ server: ServingThread, _ turn: () throws -> Int
    ) throws -> Result {
        var operations: UInt64 = 0
        let start = parallax_monotonic_nanoseconds()
        let cpu = server.cpuNanoseconds
        let end = start + UInt64(seconds * 1e9)
        while parallax_monotonic_nanoseconds() < end { operations += UInt64(try turn()) }
        let elapsed = Double(parallax_monotonic_nanoseconds() - start) / 1e9
        return Result(
            name: name, operations: operations, seconds: elapsed,
            serverNanoseconds: server.cpuNanoseconds - cpu)
    }

    private func vhost() throws -> Result {
        let path = "/tmp/parallax-bench-\(getpid()).sock"
        let server = ServingThread()
        try server.start {
            try VhostDevice(
                session: 1, vdi: 0,
                export: VhostExport(
                    name: "bench", sectors: Self.sectors, readOnly: false, socketPath: path))
        }
        defer { server.stop() }
        var options = BlockDriverOptions()
        options.queueSize = 256
        options.requestsPerQueue = depth
        options.bufferBytes = 4096
        try waitForSocket(path)
        var driver = try BlockDriver(connectingTo: path, options: options)
        return try measure("vhost-user-blk", server) {
            while let slot = driver.reserve(queue: 0) {
                driver.submit(
                    queue: 0, slot: slot, .read, firstSector: UInt64(slot) * 8, byteCount: 4096,
                    tag: 0)
            }
            driver.publish(queue: 0)
            guard try driver.wait(timeoutMilliseconds: 1000) else {
                throw BenchFailure("the vhost-user back end does not answer")
            }
            var done = 0
            while try driver.reap(queue: 0) != nil { done += 1 }
            return done
        }
    }

    private func waitForSocket(_ path: String) throws {
        let limit = parallax_monotonic_nanoseconds() + 5_000_000_000
        while access(path, F_OK) != 0 {
            guard parallax_monotonic_nanoseconds() < limit else {
                throw BenchFailure("the vhost-user back end does not start")
            }
            usleep(1000)
        }
    }

    private func blkif(_ name: String, isPersistent: Bool) throws -> Result {
        let xen = PretendedXen()
        let backend = "/local/domain/0/backend/vbd/\(xen.domain)/51712"
        let front = BlkfrontDriver(
            xen: xen, backend: backend, frontend: "/local/domain/\(xen.domain)/device/vbd/51712")
        front.makeNodes()
        front.writeKeys(BlkfrontOptions(ringPages: 8, isPersistent: isPersistent))
        front.state = "3"
        let server = ServingThread()
        try server.start {
            try XenDevice.open(
                session: 1, vdi: 0,
                export: XenExport(
                    name: "bench", sectors: Self.sectors, readOnly: false, place: .node(backend)),
                library: XenLibrary(functions: xen.functions))
        }
        defer { server.stop() }
        let limit = parallax_monotonic_nanoseconds() + 5_000_000_000
        while front.backendState != "4" {
            guard parallax_monotonic_nanoseconds() < limit else {
                throw BenchFailure("the blkif back end does not connect")
            }
            usleep(1000)
        }
        let pages = (0..<depth).map { _ in front.allocatePage().reference }
        var free = Array(0..<depth)
        return try measure(name, server) {
            try turn(&front.queues[0], pages, &free)
        }
    }

    private func turn(
        _ queue: inout BlkfrontQueue, _ pages: [UInt32], _ free: inout [Int]
    ) throws -> Int {
        while let slot = free.popLast() {
            queue.putRead(id: UInt64(slot), sector: UInt64(slot) * 8, reference: pages[slot])
        }
        queue.push()
        var wait = pollfd(fd: queue.event, events: Int16(POLLIN), revents: 0)
        var done = 0
        queue.reap { response in
            free.append(Int(response.id))
            done += 1
        }
        if done > 0 { return done }
        guard poll(&wait, 1, 1000) > 0 else {
            throw BenchFailure("the blkif back end does not answer")
        }
        _ = queue.takeEvent()
        return 0
    }
}

extension String {
    fileprivate func padding(_ width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
}
