// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore
internal import ParallaxGuest
internal import ParallaxSimulation

/// A guest that keeps to the rules, but for single bad requests, and knows what each answer must
/// be. It looks at a ring only when it has got an event for it.
final class BlkifGuest {
    var front: BlkfrontDriver
    var model: SectorModel
    /// As the back end has told it.
    var sectors = 0
    let isReadOnly: Bool
    private(set) var orders: [UInt64: GuestOrder] = [:]
    /// What a back end let go without an answer: to be asked again.
    private var again: [GuestOrder] = []
    private var pool: [Int] = []
    /// Pages that the back end may only read: good for writes to the disk.
    private var readOnlyPages: Set<Int> = []
    private var nextID: UInt64 = 1
    private var nextVersion: UInt64 = 1
    private var nextSequence = 0
    private let canary: ModelEngine

    struct Statistics {
        var requests = 0
        var answers = 0
        var refusals = 0
        var errors = 0
    }

    var statistics = Statistics()
    var trace: Trace

    init(
        front: BlkfrontDriver, capacity: Int, isReadOnly: Bool, canary: ModelEngine, trace: Trace
    ) {
        self.front = front
        self.isReadOnly = isReadOnly
        self.canary = canary
        self.trace = trace
        model = SectorModel(capacity: capacity)
    }

    var isIdle: Bool { orders.isEmpty && again.isEmpty }
    var unanswered: Int { orders.count }

    private func memory(_ page: Int) -> UnsafeMutableRawPointer { front.xen.page(page) }
    /// The driver grants page N as N + 8.
    private func reference(_ page: Int) -> UInt32 { UInt32(page + 8) }

    // MARK: Connections

    /// The rings have been made; all other pages are for data.
    func fillPool(count: Int) {
        precondition(orders.isEmpty, "pages of requests under way were given away")
        readOnlyPages = []
        pool = (0..<count).map { index in
            let isReadOnly = index % 16 == 15
            let page = Int(front.allocatePage(isReadOnly: isReadOnly).reference) - 8
            if isReadOnly { readOnlyPages.insert(page) }
            return page
        }
    }

    /// The back end has answered all that it took, and let go of the rings.
    func keepForLater() {
        for order in sortedOrders {
            release(order)
            if order.isChange || order.kind == .read { again.append(order) }
        }
        orders = [:]
    }

    /// The guest begins anew without having seen the answers.
    func forgetAll() {
        for order in sortedOrders {
            release(order)
            if order.isChange, !isReadOnly {
                model.mayBecome(order.sectors, version: order.version)
            }
        }
        orders = [:]
        for order in again where order.isChange && !isReadOnly {
            model.mayBecome(order.sectors, version: order.version)
        }
        again = []
    }

    var sortedOrders: [GuestOrder] { orders.keys.sorted().compactMap { orders[$0] } }

    /// The disk has a new size; nothing is under way.
    func resize(_ count: Int) {
        if count < sectors {
            model.set(count..<sectors, version: 0)
            again.removeAll { $0.sectors.upperBound > count }
        }
        sectors = count
    }

    /// From now on, or until now, the engine fails.
    func noteFailing() { for id in orders.keys { orders[id]?.mayFail = true } }

    private func release(_ order: GuestOrder) {
        for part in order.parts { pool.append(part.page) }
        if let table = order.table { pool.append(table) }
        model.vacate(order.sectors, toWrite: order.isChange)
    }
}

// MARK: - Requests

extension BlkifGuest {
    /// Puts up to `count` requests into rings, and shows them to the back end.
    func burst(_ count: Int, _ random: inout SeededRandom, mayFail: Bool) {
        for _ in 0..<count {
            let queue = random.index(below: front.queues.count)
            if !again.isEmpty {
                var order = again.removeFirst()
                order.parts = []
                order.table = nil
                if !place(order, queue, &random, mayFail: mayFail) { again.insert(order, at: 0) }
            } else if let order = draw(&random) {
                _ = place(order, queue, &random, mayFail: mayFail)
            }
        }
        for queue in front.queues.indices where random.chance(percent: 90) {
            front.queues[queue].push()
        }
    }

    /// Only what had been kept for later.
    func burstAgain(_ random: inout SeededRandom) {
        if !again.isEmpty { burst(again.count, &random, mayFail: false) }
    }

