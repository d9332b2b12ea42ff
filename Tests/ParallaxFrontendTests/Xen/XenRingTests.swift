// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxGuest
import ParallaxXen
import Testing

@Suite("blkif rings")
struct XenRingTests {
    /// Writes of one sector each, with the sector's number as id and in the data.
    private func put(_ rig: XenRig, _ sectors: Range<Int>, queue: Int = 0) {
        for sector in sectors {
            let (reference, _) = rig.page(XenRig.pattern(512, seed: sector))
            rig.front.queues[queue].put(
                operation: XenRig.write, id: UInt64(sector), sector: UInt64(sector),
                segments: [BlkfrontSegment(reference: reference, last: 0)])
        }
    }

    @Test(
        "a ring of any size goes round many times",
        arguments: [1, 2, 4, 8, 16], BlkfrontLayout.allCases)
    func sizes(pages: Int, layout: BlkfrontLayout) throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(ringPages: pages, layout: layout))
        let size = Int(rig.front.queues[0].size)
        #expect(size == 32 * pages)
        let (reference, page) = rig.page()
        for round in 0..<5 {
            memset(page, Int32(round + 1), 512)
            for index in 0..<size {
                rig.front.queues[0].put(
                    operation: XenRig.write, id: UInt64(round * size + index),
                    sector: UInt64(index),
                    segments: [BlkfrontSegment(reference: reference, last: 0)])
            }
            let ids = rig.run().map(\.id)
            #expect(ids.sorted() == (0..<size).map { UInt64(round * size + $0) })
            #expect(
                (rig.holds([UInt8](repeating: UInt8(round + 1), count: 512), atSector: size - 1))
                    as Bool)
        }
    }

    @Test("several queues are served, each by its own event channel")
    func queues() throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(queueCount: 16, ringPages: 2))
        #expect(rig.xen.boundPorts == 16)
        for queue in 0..<16 { put(rig, queue * 3..<queue * 3 + 3, queue: queue) }
        for queue in 0..<16 { rig.front.queues[queue].push() }
        rig.settle()
        for queue in 0..<16 {
            #expect(rig.front.queues[queue].reap().count == 3)
            #expect(rig.front.queues[queue].takeEvent())
        }
        for sector in 0..<48 {
            #expect((rig.holds(XenRig.pattern(512, seed: sector), atSector: sector)) as Bool)
        }
    }

    @Test("answers in any order leave the unanswered requests in the ring")
    func order() throws {
        let rig = XenRig()
        try rig.connect()
        rig.isHolding = true
        put(rig, 0..<8)
        _ = rig.run()
        for index in [5, 2, 0] { rig.release(at: index) }
        #expect(rig.front.queues[0].reap().map(\.id) == [5, 2, 0])
        put(rig, 8..<10)
        _ = rig.run()
        rig.isHolding = false
        rig.release()
        #expect(rig.front.queues[0].reap().map(\.id).sorted() == [1, 3, 4, 6, 7, 8, 9])
        for sector in 0..<10 {
            #expect((rig.holds(XenRig.pattern(512, seed: sector), atSector: sector)) as Bool)
        }
    }

    @Test("events are held off: one for a batch of answers, none that is not wanted")
    func holdOff() throws {
        let rig = XenRig()
        try rig.connect()
        _ = rig.front.queues[0].reap()
        while rig.front.queues[0].takeEvent() {}
        put(rig, 0..<10)
        #expect(rig.front.queues[0].push())
        rig.settle()
        #expect(rig.counters.notifications == 1)
        #expect(rig.front.queues[0].takeEvent())
        // rsp_event is behind: the front end is still looking.
        put(rig, 10..<12)
        _ = rig.front.queues[0].push()
        rig.settle()
        #expect(!rig.front.queues[0].takeEvent())
        #expect(rig.front.queues[0].reap().count == 12)
        // An event after the third answer.
        rig.front.queues[0].responseEvent = rig.front.queues[0].consumed + 3
        rig.isHolding = true
        put(rig, 12..<16)
        _ = rig.run()
        rig.front.queues[0].responseEvent = rig.front.queues[0].consumed + 3
        var events = 0
        for _ in 0..<4 {
            rig.release(at: 0)
            if rig.front.queues[0].takeEvent() { events += 1 }
        }
        #expect(events == 1)
        #expect(rig.counters.notifications == 2)
    }

    @Test("the request event is armed behind the last request, and a busy back end needs none")
    func requestEvent() throws {
        let rig = XenRig()
        try rig.connect()
        #expect(rig.front.queues[0].requestEvent == 1)
        put(rig, 0..<3)
        #expect(rig.front.queues[0].push())
        put(rig, 3..<4)
        #expect(!rig.front.queues[0].push(), "an event for what the first one announced")
        rig.settle()
        #expect(rig.front.queues[0].requestEvent == 5)
        #expect(rig.front.queues[0].reap().count == 4)
    }

    @Test("requests that find no room are taken when there is room again")
    func stalls() throws {
        let rig = XenRig(queueCapacity: 4)
        try rig.connect(BlkfrontOptions(ringPages: 4))
        rig.isHolding = true
        put(rig, 0..<100)
        _ = rig.run()
        rig.isHolding = false
        while rig.inFlight > 0 {
            rig.release()
            rig.settle()
        }
        #expect(rig.front.queues[0].reap().count == 100)
    }

    @Test("with all lists for indirect requests taken, the others wait and are served")
    func listsRunOut() throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(ringPages: 16))
        rig.isHolding = true
        let (reference, _) = rig.page()
        for id in 0..<150 {
            rig.putIndirect(
                XenRig.read, id: UInt64(id), sector: 0, [BlkfrontSegment(reference: reference)])
        }
        _ = rig.run()
        #expect(rig.held.count == XenLimits.pooledListCount)
        rig.isHolding = false
        rig.release()
        rig.settle()
        #expect(rig.front.queues[0].reap().count == 150)
    }

    @Test("one guest has at most its share of the engine, and all its queues get some of it")
    func share() throws {
        let rig = XenRig(queueCapacity: 4096)
        try rig.connect(BlkfrontOptions(queueCount: 3, ringPages: 8))
        rig.isHolding = true
        for queue in 0..<3 {
            put(rig, 0..<200, queue: queue)
            rig.front.queues[queue].push()
            rig.settle()
        }
        #expect(rig.held.count == XenLimits.engineRequestsMax)
        var served = [0, 0, 0]
        while let request = rig.held.first {
            served[Int(request.tag >> 16)] += 1
            rig.release(at: 0)
            rig.settle()
            #expect(rig.held.count <= XenLimits.engineRequestsMax)
            // The third had nothing at first, and does not wait until the first two are done.
            if served.reduce(0, +) == 350 { #expect(served[2] > 0) }
        }
        #expect(served == [200, 200, 200])
    }

    @Test("a full ring is more than one turn's share, and is served to the end")
    func budget() throws {
        let rig = XenRig(queueCapacity: 1024)
        try rig.connect(BlkfrontOptions(ringPages: 16))
        put(rig, 0..<512)
        rig.front.queues[0].push()
        rig.turn()
        #expect(rig.counters.requests == UInt64(XenLimits.requestsPerTurnMax) * 2)
        rig.settle()
        #expect(rig.front.queues[0].reap().count == 512)
    }

    @Test("persistent grants are mapped once, and found again")
    func persistentGrants() throws {
        let rig = XenRig()
        try rig.connect()
        let pages = (0..<4).map { _ in rig.page() }
        let calls = rig.xen.mapCalls
        for round in 0..<10 {
            for page in pages {
                let response = rig.request(
                    XenRig.read, sector: UInt64(round), [BlkfrontSegment(reference: page.0)])
                #expect(response?.status == 0)
            }
        }
        #expect(rig.xen.mapCalls - calls == 4)
        #expect(rig.counters.persistentHits == 36)
        #expect(rig.counters.pagesMappedOnce == 0)
        rig.front.state = "6"
        rig.settle()
        #expect(rig.xen.mappedPages == 0)
    }

    @Test("grants beyond the bound are mapped for one request, and used ones keep their place")
    func boundedGrants() throws {
        let rig = XenRig(pageCount: XenLimits.persistentGrantsMax + 64)
        rig.isRecording = false
        try rig.connect()
        let hot = rig.page().0
        let rings = 1
        for _ in 0..<XenLimits.persistentGrantsMax + 40 {
            let (reference, _) = rig.page()
            let response = rig.request(
                XenRig.read, sector: 0,
                [BlkfrontSegment(reference: reference), BlkfrontSegment(reference: hot)])
            #expect(response?.status == 0)
            #expect(rig.counters.pagesMapped <= XenLimits.persistentGrantsMax + rings)
        }
        #expect(rig.counters.persistentEvictions > 0, "hits on the hot page earn credit")
        let calls = rig.xen.mapCalls
        _ = rig.request(XenRig.read, sector: 0, [BlkfrontSegment(reference: hot)])
        #expect(rig.xen.mapCalls == calls, "the page that is always used was evicted")
    }

    @Test("one request may name a page twice")
    func samePageTwice() throws {
        for isPersistent in [true, false] {
            let rig = XenRig()
            try rig.connect(BlkfrontOptions(isPersistent: isPersistent))
            let (reference, page) = rig.page()
            rig.fill(sector: 0, XenRig.pattern(1024))
            let response = rig.request(
                XenRig.read, sector: 0,
                [
                    BlkfrontSegment(reference: reference, first: 6, last: 6),
                    BlkfrontSegment(reference: reference, first: 0, last: 0),
                ])
            #expect(response?.status == 0)
            #expect(isPage(page, Array(XenRig.pattern(1024)[512...])))
            #expect(isPage(page + 6 * 512, Array(XenRig.pattern(1024)[..<512])))
        }
    }
}
