// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxVhost

/// A device with a front end, kept from one input to the next, and proved to work after each few.
final class VhostScene {
    // SAFETY: libFuzzer calls from one thread.
    nonisolated(unsafe) static let shared = VhostScene()

    private let path = "/tmp/parallax-fuzz-\(getpid()).sock"
    let rig: VhostRig
    private(set) var front: PretendedFrontEnd
    private var runs = 0

    private init() {
        guard let rig = try? VhostRig(path: path, sectors: 64, queueCapacity: 64) else {
            preconditionFailure("no socket at \(path)")
        }
        rig.isRecording = false
        self.rig = rig
        front = PretendedFrontEnd(rig, path: path)
    }

    /// Nothing is in flight, and a new front end is connected.
    func begin() {
        rig.isHolding = false
        rig.release()
        front.freeAll()
        front.reconnect(to: rig, path: path)
        precondition(rig.isConnected, "the device does not take a new front end")
        precondition(rig.inFlight == 0, "a request of the last front end is left")
        runs += 1
        if runs % 64 == 0 { expectService() }
    }

    private func expectService() {
        front.negotiate()
        let queue = PretendedQueue(front)
        queue.start()
        let bytes = (0..<512).map { UInt8(truncatingIfNeeded: $0 ^ runs) }
        let request = queue.add(1, sector: 5, write: bytes)
        queue.run()
        precondition(queue.status(request) == 0, "a write is not answered any more")
        precondition([UInt8](rig.disk[2560..<3072]) == bytes, "a write went elsewhere")
        front.freeAll()
        front.reconnect(to: rig, path: path)
    }
}

/// Messages of the front end: each a request, flags, descriptors and a payload.
enum VhostMessages {
    static func run(_ start: Input) {
        var input = start
        let scene = VhostScene.shared
        scene.begin()
        let front = scene.front
        if input.byte() & 1 != 0 { front.negotiate() }
        let queue = PretendedQueue(front)
        if input.byte() & 1 != 0 { queue.start() }
        var turns = 0
        while !input.isAtEnd, turns < 64, !front.isDisconnected {
            turns += 1
            scene.rig.isHolding = input.byte() & 3 == 0
            switch input.below(8) {
            case 0: front.sendBytes(input.take(input.below(64)))
            case 1: scene.rig.release()
            case 2: addRequest(queue, &input)
            default: sendMessage(front, queue, &input)
            }
            while front.receive() != nil {}
        }
    }

    private static func sendMessage(
        _ front: PretendedFrontEnd, _ queue: PretendedQueue, _ input: inout Input
    ) {
        let request = UInt32(input.byte()) % 48
        let flags = UInt32(input.byte() & 15)
        let files = [queue.kick, queue.call, front.memoryFile, front.memoryFile, front.deadSocket]
        let chosen = (0..<(input.below(10))).map { _ in files[input.below(files.count)] }
        var payload = template(front, queue, &input)
        for _ in 0..<input.below(4) where !payload.isEmpty {
            payload[input.below(payload.count)] = input.byte()
        }
        let announced = UInt32(payload.count) + UInt32(input.byte() == 1 ? 1 : 0)
        front.sendBytes(
            request.bytes + flags.bytes + announced.bytes + payload, files: chosen)
    }

    /// A payload that is right for some request.
    private static func template(
        _ front: PretendedFrontEnd, _ queue: PretendedQueue, _ input: inout Input
    ) -> [UInt8] {
        let number = UInt32(input.byte())
        switch input.below(9) {
        case 0: return []
        case 1: return input.word().bytes
        case 2: return UInt32(number % 17).bytes + UInt32(input.byte()).bytes
        case 3: return queue.addresses
        case 4:
            let region = front.region(
                at: Int(number) * 4096, byteCount: input.below(256) * 16384)
            return UInt64(0).bytes + region.bytes
        case 5: return UInt32(1).bytes + UInt32(0).bytes + front.region().bytes
        case 6: return UInt32(32).bytes + UInt32(1).bytes + UInt32(0).bytes + [input.byte()]
        case 7:
            return KeptArea.description(
                UInt64(number) << 12, queues: UInt16(input.below(18)), size: 1 << (number % 12))
        default: return input.take(input.below(80))
        }
    }

    private static func addRequest(_ queue: PretendedQueue, _ input: inout Input) {
        queue.nextDescriptor = 0
        _ = queue.add(UInt32(input.below(14)), sector: UInt64(input.below(70)), read: 512)
        queue.run()
    }
}

