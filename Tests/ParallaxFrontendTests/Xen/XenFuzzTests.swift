// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxGuest
import ParallaxSimulation
import ParallaxXen
import Synchronization
import Testing

/// Seeded nonsense in ring pages, data pages and xenstore. The device may do anything but trap,
/// hang, leak or touch what is not the guest's; afterwards a good front end must be served.
///
/// `PARALLAX_FUZZ_SEEDS` is how many seeds each test takes, or the ones to take, as in 17..17. All
/// but the thread of `Scribbler` repeats itself with the seed.
@Suite("blkif fuzzing")
struct XenFuzzTests {
    static func seeds(_ count: UInt64) -> ClosedRange<UInt64> {
        guard let text = getenv("PARALLAX_FUZZ_SEEDS").map({ String(cString: $0) }) else {
            return 1...count
        }
        let ends = text.split(separator: ".").compactMap { UInt64($0) }
        guard let first = ends.first, let last = ends.last, first > 0, first <= last else {
            return 1...count
        }
        return (ends.count == 1 ? 1 : first)...last
    }

    @Test("any bytes decode to a request", arguments: seeds(4))
    func decoding(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for _ in 0..<10_000 {
            let bytes = (0..<112).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            for layout in BlkifLayout.allCases {
                let request = BlkifRequest(decoding: bytes.span.bytes, layout: layout)
                let segment = GrantSegment(
                    decoding: bytes.span.bytes,
                    at: layout.segmentsOffset + 8 * random.index(below: 10))
                if let count = segment.sectorCount { #expect((1...8).contains(count)) }
                #expect(request.operation == nil || request.operationNumber <= 6)
            }
        }
    }

    @Test("any keys make a plan within the bounds, or a fault", arguments: seeds(8))
    func keys(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for _ in 0..<2_000 {
            let keys = anyKeys(&random)
            do throws(XenFault) {
                let plan = try ConnectionPlan { keys[$0] }
                #expect((1...XenLimits.queueCountMax).contains(plan.queues.count))
                for queue in plan.queues {
                    let count = queue.references.count
                    #expect(
                        (1...XenLimits.ringPagesMax).contains(count) && count.nonzeroBitCount == 1)
                }
            } catch {
                #expect(error.text.hasSuffix(".") && error.text.utf8.count < 250)
            }
        }
    }

    private func anyKeys(_ random: inout SeededRandom) -> [String: String] {
        let values = [
            "", "0", "1", "2", "4", "5", "16", "17", "-1", "4294967295", "4294967296", "x86_32-abi",
            "x86_64-abi", "8", "9", "20", " 1", "1 ", "0x1", "é",
        ]
        var keys: [String: String] = [:]
        let names = [
            "protocol", "feature-persistent", "ring-page-order", "num-ring-pages",
            "multi-queue-num-queues", "ring-ref", "event-channel",
        ]
        for name in names where random.chance(percent: 50) {
            keys[name] = values[random.index(below: values.count)]
        }
        for folder in [""] + (0..<3).map({ "queue-\($0)/" }) {
            for page in 0..<4 where random.chance(percent: 80) {
                keys["\(folder)ring-ref\(page)"] = "9"
            }
            if random.chance(percent: 80) { keys[folder + "ring-ref"] = "8" }
            if random.chance(percent: 80) { keys[folder + "event-channel"] = "20" }
        }
        return keys
    }

    @Test("any states and keys in xenstore leave a device that works", arguments: seeds(12))
    func stores(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let rig = XenRig()
        rig.isRecording = false
        rig.front.makeNodes()
        try rig.start()
        for _ in 0..<200 {
            if random.oneIn(4) {
                rig.front.freePages()
                rig.front.writeKeys(
                    BlkfrontOptions(
                        queueCount: random.integer(in: 1...3),
                        ringPages: 1 << random.index(below: 3),
                        isPersistent: random.oneIn(2)))
            }
            if random.oneIn(3) {
                for (key, value) in anyKeys(&random).prefix(3) {
                    rig.xen.store["\(XenRig.frontend)/\(key)"] = value
                }
            }
            if random.oneIn(20) { rig.xen.store.disturbTransactions(random.integer(in: 0...40)) }
            rig.front.state = random.oneIn(15) ? "nonsense" : "\(random.integer(in: 1...8))"
            rig.isHolding = random.chance(percent: 20)
            for queue in rig.front.queues.indices where random.oneIn(2) {
                poke(rig, queue, &random)
            }
            rig.settle()
            if random.oneIn(2) { rig.release() }
            if rig.isDrained { try restart(rig) }
        }
        try expectService(rig)
    }