    /// What a driver does in the end: everything is shown.
    func pushAll() { for queue in front.queues.indices { front.queues[queue].push() } }

    private func draw(_ random: inout SeededRandom) -> GuestOrder? {
        let kinds: [GuestOrder.Kind] = [
            .read, .write, .barrier, .flush, .emptyBarrier, .discard,
            .refused(
                GuestOrder.Refusal.allCases[
                    random.index(below: GuestOrder.Refusal.allCases.count)]),
        ]
        let kind = kinds[random.weightedIndex([8, 10, 1, 1, 1, 2, 2])]
        let most = kind == .barrier ? 40 : random.oneIn(4) ? 200 : 40
        let count = random.integer(in: 1...most)
        var order = GuestOrder(id: nextID, kind: kind, sectors: 0..<0)
        switch kind {
        case .flush, .emptyBarrier, .refused: break
        case .read, .write, .barrier, .discard:
            guard count < sectors else { return nil }
            let start = random.index(below: sectors - count)
            order.sectors = start..<(start + count)
        }
        nextID += 1
        if kind == .write || kind == .barrier {
            order.version = nextVersion
            nextVersion += 1
        }
        return order
    }

    /// False: there is no room for it now.
    private func place(
        _ wanted: GuestOrder, _ queue: Int, _ random: inout SeededRandom, mayFail: Bool
    ) -> Bool {
        var order = wanted
        guard !front.queues[queue].isFull,
            model.isFree(order.sectors, toWrite: order.isChange),
            order.sectors.upperBound <= sectors
        else { return false }
        let hasData = order.kind == .read || order.kind == .write || order.kind == .barrier
        if hasData, !split(&order, &random) { return false }
        order.queue = queue
        order.mayFail = mayFail
        order.sequence = nextSequence
        nextSequence += 1
        if order.kind == .write || order.kind == .barrier { fill(order) }
        write(&order)
        model.occupy(order.sectors, toWrite: order.isChange)
        orders[order.id] = order
        statistics.requests += 1
        trace.note(
            .submit, order.id, UInt64(queue), UInt64(order.sectors.lowerBound),
            "  guest: \(order.kind) \(order.sectors) as \(order.id) in queue \(queue)")
        return true
    }

    /// Spreads the sectors over parts of pages.
    private func split(_ order: inout GuestOrder, _ random: inout SeededRandom) -> Bool {
        var left = order.sectors.count
        let isTight = order.kind != .barrier && random.oneIn(3)
        while left > 0 {
            guard let page = takePage(toRead: order.kind == .read) else {
                for part in order.parts { pool.append(part.page) }
                return false
            }
            let first = isTight ? random.index(below: 8) : 0
            let count = min(left, isTight ? random.integer(in: 1...(8 - first)) : 8)
            order.parts.append(GuestOrder.Part(page: page, first: first, count: count))
            left -= count
        }
        guard order.parts.count > 11 else { return true }
        guard order.parts.count <= 256, let table = takePage(toRead: true) else {
            for part in order.parts { pool.append(part.page) }
            return false
        }
        order.table = table
        return true
    }

    private func takePage(toRead: Bool) -> Int? {
        guard let index = pool.lastIndex(where: { !toRead || !readOnlyPages.contains($0) })
        else { return nil }
        return pool.remove(at: index)
    }

    private func fill(_ order: GuestOrder) {
        var sector = order.sectors.lowerBound
        for part in order.parts {
            for index in part.first..<(part.first + part.count) {
                SectorModel.fill(
                    memory(part.page) + index * sectorBytes, sector: sector,
                    version: order.version)
                sector += 1
            }
        }
    }

    private func write(_ order: inout GuestOrder) {
        let sector = UInt64(order.sectors.lowerBound)
        let segments = order.parts.map { part in
            BlkfrontSegment(
                reference: reference(part.page), first: UInt8(part.first),
                last: UInt8(part.first + part.count - 1))
        }
        switch order.kind {
        case .discard:
            front.queues[order.queue].putDiscard(
                id: order.id, sector: sector, sectorCount: UInt64(order.sectors.count))
        case .refused(let refusal): write(refusal, order)
        default:
            guard let table = order.table else {
                front.queues[order.queue].put(
                    operation: order.operation, id: order.id, sector: sector, segments: segments)
                return
            }
            for (index, segment) in segments.enumerated() {
                BlkfrontQueue.store(segment, at: memory(table) + 8 * index)
            }
            front.queues[order.queue].putIndirect(
                operation: order.operation, id: order.id, sector: sector,
                count: UInt16(segments.count), pages: [reference(table)])
        }
    }

