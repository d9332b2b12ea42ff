// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxGuest
import ParallaxSimulation
import ParallaxXen
import Testing

/// A daemon that ends, and its successor, under a guest that notices neither.
@Suite("Xen restart under a live guest")
struct XenTakeoverTests {
    private func put(_ rig: XenRig, _ ids: Range<Int>) {
        for id in ids {
            let (reference, _) = rig.page(XenRig.pattern(512, seed: id))
            rig.front.queues[0].put(
                operation: XenRig.write, id: UInt64(id), sector: UInt64(id),
                segments: [BlkfrontSegment(reference: reference, last: 0)])
        }
    }

    @Test("a daemon that stops leaves the guest connected, and its successor goes on")
    func orderlyRestart() throws {
        let rig = XenRig()
        try rig.connect()
        put(rig, 0..<3)
        #expect(rig.run().count == 3)
        rig.stop(keepingGuest: true)
        #expect(rig.device == nil && rig.xen.mappedPages == 0 && rig.xen.boundPorts == 0)
        #expect(rig.front.backendState == "4")
        put(rig, 3..<6)
        rig.front.queues[0].push()
        try rig.start()
        #expect(rig.front.queues[0].reap().map(\.id) == [3, 4, 5])
        #expect(
            rig.notices.last
                == .connected(queues: 1, ringPages: 1, isPersistent: true, isTakenOver: true))
    }

    @Test("requests in flight at a stop are answered before it ends")
    func stopWithRequests() throws {
        let rig = XenRig()
        try rig.connect()
        rig.isHolding = true
        put(rig, 0..<4)
        _ = rig.run()
        rig.stop(keepingGuest: true)
        #expect(rig.device != nil)
        put(rig, 4..<6)
        rig.front.queues[0].push()
        rig.isHolding = false
        rig.release()
        rig.settle()
        #expect(rig.isDrained)
        rig.destroy()
        #expect(rig.front.queues[0].reap().map(\.id).sorted() == [0, 1, 2, 3])
        try rig.start()
        #expect(rig.front.queues[0].reap().map(\.id) == [4, 5])
    }

    @Test("whatever was answered at a sudden end, the rest is answered once", arguments: 1...20)
    func suddenEnds(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var rig = XenRig()
        try rig.connect(BlkfrontOptions(layout: random.oneIn(2) ? .x86For32 : .x86For64))
        var open: Set<UInt64> = []
        var next = 0
        for _ in 0..<12 {
            rig.isHolding = true
            let room = Int(rig.front.queues[0].size) - open.count
            let count = min(random.integer(in: 1...6), room)
            put(rig, next..<next + count)
            for id in next..<next + count { open.insert(UInt64(id)) }
            next += count
            _ = rig.front.queues[0].push()
            rig.settle()
            for _ in 0..<random.integer(in: 0...4) where !rig.held.isEmpty {
                rig.release(at: random.index(below: rig.held.count))
            }
            if random.oneIn(2) { take(rig, &open) }
            guard random.oneIn(2) else { continue }
            let successor = rig.afterSuddenEnd()
            rig.isHolding = false
            rig.release()
            rig = successor
            rig.isHolding = true
            try rig.start()
        }
        rig.isHolding = false
        rig.release()
        rig.settle()
        take(rig, &open)
        #expect(open.isEmpty, "never answered")
        for id in 0..<next { #expect(rig.holds(XenRig.pattern(512, seed: id), atSector: id)) }
    }

    private func take(_ rig: XenRig, _ open: inout Set<UInt64>) {
        for response in rig.front.queues[0].reap() {
            #expect(
                open.remove(response.id) != nil, "\(response.id) was answered twice, or never asked"
            )
            #expect(response.status == 0 && response.operation == XenRig.write)
        }
    }

    /// How far the answer to the second of two requests has come: it takes the first entry of the
    /// ring, where the first request is, which moves to the second.
    enum Moment: CaseIterable {
        case journalWritten, moveBegun, halfMoved, moved, answerBegun, halfAnswered, answered, shown
    }

    // The offsets are a contract with daemons of other versions.
    @Test(
        "an answer that was being written when the daemon ended is finished",
        arguments: Moment.allCases)
    func tornAnswer(moment: Moment) throws {
        let rig = XenRig()
        try rig.connect()
        rig.isHolding = true
        put(rig, 0..<2)
        _ = rig.run()
        let next = rig.afterSuddenEnd()
        rig.isHolding = false
        rig.release()

        let ring = next.front.queues[0]
        let first = ring.entry(0)
        let second = ring.entry(1)
        let old = [UInt8](UnsafeRawBufferPointer(start: second, count: 112))
        func journal(_ offset: Int, _ value: UInt32) {
            ring.base.storeBytes(of: value, toByteOffset: 24 + offset, as: UInt32.self)
        }
        journal(4, 0)
        journal(8, 1)
        journal(12, 1)
        journal(16, 0)
        journal(20, UInt32(XenRig.write))
        if moment != .journalWritten { journal(0, 0x5058_4d31) }
        switch moment {
        case .journalWritten, .moveBegun: break
        case .halfMoved: memcpy(second, first, 40)
        default: memcpy(second, first, 112)
        }
        if [.answerBegun, .halfAnswered, .answered, .shown].contains(moment) {
            journal(0, 0x5058_4131)
        }
        if moment == .halfAnswered { first.storeBytes(of: 1, as: UInt32.self) }
        if moment == .answered || moment == .shown {
            first.storeBytes(of: 1, as: UInt64.self)
            first.storeBytes(of: UInt32(XenRig.write), toByteOffset: 8, as: UInt32.self)
        }
        if moment == .shown { ring.base.storeBytes(of: 1, toByteOffset: 8, as: UInt32.self) }
        #expect(old != [UInt8](repeating: 0, count: 112))

        next.isHolding = true
        try next.start()
        let ids = next.held.map(\.firstSector).sorted()
        #expect(ids == (moment == .journalWritten ? [0, 1] : [0]))
        next.isHolding = false
        next.release()
        next.settle()
        let responses = next.front.queues[0].reap()
        #expect(responses.map(\.id).sorted() == [0, 1])
        #expect(responses.allSatisfy { $0.status == 0 && $0.operation == XenRig.write })
    }

    @Test("a journal that the guest has made up harms nobody but the guest", arguments: 1...8)
    func forgedJournal(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let rig = XenRig()
        try rig.connect()
        put(rig, 0..<2)
        #expect(rig.run().count == 2)
        rig.stop(keepingGuest: true)
        let base = rig.front.queues[0].base
        let phase: UInt32 = random.oneIn(2) ? 0x5058_4d31 : 0x5058_4131
        base.storeBytes(of: phase, toByteOffset: 24, as: UInt32.self)
        base.storeBytes(of: 2, toByteOffset: 28, as: UInt32.self)
        for offset in stride(from: 32, to: 48, by: 4) {
            base.storeBytes(
                of: UInt32(truncatingIfNeeded: random.next()), toByteOffset: offset, as: UInt32.self
            )
        }
        if random.oneIn(2) { base.storeBytes(of: 5, toByteOffset: 32, as: UInt32.self) }
        try rig.start()
        rig.front.state = "6"
        rig.settle()
        #expect(rig.xen.mappedPages == 0)
    }
}