    @Test(
        "any ring leaves a device that works, while the guest changes its memory",
        arguments: seeds(12))
    func rings(seed: UInt64) throws {
        let rig = try XenRig.fuzzed(seed)
        let scribbler = Scribbler(rig.xen, seed: seed)
        try pokeAndRecover(rig, seed) { scribbler.pause($0) }
        scribbler.stop()
        try expectService(rig)
    }

    /// The same by one thread: the guest's memory changes at each call that the back end makes of
    /// Xen's libraries, so between the copy of a request and its mapping, between the mapping and
    /// the transfer, between the answer and the event.
    @Test(
        "any ring, while the guest changes its memory at each call, in a way that repeats itself",
        arguments: seeds(12))
    func ringsAtCalls(seed: UInt64) throws {
        let first = try runAtCalls(seed)
        guard seed == Self.seeds(12).lowerBound else { return }
        let second = try runAtCalls(seed)
        #expect(first == second, "seed \(seed) does not repeat itself")
    }

    /// What became of the guest's requests.
    private func runAtCalls(_ seed: UInt64) throws -> [XenCounters] {
        let rig = try XenRig.fuzzed(seed)
        var random = SeededRandom(seed: seed &+ 2000)
        let xen = rig.xen
        rig.xen.beforeCall = {
            for _ in 0..<4 { Scribbler.scribble(xen, &random) }
        }
        var counts: [XenCounters] = []
        try pokeAndRecover(rig, seed) { body in
            let scribble = xen.beforeCall
            xen.beforeCall = nil
            counts.append(rig.counters)
            body()
            xen.beforeCall = scribble
        }
        counts.append(rig.counters)
        rig.xen.beforeCall = nil
        try expectService(rig)
        return counts
    }

    /// Requests of every kind; a front end that was turned away begins anew in `quietly`.
    private func pokeAndRecover(
        _ rig: XenRig, _ seed: UInt64, quietly: (() -> Void) -> Void
    ) throws {
        var random = SeededRandom(seed: seed &+ 1)
        for _ in 0..<400 {
            rig.isHolding = random.chance(percent: 30)
            poke(rig, 0, &random)
            rig.settle()
            if random.oneIn(3) { rig.release() }
            _ = rig.front.queues[0].takeEvent()
            guard !rig.isConnected else { continue }
            quietly {
                rig.isHolding = false
                rig.release()
                rig.settle()
                rig.front.state = "1"
                rig.settle()
                rig.front.freePages()
                rig.front.writeKeys(rig.options)
                rig.front.state = "3"
                rig.settle()
            }
        }
        rig.isHolding = false
    }