    private func write(_ refusal: GuestOrder.Refusal, _ order: GuestOrder) {
        let page = reference(pool.first ?? 0)
        func put(_ segments: [BlkfrontSegment], sector: UInt64 = 0, count: UInt8? = nil) {
            front.queues[order.queue].put(
                operation: order.operation, id: order.id, sector: sector, segments: segments,
                count: count)
        }
        switch refusal {
        case .unknownOperation: put([BlkfrontSegment(reference: page)])
        case .secureDiscard:
            front.queues[order.queue].putDiscard(
                id: order.id, sector: 0, sectorCount: 8, isSecure: true)
        case .pastTheEnd:
            put([BlkfrontSegment(reference: page)], sector: UInt64(sectors) - 7)
        case .badGrant: put([BlkfrontSegment(reference: 3_999_999)])
        case .badSectors: put([BlkfrontSegment(reference: page, first: 5, last: 4)])
        case .noSegments: put([])
        case .tooManySegments: put([BlkfrontSegment(reference: page)], count: 12)
        case .hollowIndirect:
            front.queues[order.queue].putIndirect(
                operation: order.operation, id: order.id, sector: 0, count: 0, pages: [page])
        }
    }
}

// MARK: - Answers

extension BlkifGuest {
    /// Takes the answers of the rings that it has got events for. True: there was one.
    func hearEvents() throws(SimulationFailure) -> Bool {
        var hasHeard = false
        for queue in front.queues.indices where front.queues[queue].takeEvent() {
            hasHeard = true
            if canary.isCaught(by: .lostAnswerEvent) { continue }
            try takeAnswers(queue)
        }
        return hasHeard
    }

    func takeAnswers(_ queue: Int) throws(SimulationFailure) {
        for answer in front.queues[queue].reap() { try take(answer, queue) }
    }

    private func take(_ answer: BlkfrontResponse, _ queue: Int) throws(SimulationFailure) {
        guard let order = orders.removeValue(forKey: answer.id) else {
            throw SimulationFailure("answer to \(answer.id), which is not under way")
        }
        statistics.answers += 1
        trace.note(
            .reply, answer.id, UInt64(bitPattern: Int64(answer.status)),
            "  guest: \(answer.id) answered with \(answer.status)")
        guard order.queue == queue, answer.operation == order.operation else {
            throw SimulationFailure(
                "answer to \(answer.id) in queue \(queue) for operation \(answer.operation)")
        }
        try checkOrder(order)
        defer { release(order) }
        let expected = order.status(isReadOnly: isReadOnly)
        if answer.status != expected {
            guard order.mayFail, expected == 0, answer.status == -1 else {
                throw SimulationFailure(
                    "\(order.kind) \(answer.id) ended with \(answer.status), not \(expected)")
            }
            statistics.errors += 1
            // A daemon that ended at once may have carried it out before.
            if order.isChange { model.mayBecome(order.sectors, version: order.version) }
            return
        }
        if expected != 0 {
            statistics.refusals += 1
        } else if order.kind == .read {
            try checkData(order)
        } else if order.isChange {
            model.set(order.sectors, version: order.version)
        }
    }

    /// A barrier ends after all before it in its queue, and before all after it.
    private func checkOrder(_ order: GuestOrder) throws(SimulationFailure) {
        for other in orders.values where other.queue == order.queue {
            if order.isBarrier, other.sequence < order.sequence {
                throw SimulationFailure("barrier \(order.id) ended before \(other.id)")
            }
            if other.isBarrier, other.sequence < order.sequence {
                throw SimulationFailure("\(order.id) ended before barrier \(other.id)")
            }
        }
    }

    private func checkData(_ order: GuestOrder) throws(SimulationFailure) {
        var sector = order.sectors.lowerBound
        for part in order.parts {
            for index in part.first..<(part.first + part.count) {
                let bytes = UnsafeRawPointer(memory(part.page) + index * sectorBytes)
                guard model.check(bytes, sector: sector) else {
                    throw SimulationFailure(
                        "read of \(model.describe(sector)) gives something else")
                }
                sector += 1
            }
        }
    }
}
