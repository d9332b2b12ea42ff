// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxGuest
import ParallaxSimulation
import ParallaxVhost
import Synchronization
import Testing

/// The project's own guest driver, in a thread of its own, against the device: the two were written
/// from the specification and not from each other.
@Suite("vhost-user with the guest driver", .serialized)
struct VhostDriverTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var queueCount = 1
        var queueSize = 128
        var dataSegmentBytes = Int.max
        var dropped: ParallaxGuest.VirtioFeatures = []
    }

    static let shapes: [Shape] = [
        Shape(testDescription: "as QEMU does it", queueCount: 2),
        Shape(testDescription: "small pieces", queueSize: 1024, dataSegmentBytes: 512),
        Shape(testDescription: "without EVENT_IDX", dropped: .eventIndex),
        Shape(
            testDescription: "without indirect descriptors", queueCount: 3,
            dropped: [.indirectDescriptors, .eventIndex]),
        Shape(testDescription: "16 queues", queueCount: 16, queueSize: 64),
    ]

    @Test("a driver writes, reads back and trims through real eventfds", arguments: shapes)
    func roundTrip(shape: Shape) throws {
        let folder = VhostFixture.makeFolder()
        defer { VhostFixture.removeFolder(folder) }
        let path = folder + "/disk.sock"
        let server = try VhostServerThread(path: path, sectors: 8192)
        defer { server.stop() }

        var options = BlockDriverOptions()
        options.queueCount = shape.queueCount
        options.queueSize = shape.queueSize
        options.requestsPerQueue = 8
        options.bufferBytes = 16384
        options.dataSegmentBytes = shape.dataSegmentBytes
        options.features.subtract(shape.dropped)
        var driver = try BlockDriver(connectingTo: path, options: options)
        #expect(driver.capacityBytes == 8192 * 512)

        var random = SeededRandom(seed: 11)
        var model = [UInt8](repeating: 0, count: 8192 * 512)
        for step in 0..<200 {
            let queue = step % shape.queueCount
            let sectors = random.integer(in: 1...32)
            let sector = random.integer(in: 0...(8192 - sectors))
            let range = (sector * 512)..<((sector + sectors) * 512)
            guard let slot = driver.reserve(queue: queue) else { break }
            let isWrite = random.chance(percent: 60)
            if isWrite {
                let data = VhostFixture.pattern(range.count, seed: step)
                driver.buffer(queue: queue, slot: slot).copyBytes(from: data)
                model.replaceSubrange(range, with: data)
            }
            driver.submit(
                queue: queue, slot: slot, isWrite ? .write : .read, firstSector: UInt64(sector),
                byteCount: range.count, tag: UInt64(step))
            driver.publish(queue: queue)
            let done = try finish(&driver, queue)
            #expect(done.tag == UInt64(step))
            #expect(done.status == 0)
            if !isWrite {
                let got = driver.buffer(queue: queue, slot: slot)[..<range.count]
                #expect(got.elementsEqual(model[range]))
            }
        }
    }

    private func finish(
        _ driver: inout BlockDriver, _ queue: Int
    ) throws -> DriverQueue.Completion {
        while true {
            if let done = try driver.reap(queue: queue) { return done }
            _ = try driver.wait(timeoutMilliseconds: 10_000)
        }
    }
}

/// A rig in a thread of its own. The device is made there, as a shard does it.
final class VhostServerThread: Sendable {
    private let isStopping: Atomic<Bool>
    private let state = Mutex<State>(.starting)
    private enum State { case starting, running, failed, ended }

    init(path: String, sectors: UInt64) throws {
        isStopping = Atomic(false)
        var thread = pthread_t()
        let body = Unmanaged.passRetained(Job(server: self, path: path, sectors: sectors))
        pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Job>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
        pthread_detach(thread)
        while state.withLock({ $0 == .starting }) { sched_yield() }
    }

    func stop() {
        isStopping.store(true, ordering: .relaxed)
        while state.withLock({ $0 == .running }) { sched_yield() }
    }

    private final class Job: Sendable {
        let server: VhostServerThread
        let path: String
        let sectors: UInt64

        init(server: VhostServerThread, path: String, sectors: UInt64) {
            self.server = server
            self.path = path
            self.sectors = sectors
        }

        func run() {
            guard let rig = try? VhostRig(path: path, sectors: sectors) else {
                return server.state.withLock { $0 = .failed }
            }
            rig.isRecording = false
            server.state.withLock { $0 = .running }
            while !server.isStopping.load(ordering: .relaxed) { rig.turn(timeoutMilliseconds: 5) }
            server.state.withLock { $0 = .ended }
        }
    }
}