/// A ring, its tables and its chains, of which half changes while the device reads it.
enum VirtqueueContents {
    static func run(_ start: Input) {
        var input = start
        let scene = VhostScene.shared
        scene.begin()
        let front = scene.front
        front.negotiate()
        let queue = PretendedQueue(front, size: 16)
        queue.start()
        let table = front.allocate(16 * 16)
        let blocks = front.allocate(8192, alignment: 4096)
        let changing = input.byte() & 1 != 0
        var turns = 0
        while !input.isAtEnd, turns < 32 {
            turns += 1
            scene.rig.isHolding = input.byte() & 3 == 0
            let first = descriptors(table: table, blocks: blocks, &input)
            let second = changing ? descriptors(table: table, blocks: blocks, &input) : first
            write(first, queue, table: table)
            queue.setAvailableEntry(UInt16(input.below(20)))
            if input.byte() == 1 { queue.nextAvailable = UInt16(truncatingIfNeeded: input.word()) }
            queue.setUsedEvent(UInt16(input.byte()))
            let other = changing ? Changer(queue, table: table, first, second) : nil
            queue.run()
            other?.stop()
            if input.byte() & 1 != 0 { scene.rig.release() }
        }
    }

    fileprivate static func write(
        _ all: [Descriptor], _ queue: PretendedQueue, table: UInt64
    ) {
        for (index, descriptor) in all.prefix(8).enumerated() {
            queue.setDescriptor(index, descriptor)
        }
        queue.frontEnd.store(all.dropFirst(8).flatMap(\.bytes), at: table)
    }

    /// Eight for the ring's table, eight for an indirect one, which begins with a header.
    private static func descriptors(
        table: UInt64, blocks: UInt64, _ input: inout Input
    ) -> [Descriptor] {
        (0..<16).map { _ in
            let places = [blocks, table, blocks + 4095, PretendedFrontEnd.guestBase, 0, .max]
            let lengths: [UInt32] = [16, 512, 1, 4096, 256, 0, 17, .max]
            return Descriptor(
                address: places[input.below(places.count)],
                byteCount: lengths[input.below(lengths.count)],
                flags: UInt16(input.byte() & 7), next: UInt16(input.below(20)))
        }
    }
}

/// Another processor of the guest, which changes what the device reads.
///
/// SAFETY: the memory outlives the thread, which `stop` joins; guest memory is read by the device in
/// a way that allows for this.
private final class Changer: @unchecked Sendable {
    private let isOver = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
    private var thread = pthread_t()
    private let body: (Int) -> Void

    init(_ queue: PretendedQueue, table: UInt64, _ first: [Descriptor], _ second: [Descriptor]) {
        isOver.initialize(to: 0)
        body = { round in
            VirtqueueContents.write(round % 2 == 0 ? second : first, queue, table: table)
        }
        let context = Unmanaged.passRetained(self).toOpaque()
        pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                let changer = Unmanaged<Changer>.fromOpaque(context).takeRetainedValue()
                var round = 0
                while parallax_load_relaxed_u32(changer.isOver) == 0 {
                    changer.body(round)
                    round += 1
                }
                return nil
            }, context)
    }

    func stop() {
        parallax_store_relaxed_u32(isOver, 1)
        pthread_join(thread, nil)
        isOver.deallocate()
    }
}

/// An in-flight area with any content, and requests in the ring beside it.
enum InflightContents {
    static func run(_ start: Input) {
        var input = start
        let scene = VhostScene.shared
        scene.begin()
        let front = scene.front
        front.negotiate()
        guard let area = KeptArea(front, size: 16) else { preconditionFailure("no area") }
        let queue = PretendedQueue(front, size: 16)
        for _ in 0..<4 where !input.isAtEnd {
            area.version = input.byte() & 7 == 0 ? UInt16(input.byte()) : 1
            area.bytes.storeBytes(
                of: 16, toByteOffset: InflightLayout.entryCountOffset, as: UInt16.self)
            for _ in 0..<input.below(40) {
                area.bytes[(input.below(3) << 8 | input.below(256)) % area.layout.byteCount] =
                    input.byte()
            }
            for head in 0..<UInt16(16) where input.byte() & 1 != 0 { area.mark(head) }
            precondition(area.giveWhatever(front), "taken or refused for no good reason")
            queue.start(at: UInt16(truncatingIfNeeded: input.word()))
            scene.rig.isHolding = input.byte() & 1 != 0
            queue.nextDescriptor = 0
            _ = queue.add(
                1, sector: UInt64(input.below(64)), write: [UInt8](repeating: 1, count: 512))
            queue.run()
            scene.rig.isHolding = false
            scene.rig.release()
            scene.rig.settle()
            precondition(queue.stop() != nil, "a queue does not stop")
            front.freeAll()
        }
    }
}