    /// Puts a likely or unlikely request into the ring and shows it in a likely or unlikely way.
    private func poke(_ rig: XenRig, _ number: Int, _ random: inout SeededRandom) {
        let references: [UInt32] = [8, 9, 12, 20, 40, 100, 999_999, .max]
        for _ in 0..<random.integer(in: 0...5) {
            let entry = rig.front.queues[number].entry(rig.front.queues[number].produced)
            let segments = (0..<random.integer(in: 0...11)).map { _ in
                BlkfrontSegment(
                    reference: references[random.index(below: references.count)],
                    first: UInt8(random.oneIn(9) ? 255 : random.index(below: 8)),
                    last: UInt8(random.oneIn(9) ? 8 : 7))
            }
            rig.front.queues[number].consumed = rig.front.queues[number].produced
            rig.front.queues[number].put(
                operation: UInt8(random.integer(in: 0...7)), id: random.next(),
                sector: random.oneIn(9) ? random.next() : UInt64(random.integer(in: 0...4096)),
                segments: segments, count: random.oneIn(9) ? 200 : nil)
            if random.oneIn(6) {
                for offset in 0..<100 {
                    entry.storeBytes(
                        of: UInt8(truncatingIfNeeded: random.next()), toByteOffset: offset,
                        as: UInt8.self)
                }
            }
        }
        if random.oneIn(40) {
            rig.front.queues[number].requestProducer = UInt32(truncatingIfNeeded: random.next())
        } else {
            rig.front.queues[number].push()
        }
        if random.oneIn(3) {
            rig.front.queues[number].responseEvent = UInt32(truncatingIfNeeded: random.next())
        }
        if random.oneIn(3) { rig.xen.sendEvent(rig.front.queues[number].port) }
    }

    private func restart(_ rig: XenRig) throws {
        rig.destroy()
        rig.xen.store.remove(XenRig.frontend)
        rig.front.freePages()
        rig.front.makeNodes()
        try rig.start()
    }

    private func expectService(_ rig: XenRig) throws {
        rig.isHolding = false
        rig.release()
        rig.settle()
        rig.xen.store.disturbTransactions(0)
        #expect(rig.inFlight == 0)
        if !rig.isDrained { rig.stop(keepingGuest: true) }
        #expect(rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0)
        try restart(rig)
        rig.front.writeKeys(BlkfrontOptions())
        rig.front.state = "3"
        rig.settle()
        #expect(rig.front.backendState == "4")
        let data = XenRig.pattern(4096)
        let (reference, _) = rig.page(data)
        let response = rig.request(XenRig.write, sector: 3, [BlkfrontSegment(reference: reference)])
        #expect(response?.status == 0)
        #expect((rig.holds(data, atSector: 3)) as Bool)
    }
}

extension XenRig {
    /// Connected in a way that the seed chooses.
    static func fuzzed(_ seed: UInt64) throws -> XenRig {
        var random = SeededRandom(seed: seed)
        let rig = XenRig(queueCapacity: 32)
        rig.isRecording = false
        try rig.connect(
            BlkfrontOptions(
                ringPages: 1 << random.index(below: 3), isPersistent: random.oneIn(2),
                layout: random.oneIn(2) ? .x86For32 : .x86For64))
        return rig
    }
}

/// A processor of the guest that changes the first pages while the back end reads them.
final class Scribbler: Sendable {
    private let xen: PretendedXen
    private let seed: UInt64
    private let isStopped = Atomic(false)
    private let lock = Mutex(())
    private let thread = Mutex<pthread_t?>(nil)

    init(_ xen: PretendedXen, seed: UInt64) {
        self.xen = xen
        self.seed = seed
        var thread = pthread_t()
        let own = Unmanaged.passUnretained(self).toOpaque()
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Scribbler>.fromOpaque(argument).takeUnretainedValue().run()
                return nil
            }, own)
        precondition(result == 0, "no thread")
        self.thread.withLock { $0 = thread }
    }

    private func run() {
        var random = SeededRandom(seed: seed &+ 1000)
        while !isStopped.load(ordering: .relaxed) {
            lock.withLock { _ in for _ in 0..<64 { Self.scribble(xen, &random) } }
        }
    }

    /// Whole words, as a processor writes them; the indices of the first ring now and then.
    static func scribble(_ xen: PretendedXen, _ random: inout SeededRandom) {
        let offset =
            random.oneIn(5000) ? 4 * random.index(below: 4) : 64 + 4 * random.index(below: 12_000)
        xen.memory.storeBytes(
            of: UInt32(truncatingIfNeeded: random.next()), toByteOffset: offset, as: UInt32.self)
    }

    func pause(_ body: () -> Void) { lock.withLock { _ in body() } }

    func stop() {
        isStopped.store(true, ordering: .relaxed)
        let thread = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        if let thread { pthread_join(thread, nil) }
    }
}
